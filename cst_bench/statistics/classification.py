"""Metrics of verdicts against labels, from confusion matrices, with intervals that allow for repeated prompts.

Everything is computed from confusion matrices, so that a resample is a sum of the matrices of its clusters: two
thousand of them take no longer than a few calls of scikit-learn, with which the tests compare every metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cst_bench.statistics.bootstrap import percentile_interval, resampled_sums
from cst_bench.statistics.intervals import UNDEFINED, Estimate, Interval, jeffreys, wilson
from cst_bench.statistics.table_posterior import drawn_interval, effective_fractions, posterior_draws

Counts = NDArray[np.float64]
OVERALL = ("macro_f1", "mcc", "kappa", "balanced_accuracy", "agreement")
"""Metrics over all classes."""
PER_BEHAVIOUR = ("precision", "recall", "f1")


@dataclass(frozen=True)
class ReliabilityBin:
    """Verdicts of about the same probability."""

    probability: float
    """Mean probability of the verdict."""
    right: float
    """Share that the label confirms."""
    n: int


@dataclass(frozen=True)
class Reliability:
    """How well a judge's probability of its verdict matches the share of times that it is right."""

    n: int
    brier: float
    """Brier score over all classes (Brier 1950): 0 is perfect, 2 the worst."""
    ece: float
    """Expected calibration error over equal bins of the top probability (Guo et al. 2017)."""
    curve: tuple[ReliabilityBin, ...]


THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995)
"""Probabilities at which selective accuracy is reported."""


@dataclass(frozen=True)
class SelectivePoint:
    """Verdicts with at least some probability."""

    threshold: float
    """The least probability."""
    n: int
    """Number of verdicts."""
    right: Estimate
    """Share that the label confirms, with Wilson's interval."""


def selective_accuracy(right: Sequence[bool], probabilities: Sequence[float]) -> tuple[SelectivePoint, ...]:
    """Return how often verdicts are right from a probability on (El-Yaniv and Wiener 2010, JMLR 11).

    Args:
        right: Whether the label confirms each verdict.
        probabilities: The judge's probability of each verdict.
    """
    points = []
    for threshold in THRESHOLDS:
        kept = [value for value, probability in zip(right, probabilities, strict=True) if probability >= threshold]
        share = Estimate(sum(kept) / len(kept), wilson(sum(kept), len(kept))) if kept else UNDEFINED
        points.append(SelectivePoint(threshold, len(kept), share))
    return tuple(points)


def confusion(labels: Sequence[str], verdicts: Sequence[str], classes: Sequence[str]) -> Counts:
    """Return the confusion matrix, shape (classes, classes): row = label, column = verdict."""
    matrix: Counts = confusion_by_cluster(labels, verdicts, classes, [""] * len(labels)).sum(0)
    return matrix


def confusion_by_cluster(
    labels: Sequence[str], verdicts: Sequence[str], classes: Sequence[str], clusters: Sequence[str]
) -> Counts:
    """Return a confusion matrix for each cluster, shape (clusters, classes, classes)."""
    cluster_index = {name: at for at, name in enumerate(dict.fromkeys(clusters))}
    index = {name: at for at, name in enumerate(classes)}
    counts = np.zeros((len(cluster_index), len(index), len(index)))
    for label, verdict, cluster in zip(labels, verdicts, clusters, strict=True):
        counts[cluster_index[cluster], index[label], index[verdict]] += 1
    return counts


def metrics(counts: Counts, behaviours: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Return all metrics of confusion matrices, shape (…, classes, classes) → (…); undefined is NaN.

    A metric of a behaviour is keyed `NAME/precision`, `NAME/recall`, `NAME/f1`. Macro F1 is over the behaviours that
    the labels have, balanced accuracy over all classes that they have; a behaviour that is never labelled and never
    predicted has no F1. Kappa is Cohen's (Cohen 1960), mcc is Gorodkin's correlation R_K (Gorodkin 2004).

    Args:
        counts: Confusion matrices.
        behaviours: The first classes; `neither`, if there, comes after them and counts in no F1.
    """
    total = counts.sum((-2, -1))
    labelled, predicted = counts.sum(-1), counts.sum(-2)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = right / predicted, right / labelled
        f1 = 2 * right / (labelled + predicted)
        values = {
            f"{name}/{metric}": numbers[..., at]
            for at, name in enumerate(behaviours)
            for metric, numbers in zip(PER_BEHAVIOUR, (precision, recall, f1), strict=True)
        }
        present = labelled[..., : len(behaviours)] > 0
        values["macro_f1"] = _mean_where(f1[..., : len(behaviours)], present)
        values["balanced_accuracy"] = _mean_where(recall, labelled > 0)
        values["agreement"] = right.sum(-1) / total
        expected = (labelled * predicted).sum(-1) / total**2
        values["kappa"] = (values["agreement"] - expected) / (1 - expected)
        spread = np.sqrt((total**2 - (labelled**2).sum(-1)) * (total**2 - (predicted**2).sum(-1)))
        values["mcc"] = (right.sum(-1) * total - (labelled * predicted).sum(-1)) / spread
    return values


def _mean_where(values: Counts, where: NDArray[np.bool_]) -> Counts:
    number = where.sum(-1)
    mean: Counts = np.where(
        number > 0, np.where(where, np.nan_to_num(values), 0.0).sum(-1) / np.maximum(number, 1), np.nan
    )
    return mean


def metric_estimates(counts: Counts, behaviours: Sequence[str], *, seed: int = 0) -> dict[str, Estimate]:
    """Return every metric with its interval; there is no interval for a single cluster of several responses.

    Precision, recall and agreement are shares, with Jeffreys' interval. F1 follows from the share J of right ones among
    the responses that have the label or the verdict, F1 = 2J/(1 + J), and so does its interval (as in Goutte and
    Gaussier 2005). The other metrics have posterior draws of the confusion matrix. Where a prompt has several
    responses, all of them use the effective sample size (`table_posterior`).

    Args:
        counts: A confusion matrix for each cluster, as from `confusion_by_cluster`.
        behaviours: The first classes.
        seed: Random seed.
    """
    table = counts.sum(0)
    statistic = partial(metrics, behaviours=behaviours)
    point, fractions = statistic(table), effective_fractions(counts, statistic, seed)
    shares = _shares(table, behaviours)
    drawn: dict[float, Mapping[str, NDArray[np.float64]]] = {}
    estimates = {}
    for name, value in point.items():
        interval = None
        if fractions is not None and not np.isnan(value):
            fraction = fractions[name]
            if name in shares:
                interval = jeffreys(*(fraction * count for count in shares[name]))
            elif name.endswith("/f1"):
                interval = _f1_interval(*(fraction * count for count in shares[f"{name}/jaccard"]))
            else:
                if fraction not in drawn:
                    drawn[fraction] = statistic(posterior_draws(table, fraction, seed))
                interval = drawn_interval(float(value), drawn[fraction][name])
        estimates[name] = UNDEFINED if np.isnan(value) else Estimate(float(value), interval)
    return estimates


def _shares(table: Counts, behaviours: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return numerator and denominator of the metrics that are shares, and of the share that F1 follows from."""
    right, labelled, predicted = np.diagonal(table), table.sum(-1), table.sum(-2)
    shares = {"agreement": (float(right.sum()), float(table.sum()))}
    for at, name in enumerate(behaviours):
        hits = float(right[at])
        shares[f"{name}/precision"] = hits, float(predicted[at])
        shares[f"{name}/recall"] = hits, float(labelled[at])
        shares[f"{name}/f1/jaccard"] = hits, float(labelled[at] + predicted[at]) - hits
    return shares


def _f1_interval(hits: float, either: float) -> Interval | None:
    ends = jeffreys(hits, either)
    return None if ends is None else (2 * ends[0] / (1 + ends[0]), 2 * ends[1] / (1 + ends[1]))


def macro_f1_change(
    counts: Counts, behaviours: Sequence[str], *, seed: int = 0
) -> tuple[float | None, float | None, Estimate]:
    """Return macro F1 before, after, and the change with its paired bootstrap interval; None where undefined.

    Args:
        counts: Confusion matrices before and after for each cluster, shape (clusters, 2, classes, classes).
        behaviours: The first classes.
        seed: Bootstrap seed.
    """
    point = metrics(counts.sum(0), behaviours)["macro_f1"]
    if np.isnan(point).any():
        return None, None, UNDEFINED
    resampled = metrics(resampled_sums(counts, seed), behaviours)["macro_f1"]
    change = Estimate(float(point[1] - point[0]), percentile_interval(resampled[:, 1] - resampled[:, 0]))
    return float(point[0]), float(point[1]), change


def reliability(
    labels: Sequence[str], probabilities: Sequence[Mapping[str, float]], classes: Sequence[str], bins: int = 10
) -> Reliability:
    """Compare a judge's probabilities with the labels: Brier score, calibration error and curve.

    Args:
        labels: The labels.
        probabilities: Class → probability, for each response; absent classes have 0.
        classes: All classes.
        bins: Number of equal bins of the top probability.
    """
    truth = np.array([[float(label == name) for name in classes] for label in labels])
    predicted = np.array([[by_class.get(name, 0.0) for name in classes] for by_class in probabilities])
    top = predicted.max(1)
    right = truth[np.arange(len(truth)), predicted.argmax(1)]
    number = np.minimum((top * bins).astype(int), bins - 1)
    curve = tuple(
        ReliabilityBin(float(top[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for at in range(bins)
        if (inside := number == at).any()
    )
    error = sum(point.n * abs(point.probability - point.right) for point in curve) / len(top)
    return Reliability(len(top), float(((predicted - truth) ** 2).sum(1).mean()), error, curve)
