"""Agreement between judges: examples of the literature, undefined values, intervals clustered on prompts."""

from __future__ import annotations

import random

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

from cst_bench.calibration.agreement_table import agreement_markdown
from cst_bench.statistics.agreement import agreement
from cst_bench.statistics.intervals import UNDEFINED

FLEISS = (
    (0, 0, 0, 0, 14),
    (0, 2, 6, 4, 2),
    (0, 0, 3, 5, 6),
    (0, 3, 9, 2, 0),
    (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0),
    (3, 2, 6, 3, 0),
    (2, 5, 3, 2, 2),
    (6, 5, 2, 1, 0),
    (0, 2, 2, 3, 7),
)
"""Ten subjects, fourteen raters, five categories: the worked example of the Wikipedia article, kappa 0.210."""
KRIPPENDORFF = (
    "* * * * * 3 4 1 2 1 1 3 3 * 3",
    "1 * 2 1 3 3 4 3 * * * * * * *",
    "* * 2 1 3 4 4 * 2 1 1 3 3 * 4",
)
"""Three coders, fifteen units: the worked example of the Wikipedia article, nominal alpha 0.691."""


def apart(rows: int) -> list[str]:
    return [f"prompt {index}" for index in range(rows)]


def test_cohens_kappa_of_the_textbook_grant_proposals() -> None:
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    result = agreement(["one", "other"], [first, second], apart(50))
    (pair,) = result.pairs
    assert pair.raters == ("one", "other")
    assert pair.n == 50
    assert pair.raw.value == pytest.approx(0.7)
    assert pair.kappa.value == pytest.approx(0.4)
    assert result.raw.value == pytest.approx(0.7)
    low, high = pair.kappa.interval or (0.0, 0.0)
    # the large-sample standard error of this table is 0.127
    assert low == pytest.approx(0.4 - 1.96 * 0.127, abs=0.05)
    assert high == pytest.approx(0.4 + 1.96 * 0.127, abs=0.05)


def test_fleiss_kappa_of_the_fourteen_raters() -> None:
    raters = zip(*[[str(k) for k, times in enumerate(row) for _ in range(times)] for row in FLEISS])
    columns = [list(column) for column in raters]
    result = agreement([f"rater {i}" for i in range(14)], columns, apart(10))
    assert result.fleiss_kappa.value == pytest.approx(0.210, abs=5e-4)
    assert result.n_complete == 10
    assert result.raw.value == pytest.approx(0.378, abs=5e-4)
    assert len(result.pairs) == 91


def test_krippendorffs_alpha_takes_unscored_as_missing() -> None:
    columns = [[None if value == "*" else value for value in line.split()] for line in KRIPPENDORFF]
    result = agreement(["A", "B", "C"], columns, apart(15))
    assert result.krippendorff_alpha.value == pytest.approx(0.691, abs=5e-4)
    assert result.scored == {"A": 9, "B": 7, "C": 11}
    assert result.n_complete == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from(["harmless", "uncensored", "neither", None])] * 3), min_size=2))
def test_values_are_those_of_the_libraries(rows: list[tuple[str | None, ...]]) -> None:
    columns = [list(column) for column in zip(*rows)]
    result = agreement(["a", "b", "c"], columns, apart(len(rows)))
    both = [(a, b) for a, b, _ in rows if a is not None and b is not None]
    if len({value for pair in both for value in pair}) > 1:
        expected = cohen_kappa_score([a for a, _ in both], [b for _, b in both])
        assert result.pairs[0].kappa.value == pytest.approx(expected)
    else:
        assert result.pairs[0].kappa.value is None
    complete = [row for row in rows if None not in row]
    if len({value for row in complete for value in row}) > 1:
        expected = fleiss_kappa(aggregate_raters(complete)[0])
        assert result.fleiss_kappa.value == pytest.approx(expected)
    else:
        assert result.fleiss_kappa.value is None
    names = ["harmless", "neither", "uncensored"]
    pairable = [row for row in rows if sum(value is not None for value in row) > 1]
    if len({value for row in pairable for value in row} - {None}) > 1:
        counts = [[row.count(name) for name in names] for row in rows]
        expected = krippendorff.alpha(value_counts=counts, level_of_measurement="nominal")
        assert result.krippendorff_alpha.value == pytest.approx(expected)
    else:
        assert result.krippendorff_alpha.value is None


def test_what_is_undefined_is_none() -> None:
    result = agreement(["a", "b"], [["yes"] * 4, ["yes"] * 4], apart(4))
    assert result.raw.value == 1
    assert result.pairs[0].kappa == UNDEFINED
    assert result.fleiss_kappa == result.krippendorff_alpha == UNDEFINED
    silent = agreement(["a", "b"], [["yes", None], [None, "no"]], apart(2))
    assert silent.pairs[0].n == 0
    assert silent.raw == UNDEFINED
    nothing = agreement(["a", "b"], [[None], [None]], apart(1))
    assert nothing.krippendorff_alpha.value is None


def test_rows_of_one_prompt_are_no_more_evidence_than_one() -> None:
    generator = random.Random(3)
    first = [generator.choice(["yes", "no"]) for _ in range(60)]
    second = [value if generator.random() < 0.8 else "no" for value in first]
    single = agreement(["a", "b"], [first, second], apart(60)).pairs[0].kappa
    tenfold = agreement(["a", "b"], [first * 10, second * 10], apart(60) * 10).pairs[0].kappa
    assert tenfold.value == pytest.approx(single.value)
    assert single.interval is not None
    assert tenfold.interval == pytest.approx(single.interval, abs=0.03)
    alone = agreement(["a", "b"], [first * 10, second * 10], apart(600)).pairs[0].kappa.interval
    assert alone is not None
    assert alone[1] - alone[0] < 0.5 * (single.interval[1] - single.interval[0])


def test_few_raters_who_agree_are_not_sure_to_agree_always() -> None:
    columns = [["yes", "no", "yes", "no"]] * 3
    result = agreement(["a", "b", "c"], columns, apart(4))
    for estimate in (result.raw, result.fleiss_kappa, result.krippendorff_alpha, result.pairs[0].raw):
        assert estimate.value == 1
        assert estimate.interval is not None
        assert estimate.interval[0] < 0.65  # of four independent rows: Jeffreys' lower end is 0.55
        assert estimate.interval[1] == 1
    assert result.pairs[0].kappa.interval is not None
    assert result.pairs[0].kappa.interval[0] < 0.65


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.15])
def test_intervals_beyond_chance_cover(share: float) -> None:
    """Three raters who see the truth with probability 0.9; alpha of many rows is the truth."""
    draw = np.random.default_rng(1)

    def rate(n: int) -> list[list[str]]:
        truth = draw.random(n) < share
        seen = np.where(draw.random((3, n)) < 0.9, truth, ~truth)
        return [["yes" if value else "no" for value in column] for column in seen]

    population = agreement(["a", "b", "c"], rate(100_000), apart(100_000))
    for name in ("krippendorff_alpha", "fleiss_kappa"):
        covered = 0
        for _ in range(100):
            low, high = getattr(agreement(["a", "b", "c"], rate(40), apart(40)), name).interval
            covered += low <= getattr(population, name).value <= high
        assert covered / 100 >= 0.88, name


def test_one_prompt_has_no_interval() -> None:
    result = agreement(["a", "b"], [["yes", "no", "no"], ["yes", "no", "yes"]], ["p"] * 3)
    assert result.raw.value == pytest.approx(2 / 3)
    assert result.raw.interval is None


def test_the_same_call_gives_the_same_values() -> None:
    columns = [["yes", "no", "no", "yes"], ["yes", "no", "yes", "yes"]]
    assert agreement(["a", "b"], columns, apart(4)) == agreement(["a", "b"], columns, apart(4))


def test_one_rater_and_ragged_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="two raters"):
        agreement(["a"], [["yes"]], apart(1))
    with pytest.raises(ValueError, match="for every row"):
        agreement(["a", "b"], [["yes"], ["yes", "no"]], apart(2))


def test_tables_hold_every_pair_and_names_can_not_break_them() -> None:
    columns = [["yes", "no"] * 9, ["yes", "no", "no"] * 6, ["no", "no"] * 9]
    result = agreement(["a|b", "<i>", "[red]c"], columns, apart(18))
    text = agreement_markdown(result)
    lines = text.splitlines()
    assert len(lines) == 2 + 3 + 2
    assert "a\\|b and &lt;i&gt;" in lines[2]
    kappa = result.pairs[0].kappa.value
    assert f"Cohen's kappa {kappa:.2f}" in lines[2]
