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
    """Results of checking the ways to decode one loaded model."""

    lengths: dict[Mode, int] = field(default_factory=dict)
    """Mode → longest row for which it gave the tokens of `generate`."""
    refused: set[Mode] = field(default_factory=set)
    """Modes that did not."""
    slower: dict[Literal["check", "length"], str] = field(default_factory=dict)
    """Cause of decoding rows in a slower mode → a message that says how, and why."""

    @property
    def fallback(self) -> str | None:
        """Return how rows were decoded that could not share a running batch, and why; None if there were none."""
        return "; ".join(self.slower.values()) or None
