"""Errors that users can see.

    CstBenchError            base of all errors that this package raises on purpose
    ├── UserError            the input is wrong: one message, exit status 2, no traceback
    │   └── GateError        the template gate stopped the run
    └── Interrupted          the run stopped early and can be continued: exit status 3

A `UserError` says what is wrong, what was given, and what to do. Any other exception that escapes is a bug in cst-bench
and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CstBenchError(Exception):
    """Base of the errors that this package raises on purpose."""

    exit_status = 1


class UserError(CstBenchError):
    """Wrong input: one message with what is wrong, what was given, and what to do."""

    exit_status = 2


class GateError(UserError):
    """A fault in the chat template that would make every score wrong."""


class Interrupted(CstBenchError):
    """A run that stopped early; the same command continues it."""

    exit_status = 3


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known names, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(names)}" if names else "none are known"
