"""Augmentations of labelled responses, so that a judge does not learn their length or layout.

Responses of one behaviour are often longer, or more often lists, than those of another because of how they were made. A
response that is truncated, laid out differently, or followed by another of its behaviour keeps its behaviour.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from cst_bench.calibration.labels import Labelled
from cst_bench.judging import Case

TRUNCATED, REFORMATTED = (40, 120), (40, 200)
"""Minimum and maximum number of words of an augmented response."""
_MARKER = re.compile(r"^[ \t]*(?:\d+[.)]|[-*•]|#+)[ \t]+", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Augmentation(NamedTuple):
    """An augmented response."""

    source: int
    """Index of the original response."""
    case: Case
    joined: bool
    """Followed by another response."""


def augment(rows: Sequence[Labelled], folds: Sequence[int], doubted: Sequence[bool], seed: int) -> list[Augmentation]:
    """Make augmentations of each response: truncated, reformatted, followed by another.

    Args:
        rows: Labelled responses.
        folds: Cross-validation fold of each; a response is followed by one of its own fold only.
        doubted: Whether the label of each is doubted; such responses follow no other.
        seed: Random seed of the lengths and of the responses that follow.
    """
    draws = random.Random(seed)
    alike: dict[tuple[int, str], list[str]] = defaultdict(list)
    for row, fold, doubt in zip(rows, folds, doubted, strict=True):
        if not doubt:
            alike[fold, row.behaviour].append(row.case.response)
    augmentations = []
    for number, (row, fold) in enumerate(zip(rows, folds, strict=True)):
        text, prompt = row.case.response, row.case.prompt
        augmentations.append(
            Augmentation(number, Case(prompt, first_words(flat(text), draws.randint(*TRUNCATED))), False)
        )
        augmentations.append(Augmentation(number, Case(prompt, reformatted(text, draws.randint(*REFORMATTED))), False))
        if followers := alike[fold, row.behaviour]:
            augmentations.append(Augmentation(number, Case(prompt, f"{text}\n\n{draws.choice(followers)}"), True))
    return augmentations


def flat(text: str) -> str:
    """Return a text as one paragraph, without the markers of lists and headings."""
    return " ".join(_MARKER.sub("", text).split())


def reformatted(text: str, words: int) -> str:
    """Return the beginning of a text: a list as a paragraph, a paragraph as a list of its sentences."""
    start = first_words(flat(text), words)
    if _MARKER.search(text):
        return start
    first, *rest = _SENTENCE.split(start)
    return "\n".join([first, *(f"{number}. {sentence}" for number, sentence in enumerate(rest, 1))])


def first_words(text: str, number: int) -> str:
    """Return the first words of a text without line breaks."""
    return " ".join(text.split(" ")[:number])
