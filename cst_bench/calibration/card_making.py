"""Making of a calibration card from a judge and labelled responses."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import numpy as np

from cst_bench import __version__
from cst_bench.calibration.labels import Labelled, LabelSet, check_behaviours
from cst_bench.calibration.slices import Pairs, slice_metrics
from cst_bench.calibration.training_card import short
from cst_bench.errors import UserError
from cst_bench.files import prompt_hash
from cst_bench.judging import Case, Judge, Verdict, all_behaviours, ask, total_spent, verdict_of_checks
from cst_bench.judging.card import (
    BehaviourMetrics,
    CalibrationCard,
    CardJudge,
    CardLabels,
    ConfusionMatrix,
    Disagreement,
)
from cst_bench.judging.panel import PanelJudge
from cst_bench.record import ConfusionCounts
from cst_bench.statistics.agreement import Agreement, agreement
from cst_bench.statistics.classification import (
    OVERALL,
    PER_BEHAVIOUR,
    Counts,
    Reliability,
    SelectivePoint,
    confusion,
    confusion_by_cluster,
    metric_estimates,
    reliability,
    selective_accuracy,
)
from cst_bench.statistics.intervals import UNDEFINED, Estimate


@dataclass(frozen=True)
class JudgedLabels:
    """Labelled responses and a judge's verdicts on them."""

    labels: LabelSet
    verdicts: Sequence[Verdict]
    seconds: float
    """Time for all of them."""
    panel: Agreement | None
    """Agreement of a panel's members."""


def make_calibration(
    judge: Judge,
    labels: LabelSet,
    *,
    seen: frozenset[str] = frozenset(),
    held_out: Mapping[str, Verdict] | None = None,
    seed: int = 0,
    count: Callable[[int], None] | None = None,
) -> CalibrationCard:
    """Make the calibration card of a judge on labelled responses.

    Args:
        judge: Any judge.
        labels: Labelled responses of its behaviours, or of `neither`.
        seen: As `judge_labels`.
        held_out: As `judge_labels`.
        seed: Bootstrap seed.
        count: Called with the number of new verdicts.

    Raises:
        UserError: as `judge_labels`.
        JudgeUnavailable: some verdicts are missing.
    """
    judged = judge_labels(judge, labels, seen=seen, held_out=held_out, seed=seed, count=count)
    return make_card(judge, judged.labels, judged.verdicts, seconds=judged.seconds, seed=seed, panel=judged.panel)


def judge_labels(
    judge: Judge,
    labels: LabelSet,
    *,
    seen: frozenset[str] = frozenset(),
    held_out: Mapping[str, Verdict] | None = None,
    seed: int = 0,
    count: Callable[[int], None] | None = None,
) -> JudgedLabels:
    """Judge labelled responses.

    Of responses that the judge was trained on, those with a held-out verdict count with that, and others are left out.

    Args:
        judge: Any judge.
        labels: Labelled responses of its behaviours, or of `neither`.
        seen: Short hashes of the labelled responses that the judge was trained on (`trained_on`).
        held_out: Short hash → verdict of a training that had left the response out, for a judge that has them.
        seed: Bootstrap seed for the agreement of a panel.
        count: Called with the number of new verdicts.

    Raises:
        UserError: a label is not one of the judge's behaviours, a field that it needs is missing, or it was trained on
            some of these responses and has no held-out verdicts.
        JudgeUnavailable: some verdicts are missing.
    """
    check_behaviours(labels, judge.behaviours)
    _check_fields(judge, labels)
    known = held_out or {}
    kept = [row for row in labels.rows if short(row.key) in known or short(row.key) not in seen]
    if known and 0 < len(kept) < len(labels.rows):
        labels = LabelSet.of(labels.name, kept)
    leaked = [row.id for row in labels.rows if short(row.key) in seen and short(row.key) not in known]
    if leaked:
        raise UserError(
            f"judge {judge.name} was trained on {len(leaked)} of the {len(labels.rows)} responses of {labels.name} "
            f"(row {leaked[0]}, …): calibrate it on others, such as --split test of a file that has splits"
        )
    recorded = _RecordedPanel(judge) if isinstance(judge, PanelJudge) else None
    spared = [at for at, row in enumerate(labels.rows) if short(row.key) in known][_TIMED:]
    asked = sorted(set(range(len(labels.rows))) - set(spared))
    started = time.monotonic()
    answers = ask(cast(Judge, recorded or judge), [labels.rows[at].case for at in asked], count)
    seconds = (time.monotonic() - started) * len(labels.rows) / len(asked)
    verdicts = dict(zip(asked, answers, strict=True))
    for at, row in enumerate(labels.rows):
        if short(row.key) in known:
            verdicts[at] = verdict_of_checks(judge, row.case) or known[short(row.key)]
    panel = None if recorded is None else recorded.agreement(seed)
    return JudgedLabels(labels, [verdicts[at] for at in range(len(labels.rows))], seconds, panel)


_TIMED = 200
"""Responses with a held-out verdict that the judge is asked about, too, to measure its speed."""


@dataclass
class _RecordedPanel:
    """A panel that keeps the verdicts of its members."""

    panel: PanelJudge
    cases: Sequence[Case] = ()
    """Cases that the members were asked about: without degenerate responses."""
    columns: list[list[Verdict]] = field(default_factory=list)

    @property
    def reserved(self) -> frozenset[str]:
        """Return the panel's reserved behaviours."""
        return self.panel.reserved

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        """Return the panel's verdicts."""
        self.cases = cases
        self.columns = await self.panel.member_verdicts(cases, count)
        return self.panel.combine(self.columns)

    def agreement(self, seed: int) -> Agreement | None:
        """Return the agreement of the members; None if they were asked nothing."""
        if not self.columns:
            return None
        return agreement(
            [member.name for member in self.panel.members],
            [[verdict.behaviour for verdict in column] for column in self.columns],
            [prompt_hash(case.prompt) for case in self.cases],
            seed=seed,
        )


def make_card(
    judge: Judge,
    labels: LabelSet,
    verdicts: Sequence[Verdict],
    *,
    seconds: float,
    seed: int = 0,
    panel: Agreement | None = None,
) -> CalibrationCard:
    """Make the card of known verdicts."""
    behaviours = judge.behaviours
    pairs = list(zip(labels.rows, verdicts, strict=True))
    scored = [(row, verdict.behaviour) for row, verdict in pairs if verdict.behaviour is not None]
    seen = [name for row, verdict in pairs for name in (row.behaviour, verdict.behaviour)]
    classes = all_behaviours(behaviours, seen)
    prevalence = Counter(row.behaviour for row in labels.rows)
    estimates = estimates_by_prompt(scored, behaviours, seed)
    pessimistic = [(row, verdict.behaviour or _wrong(row, behaviours)) for row, verdict in pairs]
    matrix = confusion([row.behaviour for row, _ in scored], [behaviour for _, behaviour in scored], classes)
    return CalibrationCard(
        judge=CardJudge.describe(judge),
        labels=CardLabels(name=labels.name, sha256=labels.sha256, by=tuple(labels.by), n=len(labels.rows)),
        measures="accuracy" if labels.by == ["human"] else "agreement",
        agreement_with=agreement_with(labels.by),
        n=len(scored),
        unscored=dict(sorted(Counter(str(v.reason) for _, v in pairs if v.behaviour is None).items())),
        prevalence={name: prevalence[name] / len(labels.rows) for name in classes if prevalence[name]},
        behaviours={
            name: BehaviourMetrics(
                **{metric: estimates[f"{name}/{metric}"] for metric in PER_BEHAVIOUR},
                counts=_counts(matrix, at),
            )
            for at, name in enumerate(behaviours)
        },
        macro_f1=estimates["macro_f1"],
        mcc=estimates["mcc"],
        kappa=estimates["kappa"],
        balanced_accuracy=estimates["balanced_accuracy"],
        agreement=estimates["agreement"],
        pessimistic_macro_f1=estimates_by_prompt(pessimistic, behaviours, seed)["macro_f1"],
        confusion=ConfusionMatrix(behaviours=classes, matrix=tuple(tuple(map(int, row)) for row in matrix.tolist())),
        reliability=_reliability(pairs, classes),
        selective=_selective(pairs),
        slices=slice_metrics(scored, behaviours),
        by_model=_by_model(scored, behaviours, classes),
        panel=panel,
        disagreements=tuple(
            Disagreement(id=row.id, label=row.behaviour, verdict=behaviour)
            for row, behaviour in scored
            if row.behaviour != behaviour
        ),
        seconds=round(seconds, 3),
        per_second=round(len(pairs) / seconds, 1) if seconds > 0 else None,
        spent=total_spent(verdicts),
        seed=seed,
        packages={"cst-bench": __version__, "numpy": np.__version__},
        made=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def agreement_with(by: Sequence[str]) -> str:
    """Return the source of labels in words."""
    words = {
        "human": "people's labels",
        "by construction": "how the responses were made",
        "by construction of a pair": "which of a pair each is",
        "unknown": "labels by unknown",
    }
    return " and ".join(words.get(name, f"{name}'s labels") for name in by)


def estimates_by_prompt(scored: Pairs, behaviours: Sequence[str], seed: int) -> dict[str, Estimate]:
    """Return every metric of verdicts with its interval, clustered by prompt; all undefined without verdicts."""
    if not scored:
        keys = (*OVERALL, *(f"{name}/{metric}" for name in behaviours for metric in PER_BEHAVIOUR))
        return dict.fromkeys(keys, UNDEFINED)
    counts = confusion_by_cluster(
        [row.behaviour for row, _ in scored],
        [behaviour for _, behaviour in scored],
        all_behaviours(behaviours, [name for row, verdict in scored for name in (row.behaviour, verdict)]),
        [prompt_hash(row.case.prompt) for row, _ in scored],
    )
    return metric_estimates(counts, behaviours, seed=seed)


def _by_model(
    scored: Pairs, behaviours: Sequence[str], classes: Sequence[str]
) -> dict[str, dict[str, ConfusionCounts]]:
    """Return the counts of each model that made responses, and of the rest by label set; empty if none is known."""
    if not any("model" in row.slices for row, _ in scored):
        return {}
    models = [row.slices.get("model") or f"{row.slices.get('labels', 'others')} (models unknown)" for row, _ in scored]
    labels, verdicts = [row.behaviour for row, _ in scored], [verdict for _, verdict in scored]
    matrices = confusion_by_cluster(labels, verdicts, classes, models)
    by_model = dict(zip(dict.fromkeys(models), matrices, strict=True))
    return {
        model: {name: _counts(by_model[model], at) for at, name in enumerate(behaviours)} for model in sorted(by_model)
    }


def _counts(matrix: Counts, at: int) -> ConfusionCounts:
    """Return the counts of one behaviour against all others."""
    right = int(matrix[at, at])
    missed, wrong = int(matrix[at].sum()) - right, int(matrix[:, at].sum()) - right
    return ConfusionCounts(tp=right, fn=missed, fp=wrong, tn=int(matrix.sum()) - right - missed - wrong)


def _wrong(row: Labelled, behaviours: Sequence[str]) -> str:
    return next(name for name in all_behaviours(behaviours, ()) if name != row.behaviour)


def _reliability(pairs: Sequence[tuple[Labelled, Verdict]], classes: Sequence[str]) -> Reliability | None:
    known = [
        (row.behaviour, verdict.probabilities)
        for row, verdict in pairs
        if verdict.probabilities is not None and verdict.behaviour is not None
    ]
    if not known:
        return None
    return reliability([label for label, _ in known], [probabilities for _, probabilities in known], classes)


def _selective(pairs: list[tuple[Labelled, Verdict]]) -> tuple[SelectivePoint, ...]:
    known = [
        (row.behaviour == verdict.behaviour, verdict.probabilities[verdict.behaviour])
        for row, verdict in pairs
        if verdict.behaviour is not None and verdict.probabilities and verdict.behaviour in verdict.probabilities
    ]
    return selective_accuracy([right for right, _ in known], [value for _, value in known]) if known else ()


def _check_fields(judge: Judge, labels: LabelSet) -> None:
    for row in labels.rows:
        missing = sorted(judge.fields - set(row.case.fields))
        if missing:
            raise UserError(
                f"judge {judge.name} needs the field {missing[0]!r}, but row {row.id} of {labels.name} lacks it "
                f"(fields: {', '.join(row.case.fields) or 'none'})"
            )
