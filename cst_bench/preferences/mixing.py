"""Several sources of training rows as one multi-task set."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cst_bench.compliance.data import load_hub_rows
from cst_bench.errors import UserError
from cst_bench.files import SUFFIXES, Row, read_rows
from cst_bench.preferences.training_rows import TrainingRow, parse_rows


@dataclass(frozen=True)
class Source:
    """A file or a hub data set, and how much of it goes in."""

    name: str
    """A path, or a data set id on the hub (`jondurbin/truthy-dpo-v0.1`, read from its split `train`)."""
    weight: float = 1.0
    """Rows taken, as a share of the source: 0.5 is a random half, 2 is everything twice."""
    task: str | None = None
    """The task column of rows that bring none; the source's own name by default."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """What the source calls a column, where it isn't one of the usual names."""
    held_out: Callable[[str], bool] | None = None
    """Whether a prompt is in a test split (`cst_bench.compliance.data.held_out`): such rows are left out."""


@dataclass(frozen=True)
class MixResult:
    """The rows in a random order, and how many are from each source and of each task."""

    rows: Sequence[TrainingRow]
    by_source: Mapping[str, int]
    by_task: Mapping[str, int]
    repeated: int
    """Rows that are in the mix more than once."""
    left_out: Mapping[str, int]
    """Source → rows whose prompt is in a test split, of sources that were asked about."""


def mix(sources: Sequence[Source], *, seed: int = 0) -> MixResult:
    """One set of rows from several sources, shuffled.

    Raises:
        UserError: a source can't be read, lacks a column, or has a weight that is not above 0.
    """
    draw = random.Random(seed)
    rows: list[TrainingRow] = []
    by_source: dict[str, int] = {}
    left_out: dict[str, int] = {}
    for source in sources:
        if not (source.weight > 0 and math.isfinite(source.weight)):
            raise UserError(f"{source.name}: its weight must be a number above 0, not {source.weight:g}")
        found = parse_rows(_read(source.name), source.columns, source.task or _task_name(source.name))
        if source.held_out is not None:
            kept = [row for row in found if not source.held_out(row.prompt)]
            if not kept:
                raise UserError(f"{source.name}: all its rows have prompts of a test split: nothing is left of it")
            left_out[source.name] = len(found) - len(kept)
            found = kept
        taken = _weighted(found, source.weight, draw)
        if not taken:
            raise UserError(f"{source.name}: {source.weight:g} of its {len(found)} rows is none: give a larger weight")
        by_source[source.name] = by_source.get(source.name, 0) + len(taken)
        rows.extend(taken)
    draw.shuffle(rows)
    by_task = dict(Counter(row.task for row in rows))
    return MixResult(rows, by_source, by_task, len(rows) - len(set(rows)), left_out)


def _weighted(rows: Sequence[TrainingRow], weight: float, draw: random.Random) -> list[TrainingRow]:
    """Whole copies, and a sample without replacement for what is left of the weight."""
    copies, part = divmod(weight, 1)
    return [*(row for _ in range(int(copies)) for row in rows), *draw.sample(list(rows), round(part * len(rows)))]


def _read(name: str) -> list[Row]:
    path = Path(name).expanduser()
    if path.is_file() or path.suffix.lower() in SUFFIXES or name.count("/") != 1:
        return read_rows(path)
    return load_hub_rows(name, "give a local file")


def _task_name(name: str) -> str:
    return Path(name).stem if name.lower().endswith(SUFFIXES) else name.rsplit("/", 1)[-1]
