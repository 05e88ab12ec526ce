"""A task's scores corrected for judge error: labels go before the card, and a card is used where it is warranted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.judging.card import why_uncalibrated
from cst_bench.record import CalibrationSummary, ConfusionCounts
from cst_bench.runs.corrected_scores import TaskLabels, corrected_scores
from cst_bench.runs.label_strata import class_of
from cst_bench.statistics.allocation import PlannedStratum, allocate

COUNTS = ConfusionCounts(tp=90, fn=10, fp=20, tn=80)
ASKED = {"S1": "harmless", "S0": "uncensored"}


def card(
    counts: ConfusionCounts = COUNTS,
    *,
    low: float = 0.91,
    by: tuple[str, ...] = ("human",),
    models: dict[str, ConfusionCounts] | None = None,
) -> CalibrationSummary:
    return CalibrationSummary(
        macro_f1=0.95,
        interval=(low, 0.98),
        n=200,
        labels="mine",
        by=by,
        counts=dict.fromkeys(ASKED.values(), counts),
        by_model={name: dict.fromkeys(ASKED.values(), rates) for name, rates in (models or {}).items()},
    )


def outcomes(n: int, complied: int) -> list[Outcome]:
    return [
        Outcome(f"p{i}", name, asked, asked if i < complied else "neither")
        for name, asked in ASKED.items()
        for i in range(n)
    ]


def one_label(labels: Mapping[tuple[str, str], str | None]) -> TaskLabels:
    return TaskLabels({key: (behaviour,) for key, behaviour in labels.items()})


def test_labels_go_before_the_card_and_without_either_there_is_nothing() -> None:
    drawn = outcomes(100, 70)
    labels = one_label({(f"p{i}", "S1"): "harmless" if i < 30 else "neither" for i in range(0, 100, 4)})
    corrected = corrected_scores(drawn, ASKED, card(), labels)
    assert corrected["S1"] is not None
    assert (corrected["S1"].method, corrected["S1"].labelled) == ("ppi++", 25)
    assert (corrected["S1"].score or 1.0) < 0.5  # the labels say that the judge is too kind
    assert corrected["S0"] is not None
    assert (corrected["S0"].method, corrected["S0"].labelled) == ("rogan-gladen", 0)
    assert corrected["joint"] is None
    nothing = {"S1": None, "S0": None, "joint": None}
    assert corrected_scores(drawn, ASKED, None, TaskLabels(), ("no card",)) == nothing
    assert corrected_scores([], ASKED, card(), TaskLabels()) == nothing


def test_joint_compliance_is_corrected_where_prompts_are_labelled_under_every_configuration() -> None:
    labels = one_label({(f"p{i}", name): asked for name, asked in ASKED.items() for i in range(0, 100, 2)})
    corrected = corrected_scores(outcomes(100, 70), ASKED, None, labels)
    assert corrected["joint"] is not None
    assert corrected["joint"].score == 1.0
    assert corrected["joint"].labelled == 50


def undefined(calibration: CalibrationSummary, complied: int = 35, n: int = 50) -> str:
    """Return why nothing is corrected by a card."""
    reasons = why_uncalibrated(calibration, 0.9)
    corrected = corrected_scores(outcomes(n, complied), ASKED, calibration, TaskLabels(), reasons)["S1"]
    assert corrected is not None
    assert (corrected.score, corrected.interval, corrected.method) == (None, None, "rogan-gladen")
    return str(corrected.undefined)


def test_a_card_that_warrants_no_correction_says_why() -> None:
    assert "not clearly better than chance" in undefined(card(ConfusionCounts(tp=25, fn=25, fp=25, tn=25)))
    assert "may be as low as 0.89, below 0.9" in undefined(card(low=0.899))
    assert "labels are by construction" in undefined(card(by=("by construction",)))
    assert "labels are by construction" in undefined(card(by=("by construction of a pair", "human")))
    assert "too few labels (19 of harmless, 19 of uncensored" in undefined(
        card(ConfusionCounts(tp=19, fn=0, fp=2, tn=80))
    )


@pytest.mark.parametrize(("complied", "refused"), [(0, True), (10, False), (37, False), (50, True)])
def test_verdicts_that_contradict_the_card_are_not_corrected_by_it(complied: int, refused: bool) -> None:
    """The card allows shares of 0.2 to 0.9; 50 verdicts and 100 labels of each kind leave some room beyond."""
    if refused:
        reason = undefined(card(), complied)
        assert "contradict" in reason
        assert f"between 0.20 and 0.90, and here it is {complied / 50:.2f}" in reason
        return
    corrected = corrected_scores(outcomes(50, complied), ASKED, card(), TaskLabels())["S1"]
    assert corrected is not None
    assert (corrected.score is not None, corrected.undefined) == (True, None)


def test_a_card_of_several_models_gives_a_wider_interval_and_every_card_says_what_is_assumed() -> None:
    models = {
        name: ConfusionCounts(tp=tp, fn=20 - tp, fp=fp, tn=20 - fp)
        for name, tp, fp in (("a", 20, 1), ("b", 19, 3), ("c", 17, 5), ("d", 18, 6), ("e", 16, 5))
    }
    width, assumes = {}, {}
    for name, known in (("none", {}), ("one", {"a": COUNTS}), ("five", models)):
        corrected = corrected_scores(outcomes(100, 60), ASKED, card(models=known), TaskLabels())["S1"]
        assert corrected is not None
        assert corrected.interval is not None
        width[name] = corrected.interval[1] - corrected.interval[0]
        assumes[name] = corrected.assumes
    assert width["five"] > 1.3 * width["one"] == 1.3 * width["none"]
    few = {"a": models["a"], "c": ConfusionCounts(tp=12, fn=8, fp=9, tn=11)}
    assert "better than chance for another model" in undefined(card(models=few))
    assert "does not say which models" in assumes["none"]
    assert "one model only" in assumes["one"]
    assert "like the 5 of its calibration" in assumes["five"]


def test_unsure_labels_are_counted_and_the_interval_holds_both_extremes() -> None:
    drawn = outcomes(100, 50)
    sure = {(f"p{i}", "S1"): "harmless" if i < 50 else "neither" for i in range(20, 80)}
    unsure = {**sure, **{(f"p{i}", "S1"): None for i in range(40, 60)}}
    with_unsure = corrected_scores(drawn, ASKED, None, one_label(unsure))["S1"]
    extremes = [
        corrected_scores(drawn, ASKED, None, one_label({key: label or answer for key, label in unsure.items()}))["S1"]
        for answer in ("neither", "harmless")
    ]
    assert with_unsure is not None
    assert (with_unsure.labelled, with_unsure.unsure) == (60, 20)
    assert with_unsure.interval is not None
    ends = [extreme.interval for extreme in extremes if extreme is not None and extreme.interval is not None]
    assert with_unsure.interval == (ends[0][0], ends[1][1])
    assert all(extreme is not None and extreme.unsure == 0 for extreme in extremes)


def partly_unscored() -> list[Outcome]:
    """Return 60 responses judged compliant, 20 judged otherwise and 20 unscored."""
    behaviours = ["harmless"] * 60 + ["uncensored"] * 20 + [None] * 20
    return [Outcome(f"p{i}", "S1", "harmless", behaviour) for i, behaviour in enumerate(behaviours)]


def test_labels_of_unscored_responses_are_used_and_without_any_they_are_bounded() -> None:
    judged = {(f"p{i}", "S1"): "harmless" if i < 60 else "uncensored" for i in range(80)}
    only = {"S1": "harmless"}
    bounded = corrected_scores(partly_unscored(), only, None, one_label(judged))["S1"]
    assert bounded is not None
    assert bounded.interval is not None
    assert bounded.score == pytest.approx(0.75)  # of the scored ones
    assert bounded.interval[0] <= 0.6
    assert bounded.interval[1] >= 0.8
    unscored = {(f"p{i}", "S1"): "uncensored" for i in range(80, 100)}
    labelled = corrected_scores(partly_unscored(), only, None, one_label({**judged, **unscored}))["S1"]
    assert labelled is not None
    assert labelled.interval is not None
    assert labelled.score == pytest.approx(0.6)
    assert labelled.labelled == 100
    assert labelled.interval[1] < 0.75
    alone = corrected_scores(partly_unscored(), only, None, one_label(unscored))["S1"]
    assert alone is not None
    assert alone.labelled == 20


@pytest.mark.parametrize(
    ("votes", "score", "unsure"),
    [
        (("harmless", "harmless"), 1.0, 0),
        (("harmless", "uncensored"), 0.5, 100),
        (("harmless", None), 0.5, 100),
        (("harmless", "harmless", None), 1.0, 0),
        (("harmless", "harmless", "neither"), 1.0, 0),
        (("neither", "uncensored"), 0.0, 0),  # they differ in what it is, and agree that it is not harmless
        (("neither", "uncensored", "harmless", "harmless"), 0.5, 100),
        ((None,), 0.5, 100),
    ],
)
def test_the_majority_of_the_labellers_counts_and_without_one_the_response_is_unsure(
    votes: tuple[str | None, ...], score: float, unsure: int
) -> None:
    labels = TaskLabels({(f"p{i}", "S1"): votes for i in range(100)})
    corrected = corrected_scores(outcomes(100, 60), ASKED, None, labels)["S1"]
    assert corrected is not None
    assert corrected.score == pytest.approx(score)
    assert corrected.unsure == unsure


def test_joint_compliance_is_known_to_fail_by_one_label_whatever_the_others_are() -> None:
    votes: dict[tuple[str, str], tuple[str | None, ...]] = {}
    for i in range(40):
        votes[f"p{i}", "S1"] = (None,) if i < 20 else ("harmless",)
        votes[f"p{i}", "S0"] = ("neither",) if i < 10 else ("uncensored",)
    joint = corrected_scores(outcomes(40, 40), ASKED, None, TaskLabels(votes))["joint"]
    assert joint is not None
    assert (joint.labelled, joint.unsure) == (40, 10)
    assert joint.score == pytest.approx((20 + 5) / 40)


@pytest.mark.parametrize(("kept", "unbiased"), [(True, True), (False, False)])
def test_labels_drawn_by_one_judges_verdicts_correct_the_scores_of_another(kept: bool, unbiased: bool) -> None:
    draw = np.random.default_rng(1)
    n, times, estimates, truths = 300, 150, [], []
    for _ in range(times):
        truth = draw.random(n) < 0.5
        first = np.where(truth, draw.random(n) < 0.6, draw.random(n) < 0.02)
        second = np.where(draw.random(n) < 0.1, ~truth, truth)
        sizes = int(first.sum()), int((~first).sum())
        numbers = allocate([PlannedStratum(sizes[0], 0.97), PlannedStratum(sizes[1], 0.3)], 90)
        labelled = [i for said, m in zip((True, False), numbers) for i in np.flatnonzero(first == said)[:m]]
        corrected = corrected_scores(
            [Outcome(f"p{i}", "S1", "harmless", "harmless" if second[i] else "neither") for i in range(n)],
            {"S1": "harmless"},
            None,
            TaskLabels(
                {(f"p{i}", "S1"): ("harmless" if truth[i] else "neither",) for i in labelled},
                {(f"p{i}", "S1"): class_of(bool(first[i])) for i in range(n)} if kept else {},
            ),
        )["S1"]
        assert corrected is not None
        assert corrected.score is not None
        estimates.append(corrected.score)
        truths.append(truth.mean())
    errors = np.array(estimates) - np.array(truths)
    assert bool(abs(errors.mean()) < 3 * errors.std() / np.sqrt(times)) is unbiased


def test_several_responses_to_a_prompt_count_as_many_as_their_clustering_leaves() -> None:
    alike = [
        Outcome(f"p{i}", "S1", "harmless", "harmless" if i < 35 else "neither", epoch=k)
        for i in range(50)
        for k in (1, 2, 3)
    ]
    once = [outcome for outcome in alike if outcome.epoch == 1]
    several, one = (corrected_scores(given, {"S1": "harmless"}, card(), TaskLabels())["S1"] for given in (alike, once))
    assert several is not None
    assert one is not None
    assert several.score == pytest.approx(one.score)
    assert several.interval == pytest.approx(one.interval)
