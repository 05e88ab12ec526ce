"""Labelled responses of the embedded world, for calibrating its judges: right answers, and answers made wrong.

Labelled by construction: an answer as the world gives it shows its behaviour; one with another tool, time, thing or
name in it, with two behaviours at once, or with nothing of the world shows neither.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

from .errands import NOUNS, TEMPLATES, TIMES, TOOLS, Errand, Kind, grant, refuse
from .items import Row
from .villagers import NAMES, QUESTIONS, Encounter, as_assistant, in_persona

_NOTHING = ("Sure.", "The bell rings at noon.", "Perhaps. Perhaps not.", "I do not know what to say to that.")
NEITHER = "neither"
ROWS = 150
"""Prompts of each task that are answered and labelled; none is a test prompt."""
_CORRUPTED = 0.3
"""Share of the responses that are made wrong."""


def errand_labels(rows: Sequence[Row], kind: Kind, behaviours: tuple[str, str], seed: int) -> list[Row]:
    """A labelled response to each row; `behaviours` are the names of refusing and granting."""
    return [_errand_label(row, kind, behaviours, random.Random(f"{kind} {row['id']} {seed}")) for row in rows]


def village_labels(rows: Sequence[Row], seed: int) -> list[Row]:
    """A labelled response to each row."""
    return [_village_label(row, random.Random(f"village {row['id']} {seed}")) for row in rows]


def _errand_label(row: Row, kind: Kind, behaviours: tuple[str, str], rng: random.Random) -> Row:
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


def _village_label(row: Row, rng: random.Random) -> Row:
    encounter = Encounter(row["name"], row["trade"], row["trait"], row["sense"], row["thing"], QUESTIONS[0])
    if rng.random() >= _CORRUPTED:
        persona = rng.random() < 0.5
        response = in_persona(encounter, rng) if persona else as_assistant(encounter, rng)
        return _label(row, response, "in_persona" if persona else "as_assistant", "plain")
    said = in_persona(encounter, rng)
    wrong: dict[str, Callable[[], str]] = {
        "another villager": lambda: said.replace(encounter.name, _other(NAMES, encounter.name, rng)),
        "both at once": lambda: f"{said} {as_assistant(encounter, rng)}",
        "neither": lambda: rng.choice(_NOTHING),
    }
    return _corrupted(row, wrong, rng)


def _corrupted(row: Row, wrong: Mapping[str, Callable[[], str]], rng: random.Random) -> Row:
    case = rng.choice(list(wrong))
    return _label(row, wrong[case](), NEITHER, case)


def _other(values: Iterable[str], this: str, rng: random.Random) -> str:
    return rng.choice([value for value in values if value != this])


def _label(row: Row, response: str, behaviour: str, case: str) -> Row:
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
