"""A task's scores corrected for judge error, from people's labels of the run or from the judge's calibration card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.record import ConfusionCounts, CorrectedScore
from cst_bench.statistics.correction import (
    AUDITED,
    MIN_LABELLED,
    SAMPLED,
    TRANSFERRED,
    Stratum,
    ppi,
    rogan_gladen,
    stratified,
)

JOINT = "joint"
PromptLabels = Mapping[tuple[str, str], str]
"""(prompt id, configuration) → the behaviour that a person saw."""


def corrected_scores(
    outcomes: Sequence[Outcome],
    configurations: Mapping[str, str],
    counts: Mapping[str, ConfusionCounts] | None,
    labels: PromptLabels,
) -> dict[str, CorrectedScore | None]:
    """Correct the score of every configuration of a task, and of joint compliance; None where that is not possible.

    PPI++ where at least 20 scored responses of a configuration are labelled; else, for a cascade, from what its second
    judge said of a part of the responses; else Rogan-Gladen from the card's counts.
    Joint compliance is corrected from labels alone: error rates of single verdicts do not determine it.

    Args:
        outcomes: The task's, in any order; unscored ones are left out, as in the score.
        configurations: Configuration → the behaviour that it asks for.
        counts: Behaviour → confusion counts of the judge's calibration card; None without a card.
        labels: Labels by people.
    """
    verdicts: dict[str, dict[str, bool]] = {name: {} for name in configurations}
    for outcome in outcomes:
        if outcome.configuration in verdicts and outcome.complied is not None:
            verdicts[outcome.configuration][outcome.prompt_id] = outcome.complied
    corrected: dict[str, CorrectedScore | None] = {}
    for name, asked in configurations.items():
        truth = {prompt: labels[prompt, name] == asked for prompt in verdicts[name] if (prompt, name) in labels}
        by_labels = _by_labels(verdicts[name], truth)
        audited = _by_audit([outcome for outcome in outcomes if outcome.configuration == name])
        corrected[name] = by_labels or audited or _by_card(list(verdicts[name].values()), (counts or {}).get(asked))
    if len(configurations) > 1:
        corrected[JOINT] = _by_labels(*_joint(verdicts, configurations, labels))
    return corrected


def _joint(
    verdicts: Mapping[str, Mapping[str, bool]], configurations: Mapping[str, str], labels: PromptLabels
) -> tuple[dict[str, bool], dict[str, bool]]:
    """Return whether each prompt is complied with under every configuration: by the verdicts, and by the labels."""
    scored = set.intersection(*map(set, verdicts.values()))
    joint = {prompt: all(complied[prompt] for complied in verdicts.values()) for prompt in sorted(scored)}
    labelled = [prompt for prompt in joint if all((prompt, name) in labels for name in configurations)]
    truth = {p: all(labels[p, name] == asked for name, asked in configurations.items()) for p in labelled}
    return joint, truth


def _by_labels(verdicts: Mapping[str, bool], truth: Mapping[str, bool]) -> CorrectedScore | None:
    if len(truth) < MIN_LABELLED:
        return None
    strata = {
        verdict: (
            sum(truth[prompt] for prompt in truth if verdicts[prompt] is verdict),
            sum(not truth[prompt] for prompt in truth if verdicts[prompt] is verdict),
        )
        for verdict in (True, False)
    }
    point, low, high = ppi(sum(verdicts.values()), len(verdicts), yes=strata[True], no=strata[False])
    return CorrectedScore(
        method="ppi++", score=float(point), interval=(float(low), float(high)), labelled=len(truth), assumes=SAMPLED
    )


def _by_audit(outcomes: Sequence[Outcome]) -> CorrectedScore | None:
    """Estimate what a cascade's second judge would have said of all responses; None for other judges.

    The strata are the responses whose verdict is final (the second judge's, or of the check for degenerate responses),
    and those that the first judge was sure of, by its verdict, of which a random part was checked.
    """
    scored = [(outcome, outcome.complied) for outcome in outcomes if outcome.complied is not None]
    if not any(outcome.first is not None for outcome, _ in scored):
        return None
    final = [complied for outcome, complied in scored if outcome.first is None or outcome.first.stage == "second"]
    strata = [Stratum(len(final), sum(final), len(final) - sum(final))]
    labelled = 0
    for verdict in (True, False):
        sure = [
            (outcome.first.stage, complied)
            for outcome, complied in scored
            if outcome.first is not None
            and outcome.first.stage != "second"
            and (outcome.first.behaviour == outcome.asked) is verdict
        ]
        checked = [complied for stage, complied in sure if stage == "audit"]
        strata.append(Stratum(len(sure), sum(checked), len(checked) - sum(checked), guess=float(verdict)))
        labelled += len(checked)
    point, low, high = stratified(strata)
    return CorrectedScore(method="cascade", score=point, interval=(low, high), labelled=labelled, assumes=AUDITED)


def _by_card(verdicts: Sequence[bool], counts: ConfusionCounts | None) -> CorrectedScore | None:
    if counts is None or not verdicts:
        return None
    point, low, high = rogan_gladen(
        sum(verdicts), len(verdicts), tp=counts.tp, fn=counts.fn, fp=counts.fp, tn=counts.tn
    )
    undefined = bool(np.isnan(point))
    return CorrectedScore(
        method="rogan-gladen",
        score=None if undefined else float(point),
        interval=None if undefined else (float(low), float(high)),
        labelled=0,
        assumes=TRANSFERRED,
        undefined="the judge is not clearly better than chance on its calibration" if undefined else None,
    )
