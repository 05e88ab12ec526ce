"""What the user asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cst_bench.checkpoint import CheckpointOptions

Long = Literal["refuse", "truncate", "drop"]
"""What becomes of rows that are longer than `trl.max_length`."""


@dataclass(frozen=True)
class TrainOptions:
    """What the user asks for. The names are those of the command line."""

    recipe: str
    """Name or path of a recipe."""
    data: Path | None = None
    """Training rows, or preference pairs with `task`; the recipe's own if None."""
    out: Path | None = None
    """The trained checkpoint's folder."""
    base: str | None = None
    """A checkpoint in place of the recipe's base."""
    loading: CheckpointOptions = field(default_factory=CheckpointOptions)
    """How to load the base; its name is not looked at, and a dtype `auto` leaves it to the recipe."""
    method: str | None = None
    task: str | None = None
    """Whose configurations a file of pairs is flipped by."""
    columns: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    changes: tuple[str, ...] = ()
    """`KEY=VALUE`, put over the recipe."""
    stock: bool = False
    """TRL's own forward pass, whatever the recipe says of `fast`."""
    long: Long = "refuse"
    merge: bool = False
    """Write a whole model, the adapter merged into its base."""
    restart: bool = False
    """Throw away what a training that was cut off has done so far."""
    cache: Path | None = None
    """Folder of reference log-probabilities; the user's cache folder if None."""
