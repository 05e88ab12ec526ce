"""Progress reports of long-running work: the command line shows them; a library caller may stay silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cst_bench.checkpoint.gate import Check


class Progress(Protocol):
    """Receiver of progress reports."""

    def gate(self, label: str, checks: Sequence[Check]) -> None:
        """Report the template gate's checks of the checkpoint with this label."""

    def note(self, message: str) -> None:
        """Report a message of one line."""

    def stage(self, title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Begin work of `total` steps; call the function it yields with the number of steps just done."""


class Silent:
    """Progress that reports nothing."""

    def gate(self, label: str, checks: Sequence[Check]) -> None:
        """Ignore the checks."""

    def note(self, message: str) -> None:
        """Ignore the message."""

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Yield a function that ignores its argument."""
        yield lambda steps: None
