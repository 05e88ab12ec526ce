"""The rate of another model: pooled counts where models are alike, a wide guess where they differ or are few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from cst_bench.statistics.between_models import rate_of_another_model

COUNTS = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), min_size=2, max_size=6)


def ends(counts: list[tuple[int, int]]) -> tuple[float, float]:
    low, high = np.quantile(rate_of_another_model(counts, np.random.default_rng(0), 8000), [0.025, 0.975])
    return float(low), float(high)


def test_many_models_alike_give_the_posterior_of_the_pooled_counts() -> None:
    low, high = ends([(90, 10)] * 60)
    assert (low, high) == pytest.approx(beta.interval(0.95, 5400.5, 600.5), abs=0.015)


def test_models_that_differ_and_few_models_leave_more_open() -> None:
    alike, differing = ends([(45, 5)] * 6), ends([(50, 0), (48, 2), (30, 20), (49, 1), (40, 10), (47, 3)])
    assert differing[0] < alike[0] - 0.2
    assert ends([(45, 5)] * 2)[0] < alike[0]


@given(COUNTS)
@settings(deadline=None, max_examples=20)
def test_the_interval_holds_the_median_model_and_is_a_share(counts: list[tuple[int, int]]) -> None:
    low, high = ends(counts)
    assert 0 <= low < high <= 1
    with_data = [(hit + 0.5) / (hit + miss + 1) for hit, miss in counts]
    assert low <= np.median(with_data) <= high or len(counts) < 4


def test_models_of_one_behaviour_alone_say_nothing_of_the_other() -> None:
    assert ends([(45, 5), (40, 8)]) == pytest.approx(ends([(45, 5), (40, 8), (0, 0)]), abs=0.01)
