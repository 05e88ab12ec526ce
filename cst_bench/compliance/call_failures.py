"""When to stop asking a model that does not answer, and why it did not."""

from __future__ import annotations

from contextvars import ContextVar

from cst_bench.checkpoint.call_errors import SETUP, cause_of, reason_of, redirected_to, status_of

_IN_A_ROW = 10
"""Failed responses without an answer between them after which the remaining ones are not asked for. Each has been tried
several times, at growing intervals."""


class NotAsked(Exception):
    """A response was not asked for, since those before it failed."""


class CallFailures:
    """Failed responses of a task, in a row and in all."""

    def __init__(self) -> None:
        """Count from zero."""
        self.total = 0
        self.reason: str | None = None
        """Why the first of the failures in a row failed."""
        self.gave_up = False
        """The remaining responses were not asked for."""
        self._in_a_row = 0
        self._has_answered = False

    def require_hope(self) -> None:
        """Check that the model may still answer.

        Raises:
            NotAsked: too many responses failed in a row, or the first in a way that all others would.
        """
        if self.gave_up:
            raise NotAsked(f"not asked, since responses before failed ({self.reason})")

    def add(self, error: BaseException) -> None:
        """Count a failed response."""
        cause = cause_of(error)
        if self._in_a_row == 0:
            target = redirected_to(cause)
            self.reason = (
                reason_of(cause)
                if target is None
                else f"the endpoint redirects to {target}, where neither the key nor the prompts are sent"
            )
        self.total += 1
        self._in_a_row += 1
        hopeless = status_of(cause) in SETUP or redirected_to(cause) is not None
        if self._in_a_row >= _IN_A_ROW or (hopeless and not self._has_answered):
            self.gave_up = True

    def add_answer(self) -> None:
        """Count a response that did not fail."""
        self._in_a_row = 0
        self._has_answered = True


call_failures: ContextVar[CallFailures | None] = ContextVar("call_failures", default=None)
"""Failures of the evaluation that is running; None in an evaluation that was started by Inspect."""
