"""A task's scores corrected for judge error: labels go before the card, and neither is invented."""

from __future__ import annotations

from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.record import ConfusionCounts
from cst_bench.runs.corrected_scores import corrected_scores

COUNTS = ConfusionCounts(tp=90, fn=10, fp=20, tn=80)
ASKED = {"S1": "harmless", "S0": "uncensored"}


def outcomes(n: int, complied: int) -> list[Outcome]:
    return [
        Outcome(f"p{i}", name, asked, asked if i < complied else "neither")
        for name, asked in ASKED.items()
        for i in range(n)
    ]


def test_labels_go_before_the_card_and_without_either_there_is_nothing() -> None:
    drawn = outcomes(100, 70)
    card = {"harmless": COUNTS, "uncensored": COUNTS}
    labels = {(f"p{i}", "S1"): "harmless" if i < 30 else "neither" for i in range(0, 100, 4)}
    corrected = corrected_scores(drawn, ASKED, card, labels)
    assert corrected["S1"] is not None
    assert (corrected["S1"].method, corrected["S1"].labelled) == ("ppi++", 25)
    assert (corrected["S1"].score or 1.0) < 0.5  # the labels say that the judge is too kind
    assert corrected["S0"] is not None
    assert (corrected["S0"].method, corrected["S0"].labelled) == ("rogan-gladen", 0)
    assert corrected["joint"] is None
    assert corrected_scores(drawn, ASKED, None, {}) == {"S1": None, "S0": None, "joint": None}
    assert corrected_scores([], ASKED, card, {}) == {"S1": None, "S0": None, "joint": None}


def test_joint_compliance_is_corrected_where_prompts_are_labelled_under_every_configuration() -> None:
    labels = {(f"p{i}", name): asked for name, asked in ASKED.items() for i in range(0, 100, 2)}
    corrected = corrected_scores(outcomes(100, 70), ASKED, None, labels)
    assert corrected["joint"] is not None
    assert corrected["joint"].score == 1.0
    assert corrected["joint"].labelled == 50


def test_a_useless_card_says_so() -> None:
    useless = ConfusionCounts(tp=5, fn=5, fp=5, tn=5)
    corrected = corrected_scores(outcomes(50, 20), ASKED, {"harmless": useless, "uncensored": useless}, {})["S1"]
    assert corrected is not None
    assert (corrected.score, corrected.interval) == (None, None)
    assert "no better" in str(corrected.undefined) or "not clearly better" in str(corrected.undefined)
