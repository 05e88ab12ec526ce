"""A task's scores corrected for judge error: labels go before the card, and a card is used where it is warranted."""

from __future__ import annotations

import pytest

from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.judging.card import why_uncalibrated
from cst_bench.record import CalibrationSummary, ConfusionCounts
from cst_bench.runs.corrected_scores import corrected_scores

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


def test_labels_go_before_the_card_and_without_either_there_is_nothing() -> None:
    drawn = outcomes(100, 70)
    labels = {(f"p{i}", "S1"): "harmless" if i < 30 else "neither" for i in range(0, 100, 4)}
    corrected = corrected_scores(drawn, ASKED, card(), labels)
    assert corrected["S1"] is not None
    assert (corrected["S1"].method, corrected["S1"].labelled) == ("ppi++", 25)
    assert (corrected["S1"].score or 1.0) < 0.5  # the labels say that the judge is too kind
    assert corrected["S0"] is not None
    assert (corrected["S0"].method, corrected["S0"].labelled) == ("rogan-gladen", 0)
    assert corrected["joint"] is None
    assert corrected_scores(drawn, ASKED, None, {}, ("no card",)) == {"S1": None, "S0": None, "joint": None}
    assert corrected_scores([], ASKED, card(), {}) == {"S1": None, "S0": None, "joint": None}


def test_joint_compliance_is_corrected_where_prompts_are_labelled_under_every_configuration() -> None:
    labels = {(f"p{i}", name): asked for name, asked in ASKED.items() for i in range(0, 100, 2)}
    corrected = corrected_scores(outcomes(100, 70), ASKED, None, labels)
    assert corrected["joint"] is not None
    assert corrected["joint"].score == 1.0
    assert corrected["joint"].labelled == 50


def undefined(calibration: CalibrationSummary, complied: int = 35, n: int = 50) -> str:
    """Return why nothing is corrected by a card."""
    reasons = why_uncalibrated(calibration, 0.9)
    corrected = corrected_scores(outcomes(n, complied), ASKED, calibration, {}, reasons)["S1"]
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
    corrected = corrected_scores(outcomes(50, complied), ASKED, card(), {})["S1"]
    assert corrected is not None
    assert (corrected.score is not None, corrected.undefined) == (True, None)


def test_a_card_of_several_models_gives_a_wider_interval_and_every_card_says_what_is_assumed() -> None:
    models = {
        name: ConfusionCounts(tp=tp, fn=20 - tp, fp=fp, tn=20 - fp)
        for name, tp, fp in (("a", 20, 1), ("b", 19, 3), ("c", 17, 5), ("d", 18, 6), ("e", 16, 5))
    }
    width, assumes = {}, {}
    for name, known in (("none", {}), ("one", {"a": COUNTS}), ("five", models)):
        corrected = corrected_scores(outcomes(100, 60), ASKED, card(models=known), {})["S1"]
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
