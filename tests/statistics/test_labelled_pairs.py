"""Differences corrected for judge error hold the truth, by simulation; bounds hold it whatever the judge does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cst_bench.statistics.labelled_pairs import Pair, judge_error_bounds, labelled_difference, largest_rate

Judge = tuple[float, float]
"""Sensitivity and specificity."""


def simulate(
    draw: np.random.Generator, shares: tuple[float, float], judges: tuple[Judge, Judge], n: int = 200, labels: int = 60
) -> tuple[dict[str, Pair], dict[str, Pair]]:
    """Return verdicts on two runs' responses, and labels of a random part."""
    common = draw.random(n)
    truths = [common < shares[0], np.where(draw.random(n) < 0.7, common, draw.random(n)) < shares[1]]
    verdicts = [
        np.where(truth, draw.random(n) < sensitivity, draw.random(n) > specificity)
        for truth, (sensitivity, specificity) in zip(truths, judges, strict=True)
    ]
    labelled = draw.choice(n, labels, replace=False)
    return (
        {str(at): (bool(verdicts[0][at]), bool(verdicts[1][at])) for at in range(n)},
        {str(at): (bool(truths[0][at]), bool(truths[1][at])) for at in labelled},
    )


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.9), (0.9, 0.7), (0.98, 0.1)])
def test_judge_error_that_differs_between_runs_is_corrected(shares: tuple[float, float]) -> None:
    draw = np.random.default_rng(3)
    held = rejected = 0
    for _ in range(80):
        difference = labelled_difference(*simulate(draw, shares, ((0.95, 0.9), (0.75, 0.95))))
        assert difference is not None
        assert difference.interval is not None
        assert difference.p is not None
        held += difference.interval[0] <= shares[0] - shares[1] <= difference.interval[1]
        rejected += difference.p < 0.05
    assert held >= 0.88 * 80
    if shares[0] == shares[1]:
        assert rejected <= 0.12 * 80  # by the verdicts alone, it is nearly always


def test_with_all_labelled_the_estimate_is_that_of_the_labels() -> None:
    verdicts, labels = simulate(np.random.default_rng(0), (0.8, 0.6), ((0.7, 0.7), (0.9, 0.5)), n=120, labels=120)
    difference = labelled_difference(verdicts, labels)
    assert difference is not None
    assert difference.difference == pytest.approx(
        np.mean([int(ours is True) - int(theirs is True) for ours, theirs in labels.values()])
    )


def test_few_labels_correct_nothing() -> None:
    verdicts, labels = simulate(np.random.default_rng(0), (0.8, 0.6), ((0.9, 0.9), (0.9, 0.9)), labels=19)
    assert labelled_difference(verdicts, labels) is None


def test_unsure_labels_leave_both_ends_open() -> None:
    verdicts, labels = simulate(np.random.default_rng(0), (0.8, 0.5), ((0.95, 0.95), (0.95, 0.95)), labels=80)
    sure = labelled_difference(verdicts, labels)
    unsure = labelled_difference(
        verdicts, {key: (None, pair[1]) if int(key) < 60 else pair for key, pair in labels.items()}
    )
    assert sure is not None
    assert unsure is not None
    assert sure.interval is not None
    assert unsure.interval is not None
    assert sure.p is not None
    assert unsure.p is not None
    assert unsure.interval[0] < sure.interval[0]
    assert unsure.interval[1] > sure.interval[1]
    assert unsure.p > sure.p


def test_labels_that_were_drawn_more_often_from_one_class_are_weighted_back() -> None:
    draw = np.random.default_rng(5)
    estimates = []
    for _ in range(40):
        verdicts, truths = simulate(draw, (0.8, 0.5), ((0.9, 0.9), (0.9, 0.9)), n=300, labels=300)
        another = {key: draw.random() < (0.9 if pair[0] else 0.1) for key, pair in truths.items()}  # another judge's
        labels = {key: pair for key, pair in truths.items() if draw.random() < (0.1 if another[key] else 0.8)}
        difference = labelled_difference(verdicts, labels, another)
        assert difference is not None
        assert difference.difference is not None
        estimates.append(difference.difference)
    assert np.mean(estimates) == pytest.approx(0.3, abs=0.03)


shares = st.floats(0, 1)


@given(
    shares,
    shares,
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
    st.integers(1, 300),
    st.integers(1, 300),
    st.data(),
)
def test_bounds_hold_the_truth_for_every_judge_that_the_calibration_allows(
    ours: float, theirs: float, position: list[float], positives: int, negatives: int, data: st.DataObject
) -> None:
    missed, alarms = data.draw(st.integers(0, positives)), data.draw(st.integers(0, negatives))
    worst = missed / positives, alarms / negatives  # below the upper ends of the intervals
    judged = [
        share * (1 - worst[0] * position[at]) + (1 - share) * worst[1] * position[at + 2]
        for at, share in enumerate((ours, theirs))
    ]
    rates = {"missed": largest_rate(positives, missed), "alarms": largest_rate(negatives, alarms)}
    low, high = judge_error_bounds(judged[0], judged[1], **rates)
    assert low - 1e-9 <= ours - theirs <= high + 1e-9
    assert -1 <= low <= judged[0] - judged[1] + 1e-9
    assert high <= 1


def test_a_perfect_judge_that_was_calibrated_on_many_labels_has_narrow_bounds() -> None:
    low, high = judge_error_bounds(0.9, 0.5, missed=largest_rate(1000, 0), alarms=largest_rate(1000, 0))
    assert low == pytest.approx(0.4, abs=0.01)
    assert high == pytest.approx(0.4, abs=0.01)
