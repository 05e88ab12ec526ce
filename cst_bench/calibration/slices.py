"""Metrics of a judge on parts of the labels: by column, and by terciles of the response's length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cst_bench.calibration.labels import Labelled
from cst_bench.judging import all_behaviours
from cst_bench.judging.card import SliceMetrics
from cst_bench.statistics.classification import confusion, metrics

Pairs = Sequence[tuple[Labelled, str]]
"""Labelled responses and the behaviours of their verdicts."""
_MIN_SLICE = 5
"""Smaller slices are left out."""


def slice_metrics(scored: Pairs, behaviours: Sequence[str]) -> dict[str, dict[str, SliceMetrics]]:
    """Return column → value → metrics, for columns with several values; `length` is in words."""
    groups: dict[str, dict[str, list[tuple[Labelled, str]]]] = {}
    for row, verdict in sorted(scored, key=lambda pair: sorted(pair[0].slices.items())):
        for column, value in row.slices.items():
            groups.setdefault(column, {}).setdefault(value, []).append((row, verdict))
    if scored:
        groups["length"] = _by_length(scored)
    large = {
        column: {value: pairs for value, pairs in values.items() if len(pairs) >= _MIN_SLICE}
        for column, values in sorted(groups.items())
        if len(values) > 1
    }
    return {
        column: {value: _metrics(pairs, behaviours) for value, pairs in values.items()}
        for column, values in large.items()
        if values
    }


def _by_length(scored: Pairs) -> dict[str, list[tuple[Labelled, str]]]:
    lengths = [len(row.case.response.split()) for row, _ in scored]
    low, high = (int(end) for end in np.quantile(lengths, [1 / 3, 2 / 3], method="lower"))
    names = (f"up to {low} words", f"{low + 1} to {high} words", f"over {high} words")
    by_length: dict[str, list[tuple[Labelled, str]]] = {name: [] for name in names}
    for pair, length in zip(scored, lengths, strict=True):
        by_length[names[int(length > low) + int(length > high)]].append(pair)
    return {name: pairs for name, pairs in by_length.items() if pairs}


def _metrics(pairs: Pairs, behaviours: Sequence[str]) -> SliceMetrics:
    labels, verdicts = [row.behaviour for row, _ in pairs], [verdict for _, verdict in pairs]
    values = metrics(confusion(labels, verdicts, all_behaviours(behaviours, [*labels, *verdicts])), behaviours)
    agreement, macro_f1 = (
        None if np.isnan(values[name]) else float(values[name]) for name in ("agreement", "macro_f1")
    )
    return SliceMetrics(n=len(pairs), agreement=agreement, macro_f1=macro_f1)
