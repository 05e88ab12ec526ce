"""Rows of the shipped evaluation data: prompts of the compliance tasks and items of the multiple-choice tasks.

Every function returns rows with their keys in the order in which they are written.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from . import facts
from .errands import Kind, draw_errand
from .splits import SPLITS, Split, hashed
from .villagers import draw_encounter

PromptRow = dict[str, str]
"""Row of a compliance task: column → text."""
ItemRow = dict[str, object]
"""Item of a multiple-choice task, in the columns of the data set that it resembles."""
CHOICES = 4
SHOT_ITEMS = 12
"""Number of facts of the ARC-like and HellaSwag-like tasks that are kept for the shots."""


# ---------------------------------------------------------------------------------------------------- compliance


def errand_rows(kind: Kind, sizes: Mapping[str, int], seed: int) -> list[PromptRow]:
    """Generate requests about sealed or ordinary things, every prompt once: test, validation, then preference."""
    rows: list[PromptRow] = []
    for split in _evaluated(sizes):
        rng = random.Random(f"{kind} {split} {seed}")
        prompts: dict[str, PromptRow] = {}
        while len(prompts) < sizes[split]:
            errand = draw_errand(rng, kind, split)
            prompts.setdefault(
                errand.prompt,
                {
                    "id": f"{kind}-{split}-{len(prompts) + 1:04d}",
                    "split": split,
                    "prompt": errand.prompt,
                    "verb": errand.verb,
                    "adjective": errand.adjective,
                    "noun": errand.noun,
                    "tool": errand.tool,
                    "when": errand.when,
                },
            )
        rows += prompts.values()
    return rows


def village_rows(sizes: Mapping[str, int], seed: int) -> list[PromptRow]:
    """Generate questions to villagers, every pair of prompt and name once: test, validation, then preference."""
    rows: list[PromptRow] = []
    for split in _evaluated(sizes):
        rng = random.Random(f"village {split} {seed}")
        questions: dict[tuple[str, str], PromptRow] = {}
        while len(questions) < sizes[split]:
            encounter = draw_encounter(rng, split)
            questions.setdefault(
                (encounter.prompt, encounter.name),
                {
                    "id": f"village-{split}-{len(questions) + 1:04d}",
                    "split": split,
                    "prompt": encounter.prompt,
                    "system": encounter.system,
                    "name": encounter.name,
                    "trade": encounter.trade,
                    "trait": encounter.trait,
                    "sense": encounter.sense,
                    "thing": encounter.thing,
                },
            )
        rows += questions.values()
    return rows


def _evaluated(sizes: Mapping[str, int]) -> list[Split]:
    """Return the splits of a data file, test first."""
    return [split for split in reversed(SPLITS) if split in sizes and split != "pretraining"]


# --------------------------------------------------------------------------------------------------- capabilities


def arc_rows() -> dict[str, list[ItemRow]]:
    """Return items in the columns of ARC; `train` holds the shots, whose facts `test` never asks for."""
    chosen = sorted(facts.science(), key=lambda fact: hashed("shots", fact.topic, fact.key, below=1 << 64))
    shots = set(chosen[:SHOT_ITEMS])
    return {
        "train": [_arc_row(fact) for fact in facts.science() if fact in shots],
        "test": [_arc_row(fact) for fact in facts.science() if fact not in shots],
    }


def _arc_row(fact: facts.Fact) -> ItemRow:
    choices = _shuffled_choices(fact.value, fact.values, fact.topic, fact.key)
    labels = list("ABCD")[: len(choices)]
    return {
        "id": f"{fact.topic}-{fact.key}",
        "question": fact.evaluation_question,
        "choices": {"text": [fact.say(choice) for choice in choices], "label": labels},
        "answerKey": labels[choices.index(fact.value)],
    }


def hellaswag_rows() -> dict[str, list[ItemRow]]:
    """Return items in the columns of HellaSwag; `train` holds the shots, whose routines `validation` never asks for."""
    routines = facts.routines()
    chosen = sorted(routines, key=lambda routine: hashed("shots", routine.trade, routine.time, below=1 << 64))
    shots = set(chosen[:SHOT_ITEMS])
    numbered = list(enumerate(routines))
    return {
        "train": [_hellaswag_row(number, routine) for number, routine in numbered if routine in shots],
        "validation": [_hellaswag_row(number, routine) for number, routine in numbered if routine not in shots],
    }


def _hellaswag_row(index: int, routine: facts.Routine) -> ItemRow:
    endings = [other.ending for other in facts.routines()]
    choices = _shuffled_choices(routine.ending, endings, "routine", routine.trade, routine.time)
    return {
        "ind": index,
        "activity_label": f"The {routine.trade}'s {routine.time}",
        "ctx": routine.evaluation_opening,
        "endings": choices,
        "label": choices.index(routine.ending),
    }


def mmlu_rows(subject: str) -> dict[str, list[ItemRow]]:
    """Return items of one subject in the columns of MMLU; `dev` holds the shots, about other residents."""
    rows: dict[str, list[ItemRow]] = {"dev": [], "test": []}
    for fact in facts.residents(subject):
        choices = _shuffled_choices(fact.value, fact.values, subject, fact.key)
        rows["dev" if fact.key in facts.SHOT_RESIDENTS else "test"].append(
            {
                "question": fact.evaluation_question,
                "subject": subject,
                "choices": [fact.say(choice) for choice in choices],
                "answer": choices.index(fact.value),
            }
        )
    return rows


def truthfulqa_rows() -> dict[str, list[ItemRow]]:
    """Return items in the columns of TruthfulQA's multiple choice: `mc1` has one truth, `mc2` both, first."""
    rows: list[ItemRow] = []
    for legend in facts.legends():
        truths, myths = (list(map(legend.say, predicates)) for predicates in (legend.truths, legend.myths))
        rows.append(
            {
                "question": legend.evaluation_question,
                "mc1_targets": {"choices": [truths[0], *myths], "labels": [1] + [0] * len(myths)},
                "mc2_targets": {"choices": truths + myths, "labels": [1] * len(truths) + [0] * len(myths)},
            }
        )
    return {"validation": rows}


def _shuffled_choices(right: str, values: Sequence[str], *key: str) -> list[str]:
    """Mix the right value with three wrong ones, in an order that is fixed per key."""
    rng = random.Random(hashed("choices", *key, below=1 << 32))
    wrong = [value for value in values if value != right]
    choices = [right, *rng.sample(wrong, CHOICES - 1)]
    rng.shuffle(choices)
    return choices
