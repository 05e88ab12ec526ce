"""How often 95 % intervals of compliance scores hold the truth, when a judge that errs gives the verdicts.

    python benchmarks/coverage.py [--replications N] [--json FILE]

Monte Carlo over prevalences, judge qualities and sample sizes. Beside the corrected intervals (Rogan-Gladen with the
calibration's own uncertainty; PPI++) the ones that people use: Wilson's on the verdicts as they are, and PPI++'s normal
interval.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

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
DRAWS = 1000  # of the posterior, in place of 4000: it changes no coverage, and the benchmark takes minutes


def main() -> None:
    """Run both simulations and print the share of cells with nominal coverage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures of every cell here")
    options = parser.parse_args()
    draw = np.random.default_rng(options.seed)
    cells = [*transferred(draw, options.replications), *labelled(draw, options.replications)]
    summary = {name: summarise([cell for cell in cells if cell["method"] == name]) for name in METHODS}
    show(summary)
    if options.json is not None:
        found = {"replications": options.replications, "seed": options.seed, "summary": summary, "cells": cells}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


METHODS = {
    "rogan-gladen": "Rogan-Gladen, calibration's uncertainty in it (ours)",
    "wilson": "Wilson on the judge's verdicts, as most reports have it",
    "ppi++": "PPI++, strata's posterior (ours)",
    "ppi++ normal": "PPI++, normal interval",
    "labels alone": "Wilson on the labelled part alone",
}


def transferred(draw: np.random.Generator, replications: int) -> list[dict[str, Any]]:
    """Rogan-Gladen against the naive interval: n verdicts, a calibration of m labels, half of each kind."""
    cells = []
    for share, (sensitivity, specificity), n, m in product(PREVALENCES, QUALITIES, RESPONSES, CALIBRATIONS):
        said = draw.binomial(n, share * sensitivity + (1 - share) * (1 - specificity), replications).astype(float)
        positive = draw.binomial(m, 0.5, replications)
        hit, wrong = draw.binomial(positive, sensitivity), draw.binomial(m - positive, 1 - specificity)
        counts: dict[str, Any] = {"tp": hit, "fn": positive - hit, "fp": wrong, "tn": m - positive - wrong}

        where = {"share": share, "sensitivity": sensitivity, "specificity": specificity, "n": n, "labels": m}
        cells += [
            cell("rogan-gladen", where, partial(rogan_gladen, said, n, **counts, draws=DRAWS), share),
            cell("wilson", where, partial(wilson, said, np.full_like(said, n)), share),
        ]
    return cells


def labelled(draw: np.random.Generator, replications: int) -> list[dict[str, Any]]:
    """PPI++ against its normal interval and the labels alone: m of the n responses are labelled."""
    cells = []
    for share, (sensitivity, specificity), n, m in product(PREVALENCES, QUALITIES, RESPONSES[1:], LABELLED):
        shows = draw.random((replications, n)) < share
        said = np.where(
            shows, draw.random((replications, n)) < sensitivity, draw.random((replications, n)) >= specificity
        )
        truth, word = shows[:, :m], said[:, :m]
        total = said.sum(1).astype(float)
        yes = ((truth & word).sum(1).astype(float), (~truth & word).sum(1).astype(float))
        no = ((truth & ~word).sum(1).astype(float), (~truth & ~word).sum(1).astype(float))

        where = {"share": share, "sensitivity": sensitivity, "specificity": specificity, "n": n, "labels": m}
        cells += [
            cell("ppi++", where, partial(ppi, total, n, yes=yes, no=no, draws=DRAWS), share),
            cell("ppi++ normal", where, partial(normal, total, n, yes, no), share),
            cell("labels alone", where, partial(wilson, yes[0] + no[0], np.full_like(total, m)), share),
        ]
    return cells


def cell(method: str, where: dict[str, Any], ends: Callable[[], tuple[Array, ...]], truth: float) -> dict[str, Any]:
    """Coverage and mean width in one setting; where an interval is undefined it is left out, and counted."""
    low, high = ends()[-2:]
    defined = ~np.isnan(low)
    held = (low <= truth + 1e-12) & (truth - 1e-12 <= high)
    return {
        "method": method,
        **where,
        "coverage": float(held[defined].mean()) if defined.any() else None,
        "width": float((high - low)[defined].mean()) if defined.any() else None,
        "undefined": float(1 - defined.mean()),
    }


def wilson(k: Array, n: Array) -> Ends:
    """Wilson's score interval."""
    centre = (k / n + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * np.sqrt(k / n * (1 - k / n) / n + Z**2 / (4 * n**2))
    return centre - half, centre + half


def normal(said: Array, n: int, yes: Ends, no: Ends) -> Ends:
    """PPI++ with power tuning and its normal interval, as in the paper."""
    m = yes[0] + yes[1] + no[0] + no[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        among_yes = np.nan_to_num(yes[0] / (yes[0] + yes[1]))
        among_no = np.nan_to_num(no[0] / (no[0] + no[1]))
    weight = said / n
    point = weight * among_yes + (1 - weight) * among_no
    residual = ((yes[0] + yes[1]) * among_yes * (1 - among_yes) + (no[0] + no[1]) * among_no * (1 - among_no)) / m**2
    half = Z * np.sqrt(residual + (among_yes - among_no) ** 2 * weight * (1 - weight) / n)
    return point - half, point + half


def summarise(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """How many settings have the nominal coverage, and the worst."""
    found = np.array([cell["coverage"] for cell in cells if cell["coverage"] is not None])
    return {
        "settings": len(cells),
        "within": float(((found >= LOW) & (found <= HIGH)).mean()),
        "below": float((found < LOW).mean()),
        "above": float((found > HIGH).mean()),
        "least": float(found.min()),
        "mean": float(found.mean()),
        "width": float(np.mean([cell["width"] for cell in cells if cell["width"] is not None])),
    }


def show(summary: dict[str, dict[str, Any]]) -> None:
    """Print the table."""
    table = Table(title="Coverage of nominal 95 % intervals")
    for column in ("interval", "settings", "93–97 %", "below", "above", "least", "mean", "mean width"):
        table.add_column(column, justify="left" if column == "interval" else "right")
    for name, title in METHODS.items():
        found = summary[name]
        shares = (f"{100 * found[key]:.0f} %" for key in ("within", "below", "above"))
        table.add_row(
            title,
            str(found["settings"]),
            *shares,
            f"{found['least']:.3f}",
            f"{found['mean']:.3f}",
            f"{found['width']:.3f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
