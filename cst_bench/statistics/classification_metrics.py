"""Agreement of verdicts with labels, each figure with a bootstrap interval clustered on the prompt.

Everything is computed from the confusion matrix, so that a resample is a sum of the matrices of its prompts: two
thousand of them take no longer than a few calls of scikit-learn, with which the tests compare every figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cst_bench.judging import NEITHER

Counts = NDArray[np.float64]
RESAMPLES = 2000


def confusion(labels: Sequence[str], verdicts: Sequence[str], behaviours: Sequence[str]) -> Counts:
    """Counts, shape (classes, classes): row = label, column = verdict; classes are the behaviours and `neither`."""
    at = {name: number for number, name in enumerate((*behaviours, NEITHER))}
    matrix = np.zeros((len(at), len(at)))
    for label, verdict in zip(labels, verdicts, strict=True):
        matrix[at[label], at[verdict]] += 1
    return matrix


def by_cluster(
    labels: Sequence[str], verdicts: Sequence[str], behaviours: Sequence[str], clusters: Sequence[str]
) -> Counts:
    """A confusion matrix for each cluster, shape (clusters, classes, classes)."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    at = {name: number for number, name in enumerate((*behaviours, NEITHER))}
    counts = np.zeros((len(numbers), len(at), len(at)))
    for label, verdict, cluster in zip(labels, verdicts, clusters, strict=True):
        counts[numbers[cluster], at[label], at[verdict]] += 1
    return counts


def figures(counts: Counts, behaviours: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """All figures of confusion matrices, shape (…, classes, classes) → (…); undefined is NaN.

    A figure of a behaviour is keyed `NAME/precision`, `NAME/recall`, `NAME/f1`. Macro F1 is over the behaviours that
    the labels have, balanced accuracy over these and `neither`; one that is never labelled and never said has no F1.
    """
    total = counts.sum((-2, -1))
    truth, said = counts.sum(-1), counts.sum(-2)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = right / said, right / truth
        f1 = 2 * right / (truth + said)
        found = {
            f"{name}/{figure}": values[..., number]
            for number, name in enumerate(behaviours)
            for figure, values in (("precision", precision), ("recall", recall), ("f1", f1))
        }
        labelled = truth[..., : len(behaviours)] > 0
        found["macro_f1"] = _mean_where(f1[..., : len(behaviours)], labelled)
        found["balanced_accuracy"] = _mean_where(recall, truth > 0)
        found["agreement"] = right.sum(-1) / total
        expected = (truth * said).sum(-1) / total**2
        found["kappa"] = (found["agreement"] - expected) / (1 - expected)
        spread = np.sqrt((total**2 - (truth**2).sum(-1)) * (total**2 - (said**2).sum(-1)))
        found["mcc"] = (right.sum(-1) * total - (truth * said).sum(-1)) / spread
    return found


def _mean_where(values: Counts, where: NDArray[np.bool_]) -> Counts:
    number = where.sum(-1)
    mean: Counts = np.where(
        number > 0, np.where(where, np.nan_to_num(values), 0.0).sum(-1) / np.maximum(number, 1), np.nan
    )
    return mean


def with_intervals(counts: Counts, behaviours: Sequence[str], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Every figure as value and 95 % percentile interval over resampled clusters; undefined is None.

    Args:
        counts: A confusion matrix for each cluster, as from `by_cluster`.
        behaviours: The judge's.
        seed: Of the resampling.
    """
    point = figures(counts.sum(0), behaviours)
    resampled = figures(resample(counts, seed), behaviours)
    found = {}
    for name, value in point.items():
        number = None if np.isnan(value) else float(value)
        found[name] = {"value": number, "interval": None if number is None else interval(resampled[name])}
    return found


def resample(counts: Counts, seed: int) -> Counts:
    """Sums over clusters drawn with replacement, shape (RESAMPLES, …).

    Clusters of the same counts are drawn together, as often as they would be one by one: there are few different ones.
    """
    different, times = np.unique(counts, axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(counts), times / len(counts), size=RESAMPLES)
    sums: Counts = np.tensordot(draws, different, axes=1)
    return sums


def interval(values: NDArray[np.float64]) -> list[float] | None:
    """2.5 and 97.5 % points of the resamples in which a figure is defined; None if it is in too few (below 90 %)."""
    defined = values[~np.isnan(values)]
    if len(defined) < 0.9 * len(values):
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return [float(low), float(high)]


def reliability(
    labels: Sequence[str], probabilities: Sequence[Mapping[str, float]], behaviours: Sequence[str], bins: int = 10
) -> dict[str, Any]:
    """How far a judge's probability of its verdict is the share of times that it is right.

    Brier score over the behaviours and `neither` (Brier 1950: 0 is perfect, 2 the worst), expected calibration error
    over equal bins of the top probability (Guo et al. 2017), and the curve itself.
    """
    classes = (*behaviours, NEITHER)
    truth = np.array([[float(label == name) for name in classes] for label in labels])
    said = np.array([[given.get(name, 0.0) for name in classes] for given in probabilities])
    top = said.max(1)
    right = truth[np.arange(len(truth)), said.argmax(1)]
    number = np.minimum((top * bins).astype(int), bins - 1)
    curve = [
        {"probability": float(top[number == at].mean()), "right": float(right[number == at].mean()), "n": int(of.sum())}
        for at in range(bins)
        if (of := number == at).any()
    ]
    error = sum(point["n"] * abs(point["probability"] - point["right"]) for point in curve) / len(top)
    return {"n": len(top), "brier": float(((said - truth) ** 2).sum(1).mean()), "ece": error, "curve": curve}
