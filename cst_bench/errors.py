"""The errors a user can meet.

    CstBenchError            any error this package raises on purpose
    ├── UserError            the input is wrong: one message, exit status 2, no traceback
    │   └── GateError        the template gate stopped the run
    └── Interrupted          the run stopped early and can be continued: exit status 3

A `UserError` says what is wrong, what was given, and what to do. Anything else that escapes is a bug in
cst-bench and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CstBenchError(Exception):
    """Base of the errors this package raises on purpose."""

    exit_status = 1


class UserError(CstBenchError):
    """The user's input is wrong: what, what was given, what to do, in one message."""

    exit_status = 2


class GateError(UserError):
    """The template gate found a fault that would make every score wrong."""


class Interrupted(CstBenchError):
    """The run stopped early; the same command continues it."""

    exit_status = 3


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known ones, else all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(names)}" if names else "none are known"
