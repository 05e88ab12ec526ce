"""Coverage of 95 % intervals of compliance scores when an imperfect judge gives the verdicts.

    python benchmarks/coverage.py [--replications N] [--json FILE]

Monte Carlo over prevalences, judge qualities and sample sizes. The corrected intervals (Rogan-Gladen with the
calibration's own uncertainty; PPI++) are compared with common ones: Wilson's interval of the uncorrected verdicts, and
PPI++'s normal interval.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cst_bench.statistics.correction import ppi, rogan_gladen

Array = NDArray[np.float64]
Ends = tuple[Array, Array]
Z = 1.959963984540054
PREVALENCES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
QUALITIES = ((0.99, 0.99), (0.95, 0.9), (0.8, 0.85), (0.7, 0.6))
RESPONSES = (50, 200, 500)
CALIBRATIONS = (100, 400, 1000)
LABELLED = (20, 50, 100, 200)
LOW, HIGH = 0.93, 0.97
DRAWS = 1000  # of the posterior, instead of 4000: coverage is the same, and the benchmark takes minutes
METHODS = {
    "rogan-gladen": "Rogan-Gladen with the calibration's uncertainty (ours)",
    "wilson": "Wilson, uncorrected verdicts",
    "ppi++": "PPI++, posterior of the strata (ours)",
    "ppi++ normal": "PPI++, normal interval",
    "labels alone": "Wilson, labelled part alone",
}


@dataclass(frozen=True)
class Cell:
    """Coverage of a method in one setting."""

    method: str
    share: float
    """True share of responses that show the behaviour."""
    sensitivity: float
    specificity: float
    n: int
    """Responses with a verdict."""
    labels: int
    """Labels of the calibration, or of these responses."""
    coverage: float | None
    width: float | None
    """Mean width."""
    undefined: float
    """Share of replications without an interval; they are in neither coverage nor width."""


@dataclass(frozen=True)
class Summary:
    """Coverage of a method over all settings."""

    settings: int
    within: float
    """Share of settings with nominal coverage."""
    below: float
    above: float
    least: float
    mean: float
    width: float


def main() -> None:
    """Run both simulations and print the share of settings with nominal coverage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="output file for the coverage in every setting")
    options = parser.parse_args()
    draw = np.random.default_rng(options.seed)
    cells = [*simulate_transferred(draw, options.replications), *simulate_labelled(draw, options.replications)]
    summaries = {name: summarise([cell for cell in cells if cell.method == name]) for name in METHODS}
    show(summaries)
    if options.json is not None:
        results = {
            "replications": options.replications,
            "seed": options.seed,
            "summary": {name: asdict(summary) for name, summary in summaries.items()},
            "cells": [asdict(cell) for cell in cells],
        }
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def simulate_transferred(draw: np.random.Generator, replications: int) -> list[Cell]:
    """Compare Rogan-Gladen with the uncorrected interval: n verdicts, a calibration of m labels, half of each kind."""
    cells = []
    for share, (sensitivity, specificity), n, m in product(PREVALENCES, QUALITIES, RESPONSES, CALIBRATIONS):
        verdicts = draw.binomial(n, share * sensitivity + (1 - share) * (1 - specificity), replications).astype(float)
        positive = draw.binomial(m, 0.5, replications)
        hit, wrong = draw.binomial(positive, sensitivity), draw.binomial(m - positive, 1 - specificity)
        tp, fn, fp, tn = (part.astype(float) for part in (hit, positive - hit, wrong, m - positive - wrong))

        measure = partial(measure_coverage, share, sensitivity, specificity, n, m)
        cells += [
            measure("rogan-gladen", partial(rogan_gladen, verdicts, n, tp=tp, fn=fn, fp=fp, tn=tn, draws=DRAWS)),
            measure("wilson", partial(wilson, verdicts, np.full_like(verdicts, n))),
        ]
    return cells


def simulate_labelled(draw: np.random.Generator, replications: int) -> list[Cell]:
    """Compare PPI++ with its normal interval and with the labels alone: m of the n responses are labelled."""
    cells = []
    for share, (sensitivity, specificity), n, m in product(PREVALENCES, QUALITIES, RESPONSES[1:], LABELLED):
        shows = draw.random((replications, n)) < share
        verdicts = np.where(
            shows, draw.random((replications, n)) < sensitivity, draw.random((replications, n)) >= specificity
        )
        truth, judged = shows[:, :m], verdicts[:, :m]
        total = verdicts.sum(1).astype(float)
        yes = ((truth & judged).sum(1).astype(float), (~truth & judged).sum(1).astype(float))
        no = ((truth & ~judged).sum(1).astype(float), (~truth & ~judged).sum(1).astype(float))

        measure = partial(measure_coverage, share, sensitivity, specificity, n, m)
        cells += [
            measure("ppi++", partial(ppi, total, n, yes=yes, no=no, draws=DRAWS)),
            measure("ppi++ normal", partial(normal, total, n, yes, no)),
            measure("labels alone", partial(wilson, yes[0] + no[0], np.full_like(total, m))),
        ]
    return cells


def measure_coverage(
    share: float,
    sensitivity: float,
    specificity: float,
    n: int,
    labels: int,
    method: str,
    compute: Callable[[], tuple[Array, ...]],
) -> Cell:
    """Measure coverage and mean width of the intervals that `compute` returns last: lower and upper ends."""
    low, high = compute()[-2:]
    defined = ~np.isnan(low)
    covered = (low <= share + 1e-12) & (share - 1e-12 <= high)
    return Cell(
        method=method,
        share=share,
        sensitivity=sensitivity,
        specificity=specificity,
        n=n,
        labels=labels,
        coverage=float(covered[defined].mean()) if defined.any() else None,
        width=float((high - low)[defined].mean()) if defined.any() else None,
        undefined=float(1 - defined.mean()),
    )


def wilson(k: Array, n: Array) -> Ends:
    """Compute Wilson's score intervals (Wilson 1927), vectorised."""
    centre = (k / n + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(k / n * (1 - k / n) / n + Z**2 / (4 * n**2))
    return centre - half, centre + half


def normal(verdicts: Array, n: int, yes: Ends, no: Ends) -> Ends:
    """Compute the normal interval of PPI++ with power tuning, as in the paper."""
    m = yes[0] + yes[1] + no[0] + no[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        among_yes = np.nan_to_num(yes[0] / (yes[0] + yes[1]))
        among_no = np.nan_to_num(no[0] / (no[0] + no[1]))
    weight = verdicts / n
    point = weight * among_yes + (1 - weight) * among_no
    residual = ((yes[0] + yes[1]) * among_yes * (1 - among_yes) + (no[0] + no[1]) * among_no * (1 - among_no)) / m**2
    half = Z * np.sqrt(residual + (among_yes - among_no) ** 2 * weight * (1 - weight) / n)
    return point - half, point + half


def summarise(cells: Sequence[Cell]) -> Summary:
    """Summarise the coverage of a method over settings."""
    coverage = np.array([cell.coverage for cell in cells if cell.coverage is not None])
    return Summary(
        settings=len(cells),
        within=float(((coverage >= LOW) & (coverage <= HIGH)).mean()),
        below=float((coverage < LOW).mean()),
        above=float((coverage > HIGH).mean()),
        least=float(coverage.min()),
        mean=float(coverage.mean()),
        width=float(np.mean([cell.width for cell in cells if cell.width is not None])),
    )


def show(summaries: Mapping[str, Summary]) -> None:
    """Print the table."""
    table = Table(title="Coverage of nominal 95 % intervals")
    for column in ("interval", "settings", "93–97 %", "below", "above", "least", "mean", "mean width"):
        table.add_column(column, justify="left" if column == "interval" else "right")
    for name, title in METHODS.items():
        summary = summaries[name]
        shares = (f"{100 * share:.0f} %" for share in (summary.within, summary.below, summary.above))
        table.add_row(
            title,
            str(summary.settings),
            *shares,
            *(f"{value:.3f}" for value in (summary.least, summary.mean, summary.width)),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
