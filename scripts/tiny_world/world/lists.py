"""Word lists, written as running text."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """Split a text into words."""
    return tuple(text.split())


def phrases(text: str) -> tuple[str, ...]:
    """Split a text into phrases at bars."""
    return tuple(text.split("|"))
