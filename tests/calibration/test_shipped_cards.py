"""The cards in `judges/cards/` are what their judges and labels give now."""

from __future__ import annotations

import pytest

from cst_bench.calibration.shipped import judges, make, without_varying
from cst_bench.content import content_root
from cst_bench.judging import load_judge
from cst_bench.judging.card import SHIPPED, VARYING, find_card, read_card

FOLDER = content_root() / SHIPPED


def test_every_rule_judge_with_labels_has_a_card_and_no_other() -> None:
    assert [path.stem for path in sorted(FOLDER.glob("*.json"))] == judges()


@pytest.mark.parametrize("name", judges())
def test_a_card_is_what_judge_and_labels_give(name: str) -> None:
    again = make(name).model_dump(exclude=set(VARYING))
    assert without_varying(FOLDER / f"{name}.json") == again, "python -m cst_bench.calibration.shipped"
    assert find_card(load_judge(name).identity) is not None


def test_what_a_run_keeps_of_a_card_is_the_same_whenever_it_was_made() -> None:
    card = read_card(FOLDER / "refusal_rules.json")
    later = card.model_copy(
        update={"seconds": card.seconds + 1, "per_second": None, "made": "2030-01-01T00:00:00+00:00"}
    )
    assert later.summary() == card.summary()
    assert card.model_copy(update={"n": card.n + 1}).summary().sha256 != card.summary().sha256
