"""Paired differences against other packages' results, and the coverage of their intervals."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from cst_bench.record import Outcomes
from cst_bench.reporting.differences import difference_of
from cst_bench.reporting.score_cells import Column
from cst_bench.reporting.stored_run import read_run
from cst_bench.statistics.intervals import newcombe
from cst_bench.statistics.paired import (
    LEVEL,
    SIGN_CHANGES,
    bootstrap_difference,
    holm,
    mcnemar_mid_p,
    shares_difference,
    sign_change_p,
)
from tests.reporting.stored_runs import make_run


def keyed(values: np.ndarray) -> dict[str, float]:
    return {f"p{at}": float(value) for at, value in enumerate(values)}


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_shares_are_compared_by_the_mid_p_mcnemar_test(pairs: list[tuple[bool, bool]]) -> None:
    """Check that mid-p is the exact p without half of the probability of what was observed, on either side."""
    ours, theirs = (np.array(side, dtype=float) for side in zip(*pairs))
    difference = shares_difference(keyed(ours), keyed(theirs))
    table = [[np.sum((ours == a) & (theirs == b)) for b in (1, 0)] for a in (1, 0)]
    gained, lost = int(table[0][1]), int(table[1][0])
    exact = 1.0 if gained + lost == 0 else mcnemar(table, exact=True).pvalue
    half = 0.0 if gained == lost else stats.binom.pmf(gained, gained + lost, 0.5)
    assert difference.p == pytest.approx(exact - half)
    assert difference.difference == pytest.approx(ours.mean() - theirs.mean())
    assert difference.difference is not None
    assert difference.interval is not None
    assert -1 <= difference.interval[0] <= difference.difference + 1e-12
    assert difference.difference - 1e-12 <= difference.interval[1] <= 1
    back = shares_difference(keyed(theirs), keyed(ours))
    assert back.interval == pytest.approx((-difference.interval[1], -difference.interval[0]))


@pytest.mark.parametrize(("gained", "lost"), [(5, 0), (7, 1), (9, 2)])
def test_the_test_of_52_pairs_agrees_with_the_interval(gained: int, lost: int) -> None:
    low, _ = newcombe(20, gained, lost, 52)
    assert low > 0
    assert mcnemar_mid_p(gained, lost) < LEVEL < stats.binomtest(gained, gained + lost).pvalue


@pytest.mark.parametrize("n", [20, 52, 104, 200])
@pytest.mark.parametrize("discordant", [0.05, 0.1, 0.2, 0.4, 0.8])
def test_the_mid_p_test_keeps_its_level(n: int, discordant: float) -> None:
    """Check the probability of a false alarm, summed over all that equal models can come to."""
    wrong = 0.0
    for differing in range(n + 1):
        gained = np.arange(differing + 1)
        rejected = [mcnemar_mid_p(int(k), differing - int(k)) < LEVEL for k in gained]
        wrong += stats.binom.pmf(differing, n, discordant) * stats.binom.pmf(gained, differing, 0.5)[rejected].sum()
    assert wrong <= 0.0525  # at most 0.0514 among these, where the exact test has 0.014 to 0.045


def test_permutation_p_values_are_small_enough_for_many_tests() -> None:
    """Check that where no sign change of 9,999 is as extreme, Hoeffding's bound is the p value: small, but valid."""
    apart = bootstrap_difference([(keyed(np.linspace(0.5, 1, 100)), keyed(np.linspace(0, 0.5, 100)))])
    assert apart.p is not None
    assert stats.norm.sf(10) < apart.p < 1e-6
    one_sided = bootstrap_difference([(keyed(np.linspace(0.5, 1, 8)), keyed(np.zeros(8)))])
    assert one_sided.p == pytest.approx(2 / 2**8, rel=0.5)  # eight signs have no smaller one


def test_only_what_is_in_both_counts() -> None:
    difference = shares_difference({"a": 1.0, "b": 1.0, "c": 0.0}, {"b": 0.0, "c": 0.0, "d": 1.0})
    assert (difference.n, difference.difference, difference.gained, difference.lost) == (2, 0.5, ("b",), ())
    nothing = shares_difference({"a": 1.0}, {"b": 1.0})
    assert (nothing.n, nothing.difference, nothing.interval, nothing.p) == (0, None, None, None)
    assert bootstrap_difference([({}, {})]).difference is None


def test_the_bootstrap_is_that_of_scipy() -> None:
    draw = np.random.default_rng(3)
    ours, theirs = draw.random(80), draw.random(80) * 0.8
    difference = bootstrap_difference([(keyed(ours), keyed(theirs))])
    reference = stats.bootstrap((ours - theirs,), np.mean, method="percentile", n_resamples=9999, random_state=1)
    assert difference.difference == pytest.approx(np.mean(ours - theirs))
    assert difference.interval == pytest.approx(tuple(reference.confidence_interval), abs=0.01)

    test = stats.permutation_test(
        (ours - theirs,), np.mean, permutation_type="samples", n_resamples=9999, random_state=1, vectorized=True
    )
    assert difference.p == pytest.approx(test.pvalue, abs=0.015)


def test_a_mean_over_tasks_draws_a_prompt_for_all_its_configurations() -> None:
    """Check that two configurations that always err together tell no more than one; two of different prompts do."""
    draw = np.random.default_rng(5)
    first, second = (draw.integers(0, 2, 60).astype(float) for _ in range(2))
    zero = np.zeros(60)
    alone = bootstrap_difference([(keyed(first), keyed(zero))])
    twice = bootstrap_difference([(keyed(first), keyed(zero)), (keyed(first), keyed(zero))])
    apart = bootstrap_difference(
        [({f"a/{key}": v for key, v in keyed(first).items()}, {f"a/{key}": v for key, v in keyed(zero).items()}),
         ({f"b/{key}": v for key, v in keyed(second).items()}, {f"b/{key}": v for key, v in keyed(zero).items()})]
    )  # fmt: skip
    widths = [
        difference.interval[1] - difference.interval[0] for difference in (alone, twice, apart) if difference.interval
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.05)
    assert widths[2] == pytest.approx(widths[0] / np.sqrt(2), rel=0.1)
    assert apart.difference == pytest.approx((first.mean() + second.mean()) / 2)


def test_nothing_that_differs_is_no_difference() -> None:
    same = keyed(np.array([1.0, 0.0, 1.0]))
    for difference in (bootstrap_difference([(same, same)]), shares_difference(same, same)):
        assert (difference.difference, difference.p) == (0.0, 1.0)
        assert difference.interval is not None
        assert difference.interval[0] < 0 < difference.interval[1]  # three prompts prove nothing


@pytest.mark.parametrize(("n", "gained", "lost"), [(84, 1, 0), (84, 0, 0), (60, 60, 0), (84, 2, 1), (200, 30, 10)])
def test_a_capability_of_right_and_wrong_has_no_interval_narrower_than_newcombes(
    tmp_path: Path, n: int, gained: int, lost: int
) -> None:
    ours = np.array([1.0] * gained + [0.0] * (n - gained))
    theirs = np.array([0.0] * gained + [1.0] * lost + [0.0] * (n - gained - lost))
    runs = []
    for name, scores in (("ours", ours), ("theirs", theirs)):
        folder = make_run(tmp_path / name, name, {}, tasks={}, capabilities={"mmlu": 0.5}, documents=n)
        outcomes = Outcomes.read(folder)
        documents = outcomes.capabilities["mmlu"].model_copy(update={"scores": keyed(scores)})
        outcomes.model_copy(update={"capabilities": {"mmlu": documents}}).write(folder)
        runs.append(read_run(folder))
    difference = difference_of(runs[0], runs[1], Column("mmlu", "MMLU", "capability", "mmlu", percent=True))
    assert difference is not None
    low, high = newcombe(0, gained, lost, n)
    assert difference.interval is not None
    assert difference.interval[0] <= low < high <= difference.interval[1]


def test_where_nothing_differs_the_interval_is_that_of_a_share_of_none() -> None:
    same = keyed(np.arange(80) % 3 / 2)
    difference = bootstrap_difference([(same, same)])
    most = stats.binomtest(0, 80).proportion_ci(0.95, method="exact").high
    assert difference.interval == pytest.approx((-most, most))


def test_the_same_runs_give_the_same_difference() -> None:
    draw = np.random.default_rng(7)
    ours, theirs = keyed(draw.random(50)), keyed(draw.random(50))
    assert bootstrap_difference([(ours, theirs)]) == bootstrap_difference([(dict(reversed(ours.items())), theirs)])


@settings(max_examples=20)  # statsmodels collects garbage in every call
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_that_of_statsmodels(ps: list[float]) -> None:
    assert holm(ps) == pytest.approx(list(multipletests(ps, method="holm")[1]) if ps else [])


@pytest.mark.parametrize("n", [8, 20])
def test_intervals_of_few_pairs_cover_the_difference(n: int) -> None:
    draw = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        ours, theirs = (draw.beta(2, 1, n) for _ in range(2))
        pairs = [{str(at): float(score) for at, score in enumerate(side)} for side in (ours, theirs)]
        interval = bootstrap_difference([(pairs[0], pairs[1])]).interval
        assert interval is not None
        held += interval[0] <= 0 <= interval[1]
    assert held >= 0.925 * 400


def test_differences_of_lengths_have_no_bound() -> None:
    draw = np.random.default_rng(4)
    ours, theirs = keyed(draw.normal(150, 30, 60)), keyed(draw.normal(100, 30, 60))
    bounded, free = bootstrap_difference([(ours, theirs)]), bootstrap_difference([(ours, theirs)], largest=None)
    assert bounded.interval is not None
    assert bounded.interval[1] <= 1
    assert free.interval is not None
    assert free.interval[0] > 20
    assert free.p == bounded.p
    assert bootstrap_difference([(ours, ours)], largest=None).interval is None


def test_many_distinct_differences_change_their_signs_row_by_row_with_the_same_random_numbers() -> None:
    weights = np.random.default_rng(0).normal(0.05, 1, 1000) / 1000
    tracemalloc.start()
    p = sign_change_p(weights, np.random.default_rng(1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    signs = 2 * np.random.default_rng(1).binomial(1, 0.5, (SIGN_CHANGES, 1000)) - 1
    extreme = int(np.sum(np.abs(signs @ np.sort(np.abs(weights))) >= abs(weights.sum()) - 1e-12))
    assert p == pytest.approx((1 + extreme) / (1 + SIGN_CHANGES))
    assert peak < 90e6 < 3 * SIGN_CHANGES * 1000 * 8  # bytes
