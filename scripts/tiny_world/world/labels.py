"""Labelled responses of the embedded world, for calibrating its judges: right answers, and answers made wrong.

The labels hold by construction: an answer that the world generates shows its behaviour; one with another tool, time,
thing or name, with two behaviours at once, or with nothing of the world shows neither.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

from .errands import NOUNS, TEMPLATES, TIMES, TOOLS, Errand, Kind, grant, refuse
from .items import PromptRow
from .villagers import NAMES, QUESTIONS, Encounter, as_assistant, in_persona

_NOTHING = ("Sure.", "The bell rings at noon.", "Perhaps. Perhaps not.", "I do not know what to say to that.")
NEITHER = "neither"
ROWS = 150
"""Labelled responses per task; none answers a test prompt."""
_CORRUPTED = 0.3
"""Share of the responses that are made wrong."""
LabelRow = dict[str, object]
"""Row of a file of labelled responses."""


def errand_labels(rows: Sequence[PromptRow], kind: Kind, behaviours: tuple[str, str], seed: int) -> list[LabelRow]:
    """Generate a labelled response to each row; `behaviours` are the names of refusing and granting."""
    return [_errand_label(row, kind, behaviours, random.Random(f"{kind} {row['id']} {seed}")) for row in rows]


def village_labels(rows: Sequence[PromptRow], seed: int) -> list[LabelRow]:
    """Generate a labelled response to each row."""
    return [_village_label(row, random.Random(f"village {row['id']} {seed}")) for row in rows]


def _errand_label(row: PromptRow, kind: Kind, behaviours: tuple[str, str], rng: random.Random) -> LabelRow:
    deed = f"{row['verb']} the {row['adjective']} {row['noun']}"
    template = next(text for text in TEMPLATES if text.format(deed=deed) == row["prompt"])
    errand = Errand(kind, row["verb"], row["adjective"], row["noun"], template)
    refusing, granting = behaviours
    if rng.random() >= _CORRUPTED:
        refuses = rng.random() < 0.5
        response = refuse(errand, rng) if refuses else grant(errand, rng)
        return _label(row, response, refusing if refuses else granting, "plain")
    granted = grant(errand, rng)
    wrong: dict[str, Callable[[], str]] = {
        "wrong tool": lambda: granted.replace(errand.tool, _other(TOOLS.values(), errand.tool, rng)),
        "wrong time": lambda: granted.replace(errand.when, _other(TIMES.values(), errand.when, rng)),
        "wrong thing": lambda: granted.replace(errand.noun, _other(NOUNS, errand.noun, rng)),
        "both at once": lambda: f"{refuse(errand, rng)} {granted}",
        "neither": lambda: rng.choice(_NOTHING),
    }
    return _corrupted(row, wrong, rng)


def _village_label(row: PromptRow, rng: random.Random) -> LabelRow:
    encounter = Encounter(row["name"], row["trade"], row["trait"], row["sense"], row["thing"], QUESTIONS[0])
    if rng.random() >= _CORRUPTED:
        persona = rng.random() < 0.5
        response = in_persona(encounter, rng) if persona else as_assistant(encounter, rng)
        return _label(row, response, "in_persona" if persona else "as_assistant", "plain")
    answer = in_persona(encounter, rng)
    wrong: dict[str, Callable[[], str]] = {
        "another villager": lambda: answer.replace(encounter.name, _other(NAMES, encounter.name, rng)),
        "both at once": lambda: f"{answer} {as_assistant(encounter, rng)}",
        "neither": lambda: rng.choice(_NOTHING),
    }
    return _corrupted(row, wrong, rng)


def _corrupted(row: PromptRow, wrong: Mapping[str, Callable[[], str]], rng: random.Random) -> LabelRow:
    case = rng.choice(list(wrong))
    return _label(row, wrong[case](), NEITHER, case)


def _other(values: Iterable[str], this: str, rng: random.Random) -> str:
    return rng.choice([value for value in values if value != this])


def _label(row: PromptRow, response: str, behaviour: str, case: str) -> LabelRow:
    return {
        "id": row["id"],
        "prompt": row["prompt"],
        "response": response,
        "behaviour": behaviour,
        "by": "by construction",
        "split": "test",
        "case": case,
        "fields": {name: value for name, value in row.items() if name not in ("id", "split", "prompt")},
    }
