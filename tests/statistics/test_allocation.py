"""Labels over strata: Neyman's allocation has the least variance, grows by one label at a time, and stays unbiased."""

from __future__ import annotations

from itertools import islice, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cst_bench.statistics.allocation import (
    PlannedStratum,
    allocate,
    allocation_order,
    expected_half_width,
    labels_needed,
)
from cst_bench.statistics.correction import Stratum, stratified

STRATA = st.lists(
    st.builds(PlannedStratum, n=st.integers(0, 80), share=st.floats(0.01, 0.99)), min_size=1, max_size=4
).filter(lambda strata: any(stratum.n for stratum in strata))
GOOD_AT_YES = [PlannedStratum(700, 0.98), PlannedStratum(250, 0.3), PlannedStratum(50, 0.5)]


def variance(strata: list[PlannedStratum], labels: tuple[int, ...]) -> float:
    """Return the variance of a stratified share, sizes known and drawn with replacement (Cochran 1977, 5.4)."""
    return sum((stratum.n * stratum.deviation) ** 2 / count for stratum, count in zip(strata, labels) if stratum.n)


@given(STRATA, st.integers(1, 8))
@settings(deadline=None)
def test_every_response_is_labelled_once_and_each_stratum_has_its_minimum_first(
    strata: list[PlannedStratum], least: int
) -> None:
    order = list(allocation_order(strata, least=least))
    assert [order.count(index) for index in range(len(strata))] == [stratum.n for stratum in strata]
    first = sum(min(least, stratum.n) for stratum in strata)
    assert all(order[:first].count(index) == min(least, stratum.n) for index, stratum in enumerate(strata))
    assert allocate(strata, first, least=least) == tuple(min(least, stratum.n) for stratum in strata)


@given(STRATA, st.integers(1, 200), st.integers(0, 50))
@settings(deadline=None)
def test_a_larger_plan_contains_the_smaller_one(strata: list[PlannedStratum], total: int, more: int) -> None:
    smaller, larger = allocate(strata, total), allocate(strata, total + more)
    assert all(few <= many for few, many in zip(smaller, larger, strict=True))
    assert sum(smaller) == min(total, sum(stratum.n for stratum in strata))


@given(
    st.lists(st.builds(PlannedStratum, n=st.integers(12, 60), share=st.floats(0.02, 0.98)), min_size=2, max_size=3),
    st.integers(3, 12),
)
@settings(deadline=None)
def test_no_other_allocation_has_a_smaller_variance(strata: list[PlannedStratum], total: int) -> None:
    ours = variance(strata, allocate(strata, total, least=1))
    for labels in product(range(1, total + 1), repeat=len(strata)):
        if sum(labels) == total:
            assert ours <= variance(strata, labels) * (1 + 1e-9)


def test_labels_are_in_proportion_to_size_times_deviation() -> None:
    labels = allocate(GOOD_AT_YES, 200)
    weights = [stratum.n * stratum.deviation for stratum in GOOD_AT_YES]
    assert labels == pytest.approx([200 * weight / sum(weights) for weight in weights], abs=1)


def simulated(labels: tuple[int, ...]) -> tuple[float, float, float]:
    """Return bias, mean squared error and mean interval width of the estimate in a population of `GOOD_AT_YES`."""
    draw = np.random.default_rng(5)
    populations = [np.arange(stratum.n) < round(stratum.n * stratum.share) for stratum in GOOD_AT_YES]
    truth = sum(int(population.sum()) for population in populations) / 1000
    errors, widths = [], []
    for _ in range(400):
        strata = []
        for population, count in zip(populations, labels, strict=True):
            shown = int(draw.choice(population, count, replace=False).sum())
            strata.append(Stratum(len(population), shown, count - shown))
        point, low, high = stratified(strata, draws=300)
        errors.append(point - truth)
        widths.append(high - low)
    return float(np.mean(errors)), float(np.mean(np.square(errors))), float(np.mean(widths))


def test_the_estimate_is_unbiased_and_no_worse_than_with_labels_in_proportion_to_size() -> None:
    bias, error, width = simulated(allocate(GOOD_AT_YES, 100))
    proportional_bias, proportional_error, proportional_width = simulated((70, 25, 5))
    assert abs(bias) < 3 * np.sqrt(error / 400)
    assert abs(proportional_bias) < 3 * np.sqrt(proportional_error / 400)
    assert error < 0.8 * proportional_error
    assert width < proportional_width


def test_more_labels_are_needed_for_a_narrower_interval_or_a_worse_judge() -> None:
    def needed(width: float, precision: float, miss: float, n: int = 500) -> int | None:
        labels = labels_needed(width, [PlannedStratum(7 * n // 10, precision), PlannedStratum(3 * n // 10, miss)])
        return None if labels is None else sum(labels)

    good, worse, narrower = needed(0.06, 0.98, 0.03), needed(0.06, 0.85, 0.2), needed(0.05, 0.98, 0.03)
    assert good is not None
    assert worse is not None
    assert narrower is not None
    assert good < worse
    assert good < narrower
    assert needed(0.01, 0.8, 0.2, 100) is None


def test_the_planned_labels_give_the_width_that_was_asked_for() -> None:
    labels = labels_needed(0.05, GOOD_AT_YES)
    assert labels is not None
    assert 0.045 < expected_half_width(GOOD_AT_YES, labels) <= 0.05
    assert labels == allocate(GOOD_AT_YES, sum(labels))
    assert list(islice(allocation_order(GOOD_AT_YES), 3)) == [0, 1, 2]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_intervals_cover_the_truth_with_labels_so_allocated_over_verdicts_and_unscored_responses(share: float) -> None:
    draw = np.random.default_rng(0)
    n, times, covered = 200, 600, 0
    for _ in range(times):
        truth = draw.random(n) < share
        verdict = np.where(truth, draw.random(n) < 0.8, draw.random(n) < 0.1)
        stratum = np.where(draw.random(n) < 0.03, 2, np.where(verdict, 0, 1))
        members = [truth[stratum == index] for index in range(3)]
        # what a card of another prevalence would say
        planned = [PlannedStratum(len(here), expected) for here, expected in zip(members, (0.9, 0.1, 0.5))]
        labelled = [here[:count] for here, count in zip(members, allocate(planned, 60))]
        strata = [
            Stratum(len(here), int(part.sum()), int((~part).sum()), guess=guess)
            for here, part, guess in zip(members, labelled, (1.0, 0.0, None))
            if len(here)
        ]
        _, low, high = stratified(strata)
        covered += low <= share <= high
    assert abs(covered / times - 0.95) < 3 * np.sqrt(0.95 * 0.05 / times)  # what the simulation can tell
