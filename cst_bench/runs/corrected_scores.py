"""A task's scores corrected for judge error, from people's labels of the run or from the judge's calibration card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.record import CalibrationSummary, CorrectedScore
from cst_bench.statistics.correction import (
    AUDITED,
    MIN_LABELLED,
    SAMPLED,
    Stratum,
    contradicted,
    pooled_rates,
    ppi,
    rates_between_models,
    rogan_gladen,
    stratified,
)

JOINT = "joint"
PromptLabels = Mapping[tuple[str, str], str]
"""(prompt id, configuration) → the behaviour that a person saw."""


def corrected_scores(
    outcomes: Sequence[Outcome],
    configurations: Mapping[str, str],
    calibration: CalibrationSummary | None,
    labels: PromptLabels,
    uncalibrated: Sequence[str] = (),
) -> dict[str, CorrectedScore | None]:
    """Correct the score of every configuration of a task, and of joint compliance; None where that is not possible.

    PPI++ where at least 20 scored responses of a configuration are labelled; else, for a cascade, from what its second
    judge said of a part of the responses; else Rogan-Gladen from the card of a calibrated judge, unless the verdicts
    contradict the card. A correction that is refused has no score, and says why.
    Joint compliance is corrected from labels alone: error rates of single verdicts do not determine it.

    Args:
        outcomes: The task's, in any order; unscored ones are left out, as in the score.
        configurations: Configuration → the behaviour that it asks for.
        calibration: Summary of the judge's calibration card; None without a card.
        labels: Labels by people.
        uncalibrated: Why the judge is not calibrated; empty if it is.
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
        corrected[name] = (
            by_labels or audited or _by_card(list(verdicts[name].values()), asked, calibration, uncalibrated)
        )
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


def _by_card(
    verdicts: Sequence[bool], asked: str, calibration: CalibrationSummary | None, uncalibrated: Sequence[str]
) -> CorrectedScore | None:
    if calibration is None or asked not in (calibration.counts or {}) or not verdicts:
        return None
    counts = (calibration.counts or {})[asked]
    by_model = [model[asked] for model in calibration.by_model.values() if asked in model]
    assumes = _assumption(len(by_model))

    def refused(reason: str) -> CorrectedScore:
        return CorrectedScore(
            method="rogan-gladen", score=None, interval=None, labelled=0, assumes=assumes, undefined=reason
        )

    if uncalibrated:
        return refused(f"the judge is not calibrated: {'; '.join(uncalibrated)}")
    if len(by_model) > 1:
        rates = rates_between_models([(model.tp, model.fn, model.fp, model.tn) for model in by_model])
    else:
        rates = pooled_rates(tp=counts.tp, fn=counts.fn, fp=counts.fp, tn=counts.tn)
    positive, n = sum(verdicts), len(verdicts)
    if not rates.better_than_chance:
        among = "for another model like those of its calibration" if len(by_model) > 1 else "on its calibration"
        return refused(f"the judge is not clearly better than chance {among}")
    if contradicted(positive, n, rates):
        return refused(
            f"the verdicts contradict the calibration card: by its error rates, the share of {asked} among verdicts "
            f"lies between {rates.false_alarm:.2f} and {rates.sensitivity:.2f}, and here it is {positive / n:.2f}"
        )
    point, low, high = rogan_gladen(positive, n, rates)
    return CorrectedScore(
        method="rogan-gladen",
        score=float(point),
        interval=(float(low), float(high)),
        labelled=0,
        assumes=assumes,
    )


def _assumption(models: int) -> str:
    """Return what a correction by a card with responses of so many known models takes for granted."""
    if models > 1:
        return (
            f"the judge errs on these responses as it does on those of a model like the {models} of its calibration; "
            "the interval includes how much it differs between those"
        )
    known = "has responses of one model only" if models else "does not say which models made its responses"
    return (
        "the judge errs on these responses as it does on those of its calibration; the interval does not include how "
        f"much that differs between models, since the card {known}"
    )
