"""Intervals against other packages and their own definitions; Wilson's is tested where scores are computed."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cst_bench.statistics.intervals import (
    Interval,
    clustered_share,
    effective_size,
    mean_interval,
    newcombe,
    normal_interval,
    unseen_share,
    wilson,
)

SHARES = st.floats(0, 1)


@pytest.mark.parametrize(("n", "p1", "p2", "both"), [(40, 0.9, 0.7, 0.65), (100, 0.95, 0.9, 0.88), (30, 0.5, 0.5, 0.4)])
def test_newcombes_interval_covers(n: int, p1: float, p2: float, both: float) -> None:
    """Check the coverage over 2,000 tables drawn from known shares."""
    draw = np.random.default_rng(0)
    tables = draw.multinomial(n, [both, p1 - both, p2 - both, 1 - p1 - p2 + both], 2000)
    intervals = [newcombe(int(both), int(gained), int(lost), n) for both, gained, lost, _ in tables]
    assert 0.93 <= np.mean([low <= p1 - p2 <= high for low, high in intervals]) <= 0.99


def test_a_share_of_none_has_the_exact_interval() -> None:
    exact = [stats.binomtest(0, n).proportion_ci(0.95, method="exact").high for n in (1, 20, 80)]
    assert unseen_share(np.array([1.0, 20.0, 80.0])) == pytest.approx(exact)


@given(SHARES, SHARES)
def test_a_normal_interval_stays_in_0_to_1(score: float, stderr: float) -> None:
    interval = normal_interval(score, stderr)
    assert interval is not None
    assert 0 <= interval[0] <= score <= interval[1] <= 1
    assert normal_interval(0.5, 0.1) == pytest.approx((0.304, 0.696))
    assert normal_interval(None, stderr) is normal_interval(score, None) is None


@given(st.lists(st.tuples(st.integers(0, 30), st.just(30)), min_size=1, max_size=5))
def test_the_interval_of_a_mean_is_movers(counts: list[tuple[int, int]]) -> None:
    scores = [k / n for k, n in counts]
    intervals = [wilson(k, n) for k, n in counts]
    mean, interval = mean_interval(scores, intervals)
    assert mean == pytest.approx(statistics.fmean(scores))
    known = [ends for ends in intervals if ends is not None]
    below = sum((score - low) ** 2 for score, (low, _) in zip(scores, known, strict=True)) ** 0.5
    above = sum((high - score) ** 2 for score, (_, high) in zip(scores, known, strict=True)) ** 0.5
    assert interval == pytest.approx((mean - below / len(scores), mean + above / len(scores)))


@pytest.mark.parametrize(
    ("scores", "intervals", "mean"),
    [([0.5, None], [(0.4, 0.6), None], None), ([0.5, 0.7], [(0.4, 0.6), None], 0.6)],
)
def test_a_mean_is_undefined_with_its_parts(
    scores: list[float | None], intervals: list[Interval | None], mean: float | None
) -> None:
    value, interval = mean_interval(scores, intervals)
    assert value == (None if mean is None else pytest.approx(mean))
    assert interval is None


@given(st.lists(st.booleans(), min_size=2))
def test_one_response_a_cluster_counts_as_itself(values: list[bool]) -> None:
    assert effective_size([float(value) for value in values], len(values)) == pytest.approx(len(values))


@given(st.lists(st.integers(0, 5), min_size=1))
def test_a_clustered_interval_holds_the_share_and_is_no_narrower_than_for_independent_responses(
    counts: list[int],
) -> None:
    shares = [count / 5 for count in counts]
    interval, independent = clustered_share(shares, 5 * len(counts)), wilson(sum(counts), 5 * len(counts))
    assert interval is not None
    assert independent is not None
    mean = sum(shares) / len(shares)
    assert 0 <= interval[0] <= mean + 1e-9
    assert mean - 1e-9 <= interval[1] <= 1
    assert interval[1] - interval[0] >= independent[1] - independent[0] - 1e-9


@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
def test_clustered_intervals_cover_the_share(spread: float) -> None:
    draw = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        shares = draw.binomial(4, draw.beta(0.8 * spread, 0.2 * spread, 40)) / 4
        interval = clustered_share(list(shares), 160)
        assert interval is not None
        held += interval[0] <= 0.8 <= interval[1]
    assert held >= 0.91 * 300
