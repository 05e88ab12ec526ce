"""Altered copies of labelled responses, so that a judge doesn't learn how long they are or how they are laid out.

Responses of one behaviour are often longer, or more often lists, than those of another for reasons of how they were
made. A response that is cut short, laid out anew, or followed by another of its behaviour shows what it showed.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from cst_bench.calibration.labels import Labelled
from cst_bench.judging import Case

CUT, RELAID = (40, 120), (40, 200)
"""Fewest and most words that are left of a response."""
_MARKER = re.compile(r"^[ \t]*(?:\d+[.)]|[-*•]|#+)[ \t]+", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Copy(NamedTuple):
    """An altered copy."""

    of: int
    """Number of the response."""
    case: Case
    joined: bool
    """Another response follows."""


def copies(rows: Sequence[Labelled], folds: Sequence[int], doubted: Sequence[bool], seed: int) -> list[Copy]:
    """Altered copies of each response: cut short, laid out anew, followed by another.

    Args:
        rows: Labelled responses.
        folds: The fold of each, in cross-validation; a response is followed by one of its own fold only.
        doubted: Those whose label is doubted, which follow none.
        seed: Of the lengths and of what is joined.
    """
    draws = random.Random(seed)
    alike: dict[tuple[int, str], list[str]] = defaultdict(list)
    for row, fold, doubt in zip(rows, folds, doubted, strict=True):
        if not doubt:
            alike[fold, row.behaviour].append(row.case.response)
    found = []
    for number, (row, fold) in enumerate(zip(rows, folds, strict=True)):
        text, prompt = row.case.response, row.case.prompt
        found.append(Copy(number, Case(prompt, first_words(flat(text), draws.randint(*CUT))), False))
        found.append(Copy(number, Case(prompt, relaid(text, draws.randint(*RELAID))), False))
        if followers := alike[fold, row.behaviour]:
            found.append(Copy(number, Case(prompt, f"{text}\n\n{draws.choice(followers)}"), True))
    return found


def flat(text: str) -> str:
    """A text as one paragraph, without the markers of lists and headings."""
    return " ".join(_MARKER.sub("", text).split())


def relaid(text: str, words: int) -> str:
    """The beginning of a text: a list as a paragraph, a paragraph as a list of its sentences."""
    start = first_words(flat(text), words)
    if _MARKER.search(text):
        return start
    first, *rest = _SENTENCE.split(start)
    return "\n".join([first, *(f"{number}. {sentence}" for number, sentence in enumerate(rest, 1))])


def first_words(text: str, number: int) -> str:
    """The first words of a text without line breaks."""
    return " ".join(text.split(" ")[:number])
