"""How rows are decoded: together in a running batch, in batches by `generate`, or alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

StaticMode = Literal["padded", "equal", "alone"]
"""Batches that `model.generate` decodes: rows padded on the left, rows with prompts of equal length, one row each."""
Mode = Literal["compact", StaticMode]
"""`compact` is a running batch, `DecodeBatch`."""


@dataclass
class CheckedModes:
    """What is known of the ways to decode one loaded model."""

    lengths: dict[Mode, int] = field(default_factory=dict)
    """Mode → longest row for which it gave the tokens of `generate`."""
    refused: set[Mode] = field(default_factory=set)
    """Modes that did not."""
    fallback: str | None = None
    """How rows were decoded that could not be decoded in the fastest mode, and why; None if there were none."""
