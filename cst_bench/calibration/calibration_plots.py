"""Plots of a calibration card: the confusion matrix, and the reliability of the judge's probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cst_bench.judging.card import CalibrationCard
from cst_bench.plotting import INK, save, short, styled
from cst_bench.statistics.classification import Reliability


def draw(card: CalibrationCard, folder: Path) -> list[Path]:
    """Write `confusion` and, for a judge with probabilities, `reliability`, each as SVG and PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    with styled():
        paths = save(_confusion(card), folder / "confusion")
        if card.reliability is not None:
            paths += save(_reliability(card.reliability), folder / "reliability")
    return paths


def _confusion(card: CalibrationCard) -> Figure:
    behaviours, matrix = card.confusion.behaviours, np.array(card.confusion.matrix)
    shown = [at for at in range(len(behaviours)) if matrix[at].sum() + matrix[:, at].sum() > 0] or [0]
    matrix, names = matrix[np.ix_(shown, shown)], [short(behaviours[at], 90) for at in shown]
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(1.6 + 1.3 * len(names), 1.2 + 1.0 * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*matrix.shape):
        ink = "white" if shares[row, column] > 0.6 else "black"
        text = f"{matrix[row, column]}\n{100 * shares[row, column]:.0f} %"
        axes.text(column, row, text, ha="center", va="center", color=ink)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("verdict (shares are of a label's row)")
    axes.set_ylabel("label")
    axes.set_title(f"{short(card.judge.name, 130)} on {short(card.labels.name, 130)}", fontsize=9)
    return figure


def _reliability(reliability: Reliability) -> Figure:
    """Plot the reliability curve, and below it the number of verdicts at each point."""
    curve = reliability.curve
    probabilities = [point.probability for point in curve]
    start = min(np.floor(10 * min(probabilities)) / 10, 0.9)
    figure = Figure(figsize=(4.2, 4.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([start, 1], [start, 1], color="0.5", linestyle="--", linewidth=1, label="perfectly calibrated")
    above.plot(probabilities, [point.right for point in curve], "o-", color=INK, linewidth=1, label="this judge")
    above.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.18), ncols=2, fontsize=8)
    above.set_ylim(-0.03, 1.03)
    above.set_ylabel("share of verdicts\nthat the label confirms")
    bars = below.bar(probabilities, [point.n for point in curve], width=0.5 * (1 - start) / 10, color=INK)
    below.bar_label(bars, fontsize=7)
    below.margins(y=0.25)
    below.set_ylabel("verdicts")
    below.set_xlim(start - 0.03, 1.03)
    below.set_xlabel("probability that the judge gives its verdict")
    figure.suptitle(f"Brier {reliability.brier:.3f}, ECE {reliability.ece:.3f}", fontsize=9)
    return figure
