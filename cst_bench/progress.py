"""How a run tells what it is doing. The command line draws it; a library caller may stay silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from cst_bench.checkpoint.gate import Check


class Progress(Protocol):
    """What a run reports while it works."""

    def gate(self, label: str, checks: Sequence[Check]) -> None:
        """The template gate has looked at the checkpoint of this name."""

    def note(self, message: str) -> None:
        """Something worth a line."""

    def stage(self, title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Work of so many steps begins; inside, the function that is given counts them."""


class Silent:
    """Reports nothing."""

    def gate(self, label: str, checks: Sequence[Check]) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Counts for nobody."""
        yield lambda steps: None
