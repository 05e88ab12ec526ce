"""Calibration: a judge against labelled responses, as a card."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import numpy as np

from cst_bench import __version__
from cst_bench.calibration.labels import Labelled, LabelSet, check_behaviours
from cst_bench.errors import UserError
from cst_bench.files import prompt_hash
from cst_bench.judging import NEITHER, Case, Judge, Verdict, ask, total_spent
from cst_bench.judging.card import SCHEMA
from cst_bench.judging.panel import PanelJudge
from cst_bench.statistics.classification_metrics import by_cluster, confusion, figures, reliability, with_intervals
from cst_bench.statistics.judge_agreement import agreement

FIGURES = ("macro_f1", "mcc", "kappa", "balanced_accuracy", "agreement")
_MIN_SLICE = 5


def calibrate(
    judge: Judge,
    labels: LabelSet,
    *,
    trained_on: frozenset[str] = frozenset(),
    seed: int = 0,
    count: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """The calibration card of a judge on some labels (see `cst_bench.judging.card`).

    Undefined figures are None. Unscored responses are in no figure; `pessimistic_macro_f1` counts them as wrong.

    Args:
        judge: Any judge.
        labels: Labelled responses of its behaviours, or of `neither`.
        trained_on: Short hashes of the labelled responses that the judge was trained on (`short`).
        seed: Of the bootstrap.
        count: Told of verdicts as they come.

    Raises:
        UserError: a label is no behaviour of the judge, a field that it needs is missing, or it was trained on some of
            these responses.
        JudgeUnavailable: some verdicts could not be had.
    """
    check_behaviours(labels, judge.behaviours)
    _check_fields(judge, labels)
    seen = [row.id for row in labels.rows if short(row.key) in trained_on]
    if seen:
        raise UserError(
            f"judge {judge.name} was trained on {len(seen)} of the {len(labels.rows)} responses of {labels.name} "
            f"(row {seen[0]}, …): calibrate it on others, such as --split test of a file that has splits"
        )
    asked = _Minutes(judge) if isinstance(judge, PanelJudge) else judge
    started = time.monotonic()
    verdicts = ask(cast(Judge, asked), [row.case for row in labels.rows], count)
    seconds = time.monotonic() - started
    card = make_card(judge, labels, verdicts, seconds=seconds, seed=seed)
    if isinstance(asked, _Minutes):
        card["panel"] = asked.agreement(labels, seed)
    return card


@dataclass
class _Minutes:
    """A panel, and what its members said."""

    panel: PanelJudge
    columns: list[list[Verdict]] = field(default_factory=list)

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        self.columns = await self.panel.member_verdicts(cases, count)
        return self.panel.combine(self.columns)

    def agreement(self, labels: LabelSet, seed: int) -> dict[str, Any]:
        return agreement(
            [member.name for member in self.panel.members],
            [[verdict.behaviour for verdict in column] for column in self.columns],
            [prompt_hash(row.case.prompt) for row in labels.rows],
            seed=seed,
        )


def make_card(
    judge: Judge, labels: LabelSet, verdicts: Sequence[Verdict], *, seconds: float, seed: int = 0
) -> dict[str, Any]:
    """The card of verdicts that are there."""
    behaviours = list(judge.behaviours)
    pairs = [(row, verdict) for row, verdict in zip(labels.rows, verdicts, strict=True)]
    scored = [(row, verdict.behaviour) for row, verdict in pairs if verdict.behaviour is not None]
    given = Counter(row.behaviour for row in labels.rows)
    found = _figures(scored, behaviours, seed)
    worst = [(row, verdict.behaviour or _wrong(row, behaviours)) for row, verdict in pairs]
    return {
        "schema": SCHEMA,
        "judge": {
            "name": judge.name,
            "version": judge.version,
            "kind": judge.kind,
            "sha256": judge.identity,
            "behaviours": behaviours,
            **judge.details,
        },
        "labels": {"name": labels.name, "sha256": labels.sha256, "by": labels.by, "n": len(labels.rows)},
        "measures": "accuracy" if labels.by == ["human"] else "agreement",
        "agreement_with": agreement_with(labels.by),
        "n": len(scored),
        "unscored": dict(sorted(Counter(str(v.reason) for _, v in pairs if v.behaviour is None).items())),
        "prevalence": {name: given[name] / len(labels.rows) for name in (*behaviours, NEITHER) if given[name]},
        **found,
        "pessimistic_macro_f1": _figures(worst, behaviours, seed)["macro_f1"],
        "confusion": {
            "behaviours": [*behaviours, NEITHER],
            "matrix": confusion([row.behaviour for row, _ in scored], [said for _, said in scored], behaviours)
            .astype(int)
            .tolist(),
        },
        "reliability": _reliability(pairs, behaviours),
        "slices": _slices(scored, behaviours),
        "panel": None,
        "disagreements": [
            {"id": row.id, "label": row.behaviour, "verdict": said} for row, said in scored if row.behaviour != said
        ],
        "seconds": round(seconds, 3),
        "per_second": round(len(pairs) / seconds, 1) if seconds > 0 else None,
        "spent": spent.as_json() if (spent := total_spent(verdicts)) else {},
        "seed": seed,
        "packages": {"cst-bench": __version__, "numpy": np.__version__},
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def agreement_with(by: Sequence[str]) -> str:
    """What the figures of a card are agreement with, in words: a model's labels are no truth."""
    words = {
        "human": "people's labels",
        "by construction": "how the responses were made",
        "by construction of a pair": "which of a pair each is",
        "unknown": "labels by unknown",
    }
    return " and ".join(words.get(one, f"{one}'s labels") for one in by)


def short(key: str) -> str:
    """The short hash by which a trained judge's card lists the responses that it has seen: 16 hex digits."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def trained_on(judge_file: Path) -> frozenset[str]:
    """The short hashes in the training card beside a judge file; none if there is no such card.

    Raises:
        UserError: the card can't be read.
    """
    path = judge_file.parent / "card.json"
    if not path.is_file():
        return frozenset()
    try:
        return frozenset(json.loads(path.read_text(encoding="utf-8")).get("trained_on", {}).get("keys_sha256", []))
    except (ValueError, AttributeError, TypeError):
        raise UserError(f"{path} is no training card: `cst-bench judge train` writes one") from None


def _figures(scored: Sequence[tuple[Labelled, str]], behaviours: list[str], seed: int) -> dict[str, Any]:
    labels, said = [row.behaviour for row, _ in scored], [verdict for _, verdict in scored]
    if not scored:
        nothing: dict[str, Any] = {"value": None, "interval": None}
        found = dict.fromkeys(FIGURES, nothing)
        found |= {f"{name}/{figure}": nothing for name in behaviours for figure in ("precision", "recall", "f1")}
    else:
        clusters = [prompt_hash(row.case.prompt) for row, _ in scored]
        found = with_intervals(by_cluster(labels, said, behaviours, clusters), behaviours, seed=seed)
    matrix = confusion(labels, said, behaviours)
    return {
        "behaviours": {
            name: {
                **{figure: found[f"{name}/{figure}"] for figure in ("precision", "recall", "f1")},
                "counts": _counts(matrix, number),
            }
            for number, name in enumerate(behaviours)
        },
        **{name: found[name] for name in FIGURES},
    }


def _counts(matrix: np.ndarray[Any, Any], number: int) -> dict[str, int]:
    """Of one behaviour against all else: what a corrected score takes over."""
    right = int(matrix[number, number])
    missed, wrong = int(matrix[number].sum()) - right, int(matrix[:, number].sum()) - right
    return {"tp": right, "fn": missed, "fp": wrong, "tn": int(matrix.sum()) - right - missed - wrong}


def _wrong(row: Labelled, behaviours: Sequence[str]) -> str:
    return next(name for name in (*behaviours, NEITHER) if name != row.behaviour)


def _reliability(pairs: Sequence[tuple[Labelled, Verdict]], behaviours: list[str]) -> dict[str, Any] | None:
    known = [
        (row.behaviour, verdict.probabilities)
        for row, verdict in pairs
        if verdict.probabilities is not None and verdict.behaviour is not None
    ]
    if not known:
        return None
    return reliability([label for label, _ in known], [given for _, given in known], behaviours)


def _slices(scored: Sequence[tuple[Labelled, str]], behaviours: list[str]) -> dict[str, dict[str, Any]]:
    """Point figures by each column of the labels, and by terciles of the response's length in words."""
    groups: dict[str, dict[str, list[tuple[Labelled, str]]]] = {}
    for row, said in sorted(scored, key=lambda pair: sorted(pair[0].slices.items())):
        for name, value in row.slices.items():
            groups.setdefault(name, {}).setdefault(value, []).append((row, said))
    if scored:
        lengths = [len(row.case.response.split()) for row, _ in scored]
        low, high = (int(end) for end in np.quantile(lengths, [1 / 3, 2 / 3], method="lower"))
        names = (f"up to {low} words", f"{low + 1} to {high} words", f"over {high} words")
        by_length: dict[str, list[tuple[Labelled, str]]] = {name: [] for name in names}
        for (row, said), length in zip(scored, lengths, strict=True):
            by_length[names[int(length > low) + int(length > high)]].append((row, said))
        groups["length"] = {name: of for name, of in by_length.items() if of}
    large = {
        name: {value: of for value, of in values.items() if len(of) >= _MIN_SLICE}
        for name, values in sorted(groups.items())
        if len(values) > 1
    }
    return {
        name: {value: _slice(of, behaviours) for value, of in values.items()}
        for name, values in large.items()
        if values
    }


def _slice(of: Sequence[tuple[Labelled, str]], behaviours: list[str]) -> dict[str, Any]:
    found = figures(confusion([row.behaviour for row, _ in of], [said for _, said in of], behaviours), behaviours)
    return {
        "n": len(of),
        **{name: None if np.isnan(found[name]) else float(found[name]) for name in ("agreement", "macro_f1")},
    }


def _check_fields(judge: Judge, labels: LabelSet) -> None:
    for row in labels.rows:
        missing = sorted(judge.fields - set(row.case.fields))
        if missing:
            raise UserError(
                f"judge {judge.name} needs the field {missing[0]!r}, which row {row.id} of {labels.name} doesn't have: "
                f"{', '.join(row.case.fields) or 'it has no fields'}"
            )
