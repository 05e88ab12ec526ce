"""Which self-critiques make a preference pair. Each that doesn't is counted under the first reason that holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cst_bench.files import prompt_hash
from cst_bench.judging import Case, Judge, Verdict, ask, total_spent
from cst_bench.preferences.preference_pairs import Pair
from cst_bench.preferences.self_critique import CritiqueFile, Turns

_RUN = 12
"""So many words of a request or a critique in a row, in a rewrite but not in the draft, are a leak."""


@dataclass(frozen=True)
class Filtered:
    """Pairs, and how many prompts gave none, by the reason."""

    pairs: Sequence[Pair]
    left_out: dict[str, int]
    spent: dict[str, object]
    """What judging took."""


def make_pairs(
    turns: Sequence[Turns],
    critique: CritiqueFile,
    judge: Judge,
    *,
    held_out: Callable[[str], bool],
    count: Callable[[int], None] | None = None,
) -> Filtered:
    """The usable pairs of some self-critiques.

    Raises:
        JudgeUnavailable: some verdicts could not be had.
    """
    left_out: Counter[str] = Counter()
    kept: list[Turns] = []
    seen: set[str] = set()
    for one in turns:
        reason = _fault(one, critique, held_out, seen)
        if reason is None:
            kept.append(one)
        else:
            left_out[reason] += 1
    drafts = ask(judge, [Case(one.prompt, one.draft, one.row) for one in kept], count)
    rewrites = ask(judge, [Case(one.prompt, one.rewrite, one.row) for one in kept], count)
    pairs = []
    for one, draft, rewrite in zip(kept, drafts, rewrites, strict=True):
        reason = _misjudged(draft, rewrite, critique)
        if reason is not None:
            left_out[reason] += 1
            continue
        meta = {"source": "self-critique", "id": one.prompt_id, "row": one.row, "requests": list(one.asked)}
        pairs.append(Pair(one.prompt, {critique.draft: one.draft, critique.rewrite: one.rewrite}, meta))
    return Filtered(pairs, dict(sorted(left_out.items())), total_spent([*drafts, *rewrites]))


def _fault(turns: Turns, critique: CritiqueFile, held_out: Callable[[str], bool], seen: set[str]) -> str | None:
    """What is wrong with the texts themselves."""
    name = prompt_hash("\n".join([turns.prompt, *sorted(turns.row.values())]))
    if name in seen:
        return "duplicate prompt"
    seen.add(name)
    if held_out(turns.prompt):
        return "prompt is in the test split"
    if not turns.draft.strip() or not turns.rewrite.strip():
        return "empty draft or rewrite"
    if turns.truncated:
        return "truncated draft or rewrite"
    if _words(turns.draft) == _words(turns.rewrite):
        return "rewrite is the unchanged draft"
    if _leaks(turns, critique):
        return "rewrite leaks the critique"
    return None


def _misjudged(draft: Verdict, rewrite: Verdict, critique: CritiqueFile) -> str | None:
    if draft.behaviour is None or rewrite.behaviour is None:
        return "unscored draft or rewrite"
    if draft.behaviour == critique.rewrite:
        return f"draft is {critique.rewrite} already"
    if draft.behaviour != critique.draft:
        return f"draft is not {critique.draft}"
    if rewrite.behaviour != critique.rewrite:
        return f"rewrite is not {critique.rewrite}"
    return None


def _leaks(turns: Turns, critique: CritiqueFile) -> bool:
    if any(re.search(pattern, turns.rewrite, re.IGNORECASE) for pattern in critique.leaks):
        return True
    about = _runs(turns.critique) | set().union(*(_runs(request) for request in turns.asked))
    return bool((_runs(turns.rewrite) & about) - _runs(turns.draft) - _runs(turns.prompt))


def _runs(text: str) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[at : at + _RUN]) for at in range(len(words) - _RUN + 1)}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
