"""A task's scores corrected for judge error, from people's labels of the run or from the judge's calibration card."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.record import CalibrationSummary, CorrectedScore
from cst_bench.runs.label_strata import CLASSES, Class, class_of
from cst_bench.statistics.correction import (
    AUDITED,
    MIN_LABELLED,
    SAMPLED,
    Stratum,
    contradicted,
    pooled_rates,
    rates_between_models,
    rogan_gladen,
    stratified,
)
from cst_bench.statistics.intervals import effective_size

JOINT = "joint"
_UNAUDITED = CorrectedScore(
    method="cascade",
    score=None,
    interval=None,
    labelled=0,
    assumes=AUDITED,
    undefined="a cascade's audit is of single responses, and prompts have several here",
)
_GUESSES: Mapping[Class, float | None] = {"yes": 1.0, "no": 0.0, "unscored": None}
"""Share of a stratum without labels, as far as there is a verdict to go by."""


@dataclass(frozen=True)
class TaskLabels:
    """Labels by people of a task's responses; keys are (prompt id, configuration)."""

    votes: Mapping[tuple[str, str], tuple[str | None, ...]] = field(default_factory=dict)
    """Response → the behaviour that each of its labellers saw; None is unsure."""
    strata: Mapping[tuple[str, str], Class] = field(default_factory=dict)
    """Response → the stratum that it was drawn from; empty if all were drawn alike."""


def corrected_scores(
    outcomes: Sequence[Outcome],
    configurations: Mapping[str, str],
    calibration: CalibrationSummary | None,
    labels: TaskLabels,
    uncalibrated: Sequence[str] = (),
) -> dict[str, CorrectedScore | None]:
    """Correct the score of every configuration of a task, and of joint compliance; None where that is not possible.

    PPI++ where at least 20 responses of a configuration are labelled, unscored ones included: it estimates the share of
    all responses. Else, for a cascade, from what its second judge said of a part of the responses; else Rogan-Gladen
    from the card of a calibrated judge, unless the verdicts contradict the card. A correction that is refused has no
    score, and says why. Joint compliance is corrected from labels alone: error rates of single verdicts do not
    determine it.

    With several responses to a prompt, there are no labels, and Rogan-Gladen takes the verdicts for as many as their
    clustering by prompt leaves.

    Args:
        outcomes: The task's, in any order.
        configurations: Configuration → the behaviour that it asks for.
        calibration: Summary of the judge's calibration card; None without a card.
        labels: Labels by people.
        uncalibrated: Why the judge is not calibrated; empty if it is.
    """
    by_configuration = {name: [o for o in outcomes if o.configuration == name] for name in configurations}

    def by_card(name: str) -> CorrectedScore | None:
        return _by_card(*_counts(by_configuration[name]), configurations[name], calibration, uncalibrated)

    if len({(o.prompt_id, o.configuration) for o in outcomes}) < len(outcomes):
        audited = any(outcome.first is not None for outcome in outcomes)
        single = {name: _UNAUDITED if audited else by_card(name) for name in configurations}
        return {**single, **({JOINT: None} if len(configurations) > 1 else {})}
    responses: dict[str, dict[str, _Response]] = {name: {} for name in configurations}
    for outcome in outcomes:
        if outcome.asked is not None and outcome.configuration in responses:
            responses[outcome.configuration][outcome.prompt_id] = _response(outcome, outcome.asked, labels)
    corrected: dict[str, CorrectedScore | None] = {}
    for name in configurations:
        by_labels = _by_labels(list(responses[name].values()))
        corrected[name] = by_labels or _by_audit(by_configuration[name]) or by_card(name)
    if len(configurations) > 1:
        prompts = sorted(set.intersection(*map(set, responses.values())))
        corrected[JOINT] = _by_labels([_joint([of[prompt] for of in responses.values()]) for prompt in prompts])
    return corrected


def _counts(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Return the number of compliant verdicts and of all: of independent ones that say as much as several a prompt."""
    by_prompt: dict[str, list[bool]] = {}
    for outcome in outcomes:
        if outcome.complied is not None:
            by_prompt.setdefault(outcome.prompt_id, []).append(outcome.complied)
    shares = [sum(verdicts) / len(verdicts) for verdicts in by_prompt.values()]
    responses = sum(map(len, by_prompt.values()))
    if responses == len(shares):
        return sum(shares), len(shares)
    size = effective_size(shares, responses)
    return sum(shares) / len(shares) * size, size


@dataclass(frozen=True)
class _Response:
    """Verdicts of judge and people on compliance: of a response, or of a prompt under every configuration."""

    verdict: Class
    drawn_from: Hashable
    """Responses with the same verdict and the same value were labelled with the same probability."""
    labelled: bool
    shown: bool | None = None
    """Whether it complies, by the labels; None is unsure."""


def _response(outcome: Outcome, asked: str, labels: TaskLabels) -> _Response:
    verdict = class_of(outcome.complied)
    key = (outcome.prompt_id, outcome.configuration)
    votes = labels.votes.get(key, ())
    return _Response(verdict, labels.strata.get(key, verdict), bool(votes), majority(votes, asked))


def majority(votes: Sequence[str | None], asked: str) -> bool | None:
    """Return whether more than half of the labellers saw the behaviour, or something else; None if neither."""
    seen = sum(vote == asked for vote in votes)
    unsure = sum(vote is None for vote in votes)
    for answer, count in ((True, seen), (False, len(votes) - seen - unsure)):
        if 2 * count > len(votes):
            return answer
    return None


def _joint(responses: Sequence[_Response]) -> _Response:
    """Return whether a prompt is complied with under every configuration.

    Its stratum is that of all its responses together: a prompt is labelled if all of them are.
    """
    verdicts = [response.verdict for response in responses]
    shown = [response.shown for response in responses]
    return _Response(
        "unscored" if "unscored" in verdicts else "no" if "no" in verdicts else "yes",
        tuple((response.verdict, response.drawn_from) for response in responses),
        all(response.labelled for response in responses),
        False if False in shown else None if None in shown else True,
    )


def _by_labels(responses: Sequence[_Response]) -> CorrectedScore | None:
    """Estimate compliance from the labelled part of each stratum; None with too few labels."""
    labelled = [response for response in responses if response.labelled]
    if len(labelled) < MIN_LABELLED:
        return None
    members: dict[tuple[Class, Hashable], list[_Response]] = {}
    for response in sorted(responses, key=lambda response: CLASSES.index(response.verdict)):
        members.setdefault((response.verdict, response.drawn_from), []).append(response)
    strata = [_stratum(verdict, here) for (verdict, _), here in members.items()]
    point, low, high = stratified(strata)
    return CorrectedScore(
        method="ppi++",
        score=point,
        interval=(low, high),
        labelled=len(labelled),
        unsure=sum(response.shown is None for response in labelled),
        assumes=SAMPLED,
    )


def _stratum(verdict: Class, responses: Sequence[_Response]) -> Stratum:
    answers = [response.shown for response in responses if response.labelled]
    return Stratum(
        len(responses), answers.count(True), answers.count(False), unsure=answers.count(None), guess=_GUESSES[verdict]
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
    strata = [Stratum(len(final), sum(final), len(final) - sum(final))] if final else []
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
    positive: float, n: float, asked: str, calibration: CalibrationSummary | None, uncalibrated: Sequence[str]
) -> CorrectedScore | None:
    if calibration is None or asked not in (calibration.counts or {}) or not n:
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
