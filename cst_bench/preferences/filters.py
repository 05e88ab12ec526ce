"""Filter self-critiques into preference pairs. Each one left out is counted under the first reason that applies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cst_bench.files import prompt_hash
from cst_bench.judging import Case, Judge, Verdict, ask, total_spent
from cst_bench.preferences.preference_pairs import PreferencePair
from cst_bench.preferences.self_critique import CritiqueFile, Turns
from cst_bench.record import Spent

_RUN = 12
"""Length in words of a run that a rewrite shares with a request or critique, and not with the draft, to be a leak."""


@dataclass(frozen=True)
class Filtered:
    """Pairs made of self-critiques."""

    pairs: Sequence[PreferencePair]
    left_out: dict[str, int]
    """Reason → prompts that gave no pair."""
    spent: Spent | None
    """Calls, tokens and cost of judging; None if the judge calls no model."""


def make_pairs(
    turns: Sequence[Turns],
    critique: CritiqueFile,
    judge: Judge,
    *,
    held_out: Callable[[str], bool],
    count: Callable[[int], None] | None = None,
) -> Filtered:
    """Make pairs of the usable self-critiques.

    Raises:
        JudgeUnavailable: the judge could not be reached for some cases.
    """
    left_out: Counter[str] = Counter()
    kept: list[Turns] = []
    seen: set[str] = set()
    for turn in turns:
        reason = _text_fault(turn, critique, held_out, seen)
        if reason is None:
            kept.append(turn)
        else:
            left_out[reason] += 1
    drafts = ask(judge, [Case(turn.prompt, turn.draft, turn.row) for turn in kept], count)
    rewrites = ask(judge, [Case(turn.prompt, turn.rewrite, turn.row) for turn in kept], count)
    pairs = []
    for turn, draft, rewrite in zip(kept, drafts, rewrites, strict=True):
        reason = _behaviour_fault(draft, rewrite, critique)
        if reason is not None:
            left_out[reason] += 1
            continue
        meta = {"source": "self-critique", "id": turn.prompt_id, "row": turn.row, "requests": list(turn.requests)}
        pairs.append(PreferencePair(turn.prompt, {critique.draft: turn.draft, critique.rewrite: turn.rewrite}, meta))
    return Filtered(pairs, dict(sorted(left_out.items())), total_spent([*drafts, *rewrites]))


def _text_fault(turns: Turns, critique: CritiqueFile, held_out: Callable[[str], bool], seen: set[str]) -> str | None:
    """Return why the texts make no pair; None if they may. Adds the prompt to those seen."""
    name = prompt_hash("\n".join([turns.prompt, *sorted(turns.row.values())]))
    if name in seen:
        return "duplicate prompt"
    seen.add(name)
    if held_out(turns.prompt):
        return "prompt is held out"
    if not turns.draft.strip() or not turns.rewrite.strip():
        return "empty draft or rewrite"
    if turns.truncated:
        return "truncated draft or rewrite"
    if _words(turns.draft) == _words(turns.rewrite):
        return "rewrite is the unchanged draft"
    if _leaks(turns, critique):
        return "rewrite leaks the critique"
    return None


def _behaviour_fault(draft: Verdict, rewrite: Verdict, critique: CritiqueFile) -> str | None:
    """Return why the verdicts make no pair; None if they do."""
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
    """Return whether the rewrite talks about the critique instead of answering."""
    if any(re.search(pattern, turns.rewrite, re.IGNORECASE) for pattern in critique.leaks):
        return True
    leaking = _runs(turns.critique) | set().union(*(_runs(request) for request in turns.requests))
    return bool((_runs(turns.rewrite) & leaking) - _runs(turns.draft) - _runs(turns.prompt))


def _runs(text: str) -> set[tuple[str, ...]]:
    """Return all runs of `_RUN` words in a text."""
    words = _words(text)
    return {tuple(words[at : at + _RUN]) for at in range(len(words) - _RUN + 1)}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
