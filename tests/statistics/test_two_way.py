"""Means over seeds: coverage over seeds and prompts, at the edges and with seeds of two kinds; what is never given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cst_bench.statistics.bootstrap import Floats
from cst_bench.statistics.intervals import Interval, wilson
from cst_bench.statistics.paired import shares_difference
from cst_bench.statistics.two_way import MIN_SEEDS, two_way_difference, two_way_interval

Run = list[dict[str, float]]


def keyed(scores: Floats) -> Run:
    return [{f"p{at}": float(score) for at, score in enumerate(scores)}]


def interval_of(scores: Floats) -> Interval | None:
    """The interval of runs, shape (seeds, prompts), with Wilson's as their own."""
    return two_way_interval([keyed(run) for run in scores], [wilson(int(run.sum()), len(run)) for run in scores])


def drawn(draw: np.random.Generator, kind: str, seeds: int, prompts: int) -> Floats:
    """Draw whether each seed's model complies with each prompt."""
    hardness = draw.normal(0, 1, prompts)
    by_kind: dict[str, Floats] = {
        "all but none": np.full((seeds, prompts), 0.005),
        "all but all": np.full((seeds, prompts), 0.999),
        "prompts decide": np.tile(draw.random(prompts) < 0.7, (seeds, 1)).astype(float),
        "seeds differ": stats.logistic.cdf(1 + hardness + draw.normal(0, 1, (seeds, 1))),
        "seeds of two kinds": np.where(draw.random((seeds, 1)) < 0.5, 0.9, 0.2) * np.ones(prompts),
    }
    complies: Floats = (draw.random((seeds, prompts)) < by_kind[kind]).astype(float)
    return complies


def expected_share(kind: str) -> float:
    known = {"all but none": 0.005, "all but all": 0.999, "prompts decide": 0.7, "seeds of two kinds": 0.55}
    if kind in known:
        return known[kind]
    # hardness and seeds are one normal deviation of variance 2
    return float(stats.norm(1, np.sqrt(2)).expect(stats.logistic.cdf))


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize(
    "kind", ["all but none", "all but all", "prompts decide", "seeds differ", "seeds of two kinds"]
)
def test_intervals_cover_over_seeds_and_prompts(kind: str, seeds: int) -> None:
    draw = np.random.default_rng(seeds)
    truth = expected_share(kind)
    covered = []
    for _ in range(200):
        low, high = interval_of(drawn(draw, kind, seeds, 100)) or (1.0, 0.0)
        covered.append(low <= truth <= high)
    # five seeds of two kinds are all of one kind in 1 of 16 reports: nothing in them says that there is another
    assert np.mean(covered) >= (0.9 if (kind, seeds) == ("seeds of two kinds", 5) else 0.92)


@settings(max_examples=30, deadline=None)
@given(st.integers(MIN_SEEDS, 7), st.integers(1, 30), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_no_interval_is_narrower_than_one_runs_own(
    seeds: int, prompts: int, first: float, rest: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    chance = np.array([first, *[rest] * (seeds - 1)])[:, None]
    scores = (draw.random((seeds, prompts)) < chance).astype(float)
    own = [wilson(int(run.sum()), prompts) or (0.0, 1.0) for run in scores]
    low, high = interval_of(scores) or (1.0, 0.0)
    assert 0 <= low <= scores.mean() + 1e-12
    assert scores.mean() - 1e-12 <= high <= 1
    assert high - low >= min(high - low for low, high in own) - 1e-12


def test_seeds_that_agree_leave_the_uncertainty_of_the_prompts() -> None:
    for share in (0.0, 0.25, 1.0):
        scores = np.tile(np.arange(60) < 60 * share, (5, 1)).astype(float)
        low, high = wilson(round(60 * share), 60) or (1.0, 0.0)
        ends = interval_of(scores)
        assert ends is not None
        assert ends[0] <= low + 1e-12
        assert ends[1] >= high - 1e-12


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_few_seeds_have_no_interval_and_no_test(seeds: int) -> None:
    scores = drawn(np.random.default_rng(0), "seeds differ", seeds, 50)
    assert interval_of(scores) is None
    difference = two_way_difference([keyed(run) for run in scores], [keyed(np.zeros(50))], [None] * seeds)
    assert difference.difference == pytest.approx(scores.mean())
    assert (difference.interval, difference.p) == (None, None)


def test_a_difference_of_seeds_that_vary_is_students() -> None:
    """Check that with many prompts the seeds are the sample, as in a t test of their scores."""
    draw = np.random.default_rng(2)
    chances = np.array([0.3, 0.5, 0.9, 0.4, 0.8])
    ours = (draw.random((5, 20000)) < chances[:, None]).astype(float)
    base = np.full(20000, 0.5)
    difference = two_way_difference([keyed(run) for run in ours], [keyed(base)], [(-1e-6, 1e-6)])
    test = stats.ttest_1samp(ours.mean(1), 0.5)
    assert difference.p == pytest.approx(test.pvalue, rel=0.05)
    assert difference.interval == pytest.approx(tuple(test.confidence_interval() - np.float64(0.5)), abs=0.05)


@pytest.mark.slow
def test_equal_methods_are_seldom_different() -> None:
    """Check the false alarms between two methods of five seeds, and between one and a single run."""
    draw = np.random.default_rng(3)
    alarms: dict[str, list[bool]] = {"methods": [], "base": []}
    for _ in range(200):
        hardness = draw.normal(1, 1, 100)
        chance = stats.logistic.cdf(hardness + draw.normal(0, 0.7, (10, 1)))
        scores = (draw.random((10, 100)) < chance).astype(float)
        first, second = ([keyed(run) for run in half] for half in (scores[:5], scores[5:]))
        own = [shares_difference(a[0], b[0]).interval for a, b in zip(first, second)]
        p = two_way_difference(first, second, own).p
        assert p is not None
        alarms["methods"].append(p < 0.05)
        mean = stats.logistic.cdf(hardness[:, None] + stats.norm.ppf(np.linspace(0.005, 0.995, 100)) * 0.7).mean(1)
        base = [keyed((draw.random(100) < mean).astype(float))]
        p = two_way_difference(first, base, [shares_difference(a[0], base[0][0]).interval for a in first]).p
        assert p is not None
        alarms["base"].append(p < 0.05)
    assert max(np.mean(rates) for rates in alarms.values()) <= 0.07


def test_a_run_without_an_interval_leaves_the_mean_without() -> None:
    scores = drawn(np.random.default_rng(0), "seeds differ", 5, 50)
    assert two_way_interval([keyed(run) for run in scores], [(0.1, 0.9)] * 4 + [None]) is None


def test_prompts_of_different_tasks_are_drawn_apart_and_missing_verdicts_are_left_out() -> None:
    draw = np.random.default_rng(4)
    runs = [
        [{f"a/{at}": float(draw.random() < 0.8) for at in range(40) if draw.random() < 0.95},
         {f"b/{at}": float(draw.random() < 0.3) for at in range(80)}]
        for _ in range(5)
    ]  # fmt: skip
    scores = [np.mean([np.mean(list(part.values())) for part in run]) for run in runs]
    low, high = two_way_interval(runs, [(score, score) for score in scores]) or (1.0, 0.0)
    assert low < np.mean(scores) < high
    assert high - low < 0.25
