"""Coverage of 95 % intervals of compliance scores when an imperfect judge gives the verdicts, and of a judge's metrics.

    python benchmarks/coverage.py [--replications N] [--json FILE]

Monte Carlo over prevalences, judge qualities and sample sizes. The corrected intervals (Rogan-Gladen with the
calibration's own uncertainty; PPI++) are compared with common ones: Wilson's interval of the uncorrected verdicts, and
PPI++'s normal interval. Then what happens to Rogan-Gladen where its assumption fails: a sensitivity that is lower in
the run than on the card, and one that varies between models. Last, the intervals of F1 and the rest on a calibration
card, beside bootstrap percentiles. Five minutes or so on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cst_bench.statistics.bootstrap import percentile_interval, resampled_sums
from cst_bench.statistics.classification import metric_estimates, metrics
from cst_bench.statistics.correction import pooled_rates, ppi, rates_between_models, rogan_gladen
from cst_bench.statistics.intervals import Interval

Array = NDArray[np.float64]
Ends = tuple[Array, Array]
Z = 1.959963984540054
PREVALENCES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
QUALITIES = ((0.99, 0.99), (0.95, 0.9), (0.8, 0.85), (0.7, 0.6))
RESPONSES = (50, 200, 500)
CALIBRATIONS = (100, 400, 1000)
LABELLED = (20, 50, 100, 200)
SHIFTS = (0.0, 0.1, 0.2, 0.27)
SPREADS = (0.0, 0.5, 1.0)
MODELS = (2, 5, 10)
ACCURACIES = (0.8, 0.85, 0.9, 0.95, 0.98)
SIZES = (20, 50, 104, 200)
SHARES = (0.5, 0.15)
RESPONSES_PER_PROMPT, CORRELATION = 4, 0.3
MEASURED = ("macro_f1", "b/f1", "b/precision", "b/recall", "agreement", "kappa")
CLASSES = ("a", "b")
LOW, HIGH = 0.93, 0.97
DRAWS = 1000  # of the posterior, instead of 4000: coverage is the same, and the benchmark takes minutes
INTERVALS = ("ours", "bootstrap percentiles")
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
class TransferCell:
    """Coverage of Rogan-Gladen where the judge errs differently in the run than on the card."""

    rates: str
    """`pooled`, or `between models`."""
    shift: float
    """How much lower the sensitivity is in the run."""
    models: int
    """Models of the card, with 20 labels of each kind; 1: 52 of each kind."""
    spread: float
    """Standard deviation of the logit of sensitivity between models, of which the run's is another one."""
    refused: float
    """Share of replications whose correction is refused."""
    coverage: float | None
    """Coverage of the corrections that are not refused."""
    width: float | None


@dataclass(frozen=True)
class MetricCell:
    """Coverage of the interval of a judge's metric."""

    metric: str
    interval: str
    """`ours`, or `bootstrap percentiles`."""
    accuracy: float
    """Probability that a verdict is the label, for both behaviours."""
    share: float
    """Share of the behaviour `b`."""
    n: int
    per_prompt: int
    """Responses to one prompt; if several, whether verdicts are right is correlated."""
    coverage: float
    undefined: float
    """Share of replications that lack a behaviour or an interval; they are not in the coverage."""


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
    times = options.replications
    parts = [  # each has a random stream of its own, so that they can run side by side
        (simulate_transferred, times),
        (simulate_labelled, times),
        (simulate_metrics, times // 2),
        (simulate_clustered, times // 20),
        (simulate_models, times // 10),
        (simulate_shifted, times),
    ]
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        futures = [
            pool.submit(simulate, np.random.default_rng([options.seed, at]), replications)
            for at, (simulate, replications) in enumerate(parts)
        ]
        transferred, labelled, measured, clustered, models, shifted = (future.result() for future in futures)
    cells = [*transferred, *labelled]
    transfer, measured = [*shifted, *models], [*measured, *clustered]
    summaries = {name: summarise([cell for cell in cells if cell.method == name]) for name in METHODS}
    show(summaries)
    show_transfer(transfer)
    show_metrics(measured)
    if options.json is not None:
        results = {
            "replications": options.replications,
            "seed": options.seed,
            "summary": {name: asdict(summary) for name, summary in summaries.items()},
            "cells": [asdict(cell) for cell in cells],
            "transfer": [asdict(cell) for cell in transfer],
            "metrics": [asdict(cell) for cell in measured],
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

        rates = pooled_rates(tp=tp, fn=fn, fp=fp, tn=tn, draws=DRAWS)
        measure = partial(measure_coverage, share, sensitivity, specificity, n, m)
        cells += [
            measure("rogan-gladen", partial(rogan_gladen, verdicts, n, rates)),
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


def simulate_shifted(draw: np.random.Generator, replications: int) -> list[TransferCell]:
    """Apply a card of 104 labels to a run in which the judge's sensitivity is lower."""
    share, sensitivity, specificity, n, half = 0.9, 0.87, 0.96, 200, 52
    hit, wrong = draw.binomial(half, sensitivity, replications), draw.binomial(half, 1 - specificity, replications)
    tp, fp = hit.astype(float), wrong.astype(float)
    rates = pooled_rates(tp=tp, fn=half - tp, fp=fp, tn=half - fp, draws=DRAWS)
    cells = []
    for shift in SHIFTS:
        positive = share * (sensitivity - shift) + (1 - share) * (1 - specificity)
        _, low, high = rogan_gladen(draw.binomial(n, positive, replications).astype(float), n, rates)
        cells.append(transfer_cell("pooled", shift, 1, 0.0, share, low, high))
    return cells


def simulate_models(draw: np.random.Generator, replications: int) -> list[TransferCell]:
    """Apply cards of several models, whose sensitivity varies around 0.87, to a run of another one."""
    share, specificity, n, half = 0.9, 0.96, 200, 20
    cells = []
    for models, spread in product(MODELS, SPREADS):
        ends: dict[str, list[tuple[float, float]]] = {"pooled": [], "between models": []}
        for _ in range(replications):
            logits = np.log(0.87 / 0.13) + spread * draw.standard_normal(models + 1)
            sensitivity = 1 / (1 + np.exp(-logits))
            hit, wrong = draw.binomial(half, sensitivity[1:]), draw.binomial(half, 1 - specificity, models)
            k = int(draw.binomial(n, share * sensitivity[0] + (1 - share) * (1 - specificity)))
            counts = [(int(tp), half - int(tp), int(fp), half - int(fp)) for tp, fp in zip(hit, wrong, strict=True)]
            tp, fn, fp, tn = (sum(part) for part in zip(*counts, strict=True))
            for name, rates in (
                ("pooled", pooled_rates(tp=tp, fn=fn, fp=fp, tn=tn, draws=DRAWS)),
                ("between models", rates_between_models(counts, draws=DRAWS)),
            ):
                _, low, high = rogan_gladen(k, n, rates)
                ends[name].append((float(low), float(high)))
        for name, pairs in ends.items():
            lows, highs = np.array(pairs).T
            cells.append(transfer_cell(name, 0.0, models, spread, share, lows, highs))
    return cells


def transfer_cell(
    rates: str, shift: float, models: int, spread: float, share: float, low: Array, high: Array
) -> TransferCell:
    """Measure how often a correction is refused, and the coverage of the rest."""
    given = ~np.isnan(low)
    covered = (low <= share + 1e-12) & (share - 1e-12 <= high)
    return TransferCell(
        rates=rates,
        shift=shift,
        models=models,
        spread=spread,
        refused=float(1 - given.mean()),
        coverage=float(covered[given].mean()) if given.any() else None,
        width=float((high - low)[given].mean()) if given.any() else None,
    )


def simulate_metrics(draw: np.random.Generator, replications: int, per_prompt: int = 1) -> list[MetricCell]:
    """Calibrate a judge of known accuracy again and again, on few labels."""
    cells = []
    for share, accuracy, n in product(SHARES, ACCURACIES, SIZES):
        prompts = n // per_prompt
        if per_prompt > 1 and (prompts < 10 or accuracy in (0.85, 0.95)):
            continue
        known: dict[bytes, list[Interval | None]] = {}  # of a table of independent responses
        right = np.array([[1 - share, 0], [0, share]]) * accuracy
        truth = metrics(right + np.array([[0, 1 - share], [share, 0]]) * (1 - accuracy), CLASSES)
        held: dict[tuple[str, str], list[bool]] = {(name, kind): [] for name in MEASURED for kind in INTERVALS}
        for _ in range(replications):
            # a prompt's accuracy is beta-distributed, with the intraclass correlation
            rate = np.full(prompts, accuracy)
            if per_prompt > 1:
                size = 1 / CORRELATION - 1
                rate = draw.beta(accuracy * size, (1 - accuracy) * size, prompts)
            label = (draw.random((prompts, per_prompt)) < share).astype(int)
            verdict = np.where(draw.random((prompts, per_prompt)) < rate[:, None], label, 1 - label)
            counts = np.zeros((prompts, 2, 2))
            np.add.at(counts, (np.arange(prompts)[:, None], label, verdict), 1)
            if not counts.sum((0, 2)).all():
                continue
            key = (counts.sum(0) if per_prompt == 1 else counts).tobytes()
            if key not in known:
                known[key] = measured_intervals(counts)
            for (name, kind), interval in zip(product(MEASURED, INTERVALS), known[key], strict=True):
                if interval is not None:
                    low, high = interval
                    held[name, kind].append(bool(low <= truth[name] + 1e-12 and truth[name] - 1e-12 <= high))
        cells += [
            MetricCell(
                metric=name,
                interval=kind,
                accuracy=accuracy,
                share=share,
                n=n,
                per_prompt=per_prompt,
                coverage=float(np.mean(values)),
                undefined=1 - len(values) / replications,
            )
            for (name, kind), values in held.items()
        ]
    return cells


def simulate_clustered(draw: np.random.Generator, replications: int) -> list[MetricCell]:
    """Calibrate a judge on several responses to each prompt, which it reads alike."""
    return simulate_metrics(draw, replications, RESPONSES_PER_PROMPT)


def measured_intervals(counts: Array) -> list[Interval | None]:
    """Return the intervals of the metrics of a confusion matrix for each prompt, of each metric all kinds."""
    estimates = metric_estimates(counts, CLASSES)
    resampled = metrics(resampled_sums(counts, 0), CLASSES)
    return [
        interval
        for name in MEASURED
        for interval in (estimates[name].interval, percentile_interval(np.asarray(resampled[name])))
    ]


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


def show_transfer(cells: Sequence[TransferCell]) -> None:
    """Print how Rogan-Gladen fares where the judge errs differently in the run."""
    table = Table(title="Rogan-Gladen where the judge errs differently in the run than on its card")
    for column in ("error rates", "models on the card", "spread (logit)", "shift", "refused", "coverage", "mean width"):
        table.add_column(column, justify="left" if column == "error rates" else "right")
    for cell in cells:
        values = ("–" if value is None else f"{value:.3f}" for value in (cell.refused, cell.coverage, cell.width))
        table.add_row(cell.rates, str(cell.models), f"{cell.spread:g}", f"{0 - cell.shift:g}", *values)
    Console(width=120).print(table)


def show_metrics(cells: Sequence[MetricCell]) -> None:
    """Print the coverage of the intervals of metrics over all settings."""
    table = Table(title="Coverage of nominal 95 % intervals of a judge's metrics, 20 to 200 labels")
    for column in ("metric", "interval", "per prompt", "settings", "93–97 %", "below", "above", "least", "mean"):
        table.add_column(column, justify="left" if column in ("metric", "interval") else "right")
    for per_prompt, name, kind in product((1, RESPONSES_PER_PROMPT), MEASURED, INTERVALS):
        coverage = np.array(
            [c.coverage for c in cells if (c.per_prompt, c.metric, c.interval) == (per_prompt, name, kind)]
        )
        below, above = (coverage < LOW).mean(), (coverage > HIGH).mean()
        within = ((coverage >= LOW) & (coverage <= HIGH)).mean()
        shares = (f"{100 * part:.0f} %" for part in (within, below, above))
        figures = (f"{value:.3f}" for value in (coverage.min(), coverage.mean()))
        table.add_row(name, kind, str(per_prompt), str(len(coverage)), *shares, *figures)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
