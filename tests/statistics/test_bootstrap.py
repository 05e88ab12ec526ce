"""The bootstrap: what it draws, and when there is no interval."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from cst_bench.statistics.bootstrap import (
    RESAMPLES,
    cluster_counts,
    mean_of_clusters,
    percentile_interval,
    resampled_means,
    resampled_sums,
)


def test_every_resample_has_as_many_clusters_as_the_data() -> None:
    counts = cluster_counts(17, seed=0)
    assert counts.shape == (RESAMPLES, 17)
    assert set(counts.sum(1)) == {17}
    assert counts.mean(0) == pytest.approx(np.ones(17), abs=0.1)


def test_equal_clusters_drawn_together_spread_as_if_drawn_one_by_one() -> None:
    values = np.array([[1.0, 0.0]] * 30 + [[0.0, 2.0]] * 10)
    sums = resampled_sums(values, seed=0)
    plain = cluster_counts(40, seed=1) @ values
    assert sums.mean(0) == pytest.approx(values.sum(0), rel=0.02)
    assert sums.std(0) == pytest.approx(plain.std(0), rel=0.08)


def test_a_key_in_several_parts_is_drawn_for_all_of_them() -> None:
    values, draw = np.random.default_rng(0).random((1, 50)), np.random.default_rng(1)
    single = resampled_means(values, np.ones((1, 50)), draw, 2000)
    twice = resampled_means(np.repeat(values, 2, axis=0), np.ones((2, 50)), np.random.default_rng(1), 2000)
    assert twice == pytest.approx(single)


def test_a_part_is_never_empty() -> None:
    present = np.array([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    means = resampled_means(present * 0.5, present, np.random.default_rng(0), 200)
    assert means == pytest.approx(np.full(200, 0.5))


def test_a_single_cluster_has_no_interval() -> None:
    assert cluster_counts(1, seed=0).shape == (0, 1)
    assert percentile_interval(resampled_sums(np.ones((1,)), seed=0)) is None


@pytest.mark.parametrize(("undefined", "defined"), [(100, True), (101, False)])
def test_an_interval_needs_nine_tenths_of_the_resamples(undefined: int, defined: bool) -> None:
    values = np.concatenate([np.full(undefined, np.nan), np.linspace(0, 1, 1000 - undefined)])
    assert (percentile_interval(values) == pytest.approx((0.025, 0.975))) is defined


def test_a_mean_has_no_interval_where_clusters_do_not_show_how_it_varies() -> None:
    assert (mean_of_clusters([]).value, mean_of_clusters([]).interval) == (None, None)
    assert mean_of_clusters([1.0, 2.0, 3.0, 4.0]).value == 2.5
    for values in ([1.0, 2.0, 3.0, 4.0], [7.0] * 50):
        assert mean_of_clusters(values).interval is None


@pytest.mark.parametrize(("n", "least"), [(20, 0.9), (250, 0.93)])
def test_intervals_of_the_mean_of_skewed_values_cover_it(n: int, least: float) -> None:
    """Lengths whose logarithm has a standard deviation of 0.5: one in forty is three times as long as the median."""
    draw = np.random.default_rng(3)
    mean = float(np.exp(0.125))
    held = 0
    for _ in range(400):
        interval = mean_of_clusters(list(draw.lognormal(0, 0.5, n))).interval
        assert interval is not None
        held += interval[0] <= mean <= interval[1]
    assert held >= least * 400


def test_many_distinct_values_are_drawn_row_by_row_with_the_same_random_numbers() -> None:
    values = np.random.default_rng(0).random((2000, 1))
    tracemalloc.start()
    sums = resampled_sums(values, seed=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    whole = cluster_counts(2000, seed=0) @ np.sort(values, axis=0)
    assert sums == pytest.approx(whole, rel=1e-12)
    assert peak < 50e6 < 2 * RESAMPLES * 2000 * 8  # bytes; drawn at once, there would be as many again as floats
