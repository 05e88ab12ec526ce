"""Stop long work by a signal: the first SIGINT (Ctrl-C) or SIGTERM lets what is in flight end, the second does not.

Only signals that would raise `KeyboardInterrupt` anyway are taken: SIGINT unless it is ignored, and SIGTERM in the
command line (`sigterm_as_sigint`). Their handlers are changed in the main thread, while work runs that can be stopped,
and restored afterwards. Work that was stopped raises `KeyboardInterrupt`, as it would without this module.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from cst_bench.errors import Interrupted

if TYPE_CHECKING:
    import asyncio
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN = "again to stop at once"
"""End of every message about a first signal."""


def _warn(message: str) -> None:
    import logging

    logging.getLogger(__name__).warning(message)


announce: ContextVar[Callable[[str], None]] = ContextVar("announce", default=_warn)
"""Receives a line about what a first signal lets end. The command line prints it, a library caller's log gets it."""


@contextmanager
def sigterm_as_sigint() -> Iterator[None]:
    """Let SIGTERM raise `KeyboardInterrupt` while the block runs, unless it has a handler or is ignored."""
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def on_signals(react: Callable[[int], bool]) -> Iterator[None]:
    """Call `react` with 1, 2, … at each signal while the block runs in the main thread.

    Where it returns False, the handler of before is called, which raises `KeyboardInterrupt`.
    """
    if not _in_main_thread():
        yield
        return
    before = {number: handler for number in _SIGNALS if callable(handler := signal.getsignal(number))}
    requests = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal requests
        requests += 1
        if not react(requests):
            before[signal.Signals(number)](number, frame)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class InFlight:
    """Asynchronous pieces of work, of which a first signal lets those end that have begun, and no other begin.

    When none is left, or at the second signal, the event loop raises `KeyboardInterrupt`, and cancels its tasks.
    """

    def __init__(self, noun: str, *, queued: bool = False) -> None:
        """Start without work.

        Args:
            noun: Name of the pieces in the message, such as `responses`.
            queued: An admitted piece waits in a queue, and who takes it from there calls `begin`.
        """
        self.stop_requested = False
        self._noun = noun
        self._queued = queued
        self._announce = announce.get()
        self._begun: set[Hashable] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._raised = False

    def begin(self, key: Hashable) -> bool:
        """Count a piece of work as begun, unless none may begin any more; return whether it is. Any thread may ask."""
        if self.stop_requested and key not in self._begun:
            return False
        self._begun.add(key)
        return True

    async def admit(self, key: Hashable) -> None:
        """Begin a piece of work, unless it is queued; if it may not begin, wait until this task is cancelled."""
        from asyncio import get_running_loop  # not imported where nothing is asynchronous, as for `--help`

        self._loop = get_running_loop()
        if not self._queued and not self.begin(key):
            await self._loop.create_future()

    def end(self, key: Hashable) -> None:
        """Count a piece of work as ended, its result stored; one that had not begun is ignored."""
        if key not in self._begun:
            return
        self._begun.remove(key)
        if self.stop_requested and not self._begun and self._loop is not None:
            self._loop.call_soon(self._interrupt)

    def react(self, requests: int) -> bool:
        """React to a signal, as `on_signals` asks for it; safe at any point of the program."""
        if self._loop is None or self._loop.is_closed() or requests > 2:
            return False
        self.stop_requested = True
        self._loop.call_soon_threadsafe(self._let_end if requests == 1 else self._interrupt)
        return True

    def _let_end(self) -> None:
        if self._begun:
            self._announce(f"interrupted: finishing the {self._noun} in flight ({len(self._begun)}); {AGAIN}")
        else:
            self._interrupt()

    def _interrupt(self) -> None:
        """Raise out of the loop, between two of its callbacks; only once, since the loop still runs what it cancels."""
        if not self._raised:
            self._raised = True
            raise KeyboardInterrupt


in_flight: ContextVar[InFlight | None] = ContextVar("in_flight", default=None)
"""Work in flight in this call; None where no signal is handled."""


async def begin_call() -> None:
    """Begin the work of this asyncio task, if a signal would let it end; after a signal, wait to be cancelled."""
    from asyncio import current_task

    if (work := in_flight.get()) is not None:
        await work.admit(current_task())


def end_call() -> None:
    """Count the work of this asyncio task as ended, its result stored."""
    from asyncio import current_task

    if (work := in_flight.get()) is not None:
        work.end(current_task())


@contextmanager
def finishing_first(noun: str, *, queued: bool = False) -> Iterator[InFlight]:
    """Let work in flight (`in_flight`) end at the first signal while the block runs an event loop.

    The arguments are those of `InFlight`.

    Raises:
        KeyboardInterrupt: a signal came, however the block ended.
    """
    work = InFlight(noun, queued=queued)
    token = in_flight.set(work)
    try:
        with on_signals(work.react):
            yield work
    except Interrupted:
        if not work.stop_requested:
            raise
    finally:
        in_flight.reset(token)
    if work.stop_requested:
        raise KeyboardInterrupt
