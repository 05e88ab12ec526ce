"""The first signal lets work in flight end, the second does not; handlers are those of before afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from cst_bench.errors import Interrupted
from cst_bench.interruption import (
    InFlight,
    announce,
    begin_call,
    end_call,
    finishing_first,
    in_flight,
    on_signals,
    sigterm_as_sigint,
)

KEPT = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Handlers as in a terminal: tests may run in a job with SIGINT ignored."""
    before = [signal.getsignal(number) for number in KEPT]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in zip(KEPT, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    token = announce.set(lines.append)
    yield lines
    announce.reset(token)


def interrupt(number: signal.Signals = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in KEPT]


def test_sigterm_interrupts_and_is_left_as_it_was() -> None:
    before = handlers()
    with pytest.raises(KeyboardInterrupt), sigterm_as_sigint():
        interrupt(signal.SIGTERM)
    assert handlers() == before


@pytest.mark.parametrize("theirs", [signal.SIG_IGN, lambda number, frame: None])
def test_a_handler_of_sigterm_is_kept(theirs: signal._HANDLER) -> None:
    signal.signal(signal.SIGTERM, theirs)
    with sigterm_as_sigint():
        assert signal.getsignal(signal.SIGTERM) == theirs
        interrupt(signal.SIGTERM)


def test_signals_are_counted_and_refused_ones_go_to_the_handler_of_before() -> None:
    counted: list[int] = []

    def react(requests: int) -> bool:
        counted.append(requests)
        return requests < 3

    before = handlers()
    with sigterm_as_sigint(), on_signals(react):
        interrupt()
        interrupt(signal.SIGTERM)
        assert counted == [1, 2]
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    assert counted == [1, 2, 3]
    assert handlers() == before


def test_signals_that_would_not_interrupt_are_not_taken() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with on_signals(lambda requests: pytest.fail("taken")):
        interrupt()
        assert handlers() == [signal.SIG_IGN, signal.SIG_DFL]


def test_another_thread_changes_no_handler() -> None:
    seen: list[object] = []

    def work() -> None:
        with sigterm_as_sigint(), on_signals(lambda requests: True):
            seen.extend(handlers())

    before = handlers()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before


class Calls:
    """Three calls, of which two may run at a time; each ends when it is let."""

    def __init__(self) -> None:
        self.ended: list[int] = []
        self.begun: list[int] = []
        self.let = asyncio.Event()

    async def call(self, number: int, places: asyncio.Semaphore) -> None:
        async with places:
            await begin_call()
            self.begun.append(number)
            await self.let.wait()
            self.ended.append(number)
            end_call()

    async def all(self, *signals: tuple[int, signal.Signals]) -> None:
        """Make the calls, and send signals, each when there are so many lines to it."""
        places = asyncio.Semaphore(2)
        calls = [asyncio.ensure_future(self.call(number, places)) for number in range(3)]
        while len(self.begun) < 2:
            await asyncio.sleep(0)
        for turns, number in signals:
            interrupt(number)
            for _ in range(turns):
                await asyncio.sleep(0)
        self.let.set()
        await asyncio.gather(*calls)


@pytest.mark.parametrize("number", KEPT)
def test_calls_in_flight_end_and_no_other_begins(number: signal.Signals, said: list[str]) -> None:
    calls = Calls()
    with sigterm_as_sigint(), pytest.raises(KeyboardInterrupt), finishing_first("judge calls"):
        asyncio.run(calls.all((5, number)))
    assert calls.begun == calls.ended == [0, 1]
    assert said == ["interrupted: finishing the judge calls in flight (2); again to stop at once"]
    assert in_flight.get() is None


def test_a_second_signal_stops_at_once(said: list[str]) -> None:
    calls = Calls()
    with pytest.raises(KeyboardInterrupt), finishing_first("judge calls"):
        asyncio.run(calls.all((5, signal.SIGINT), (5, signal.SIGINT)))
    assert calls.begun == [0, 1]
    assert not calls.ended
    assert len(said) == 1


def test_a_signal_stops_at_once_what_has_nothing_in_flight(said: list[str]) -> None:
    async def work() -> None:
        await begin_call()
        end_call()
        interrupt()
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt), finishing_first("judge calls"):
        asyncio.run(work())
    assert not said


def test_a_signal_before_any_loop_stops_at_once() -> None:
    with finishing_first("judge calls"), pytest.raises(KeyboardInterrupt):
        interrupt()


def test_what_a_signal_leaves_undone_is_an_interrupt_and_no_other_error() -> None:
    async def work() -> None:
        await begin_call()
        interrupt()
        raise Interrupted("some verdicts are missing")

    with pytest.raises(KeyboardInterrupt), finishing_first("judge calls"):
        asyncio.run(work())
    with pytest.raises(Interrupted), finishing_first("judge calls"):
        raise Interrupted("the endpoint is down")


def test_queued_work_begins_when_it_is_taken_from_the_queue() -> None:
    async def work() -> tuple[bool, bool]:
        flight = InFlight("responses", queued=True)
        await flight.admit("first")
        await flight.admit("second")
        assert flight.begin("first")
        flight.stop_requested = True
        return flight.begin("first"), flight.begin("second")

    assert asyncio.run(work()) == (True, False)
