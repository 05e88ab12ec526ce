"""The most money that a command spends on judges' calls, shared by all its judges."""

from __future__ import annotations

import asyncio
import threading

from cst_bench.errors import UserError

_HEADROOM = 2.0
"""A call may cost this many times what the dearest so far did: it is known only afterwards."""
_POLL = 0.02
"""Seconds between two looks at whether calls in flight have left something."""


class BudgetSpent(Exception):
    """Another call could exceed the limit."""


class Budget:
    """US dollars that calls may cost. A call is made only if the limit holds even if it is as dear as two others."""

    def __init__(self, limit: float) -> None:
        """Set the limit.

        Raises:
            UserError: it is not above 0.
        """
        if not limit > 0:
            raise UserError(f"--max-cost must be above 0, not {limit}")
        self.limit = limit
        self.spent = 0.0
        self._reserved = 0.0
        self._in_flight = 0
        self._dearest: float | None = None
        self._lock = threading.Lock()

    async def reserve(self) -> float:
        """Wait until a call fits, and return what is reserved for it. The first call is made alone, to learn its cost.

        Raises:
            BudgetSpent: no call fits any more.
        """
        while True:
            with self._lock:
                if self._dearest is None:
                    if not self._in_flight:
                        self._in_flight += 1
                        return 0.0
                else:
                    amount = _HEADROOM * self._dearest
                    if self.spent + self._reserved + amount <= self.limit:
                        self._reserved += amount
                        self._in_flight += 1
                        return amount
                    if not self._in_flight:
                        raise BudgetSpent
            await asyncio.sleep(_POLL)

    def settle(self, reserved: float, cost: float | None) -> None:
        """Replace what was reserved for a call by its cost; None for a call that failed."""
        with self._lock:
            self._in_flight -= 1
            self._reserved -= reserved
            if cost is not None:
                self.spent += cost
                self._dearest = max(cost, self._dearest or 0.0)
