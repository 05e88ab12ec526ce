"""Options of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cst_bench.checkpoint import CheckpointOptions

Long = Literal["refuse", "truncate", "drop"]
"""Treatment of rows longer than `trl.max_length`."""


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training, named as on the command line."""

    recipe: str
    """Name or path of a recipe."""
    data: Path | None = None
    """Training rows, or preference pairs with `task`; the recipe's data if None."""
    out: Path | None = None
    """Folder of the trained checkpoint."""
    base: str | None = None
    """Checkpoint to train instead of the recipe's base."""
    loading: CheckpointOptions = field(default_factory=CheckpointOptions)
    """How to load the base; its `name` is ignored, and dtype `auto` means the recipe's."""
    method: str | None = None
    """`cst` or `dpo`; the recipe's if None."""
    task: str | None = None
    """Compliance task that defines the configurations for a file of pairs."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column → its name in the data file."""
    seed: int = 0
    """Seed of adapter initialisation, dropout and row order."""
    changes: tuple[str, ...] = ()
    """`KEY=VALUE` settings that override the recipe."""
    stock: bool = False
    """Use TRL's own forward pass, whatever the recipe's `fast` says."""
    long: Long = "refuse"
    merge: bool = False
    """Write a whole model, with the adapter merged into its base."""
    restart: bool = False
    """Discard what an unfinished training has done so far."""
    cache: Path | None = None
    """Folder of cached reference log-probabilities; the user's cache folder if None."""
