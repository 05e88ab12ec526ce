"""Paired differences against other packages' results, and the coverage of their intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from cst_bench.record import Outcomes
from cst_bench.reporting.differences import capability_difference
from cst_bench.reporting.stored_run import read_run
from cst_bench.statistics.intervals import newcombe
from cst_bench.statistics.paired import bootstrap_difference, holm, shares_difference
from tests.reporting.stored_runs import make_run


def keyed(values: np.ndarray) -> dict[str, float]:
    return {f"p{at}": float(value) for at, value in enumerate(values)}


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_shares_are_compared_by_the_exact_mcnemar_test(pairs: list[tuple[bool, bool]]) -> None:
    ours, theirs = (np.array(side, dtype=float) for side in zip(*pairs))
    difference = shares_difference(keyed(ours), keyed(theirs))
    table = [[np.sum((ours == a) & (theirs == b)) for b in (1, 0)] for a in (1, 0)]
    assert difference.difference == pytest.approx(ours.mean() - theirs.mean())
    assert difference.difference is not None
    assert difference.p == pytest.approx(1.0 if table[0][1] + table[1][0] == 0 else mcnemar(table, exact=True).pvalue)
    assert difference.interval is not None
    assert -1 <= difference.interval[0] <= difference.difference + 1e-12
    assert difference.difference - 1e-12 <= difference.interval[1] <= 1
    back = shares_difference(keyed(theirs), keyed(ours))
    assert back.interval == pytest.approx((-difference.interval[1], -difference.interval[0]))


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
    difference = capability_difference(runs[0], runs[1], "mmlu")
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
