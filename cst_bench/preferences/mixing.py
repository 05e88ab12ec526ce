"""Mix several sources of training rows into one multi-task set."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cst_bench.errors import UserError
from cst_bench.files import SUFFIXES
from cst_bench.preferences.training_rows import TrainingRow, parse_rows, read_source

MAX_ROWS = 10_000_000
"""Most rows of a mix."""


@dataclass(frozen=True)
class MixSource:
    """A file or a Hub data set, and the share of its rows to use."""

    name: str
    """Path, or id of a data set on the Hub (`jondurbin/truthy-dpo-v0.1`, of which the split `train` is read)."""
    weight: float = 1.0
    """Rows to use, as a share of the source: 0.5 is a random half, 2 is every row twice."""
    task: str | None = None
    """Task of rows without a task column; the source's name by default."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column → its name in the source, where it is not one of the usual names."""
    held_out: Callable[[str], bool] | None = None
    """Returns whether a prompt is held out (`cst_bench.compliance.data.held_out`); its rows are left out."""


@dataclass(frozen=True)
class MixResult:
    """Rows of several sources in random order, and their counts."""

    rows: Sequence[TrainingRow]
    by_source: Mapping[str, int]
    by_task: Mapping[str, int]
    repeated: int
    """Number of rows that repeat another row of the mix."""
    left_out: Mapping[str, int]
    """Source with a `held_out` check → rows left out because their prompt is held out."""


def mix(sources: Sequence[MixSource], *, seed: int = 0) -> MixResult:
    """Mix the rows of several sources, and shuffle them.

    Raises:
        UserError: a source cannot be read, lacks a column, or has a weight that is not above 0.
    """
    draw = random.Random(seed)
    rows: list[TrainingRow] = []
    by_source: dict[str, int] = {}
    left_out: dict[str, int] = {}
    for source in sources:
        if not (source.weight > 0 and math.isfinite(source.weight)):
            raise UserError(f"{source.name}: its weight must be a number above 0, not {source.weight:g}")
        available = parse_rows(read_source(source.name), source.columns, source.task or _task_name(source.name))
        if source.held_out is not None:
            kept = [row for row in available if not source.held_out(row.prompt)]
            if not kept:
                raise UserError(f"{source.name}: all its rows have held-out prompts: nothing is left of it")
            left_out[source.name] = len(available) - len(kept)
            available = kept
        if (size := len(rows) + source.weight * len(available)) > MAX_ROWS:
            raise UserError(
                f"{source.name}: weight {source.weight:g} of {len(available)} rows makes a mix of {size:.3g} rows, "
                f"more than {MAX_ROWS:,}: give a smaller weight"
            )
        drawn = _weighted(available, source.weight, random.Random(seed))  # whatever the other sources are
        if not drawn:
            raise UserError(
                f"{source.name}: weight {source.weight:g} of {len(available)} rows gives no row: give a larger weight"
            )
        by_source[source.name] = by_source.get(source.name, 0) + len(drawn)
        rows.extend(drawn)
    draw.shuffle(rows)
    by_task = dict(Counter(row.task for row in rows))
    return MixResult(rows, by_source, by_task, len(rows) - len(set(rows)), left_out)


def _weighted(rows: Sequence[TrainingRow], weight: float, draw: random.Random) -> list[TrainingRow]:
    """Repeat the rows for the whole part of the weight, and sample without replacement for the rest."""
    copies, part = divmod(weight, 1)
    return [*(row for _ in range(int(copies)) for row in rows), *draw.sample(list(rows), round(part * len(rows)))]


def _task_name(name: str) -> str:
    return Path(name).stem if name.lower().endswith(SUFFIXES) else name.rsplit("/", 1)[-1]
