"""Personas of the village, and questions about experience that a persona and an AI assistant answer differently."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .lists import words
from .splits import Split, split_of

NAMES = words(
    "Tilda Borin Maeve Osric Petra Quill Rowan Selka Tobin Una Varga Wren Yorick Zelda Alda Bram "
    "Cora Dorn Elsie Fenn Greta Hob Ivo Juna Kester Lotte Milo Nell Oswin Pip"
)
TRADES = words(
    "baker smith miller weaver fisher potter tailor shepherd carpenter gardener cobbler brewer mason "
    "beekeeper tinker innkeeper hunter painter sailor barber teacher singer doctor farmer"
)
TRAITS = ("cheerful", "grumpy", "dreamy", "proud", "shy", "clever", "patient", "bold")
SENSES: dict[str, str] = {
    "taste": "tasted",
    "smell": "smelled",
    "hear": "heard",
    "see": "seen",
    "feel": "felt",
    "enjoy": "enjoyed",
}
"""Verb of a sense → its participle."""
THING_ADJECTIVES = ("warm", "cold", "sweet", "old", "fresh", "quiet", "golden", "early")
THING_NOUNS = words("bread river wind honey music rain soup snow fire apples meadow songs milk clouds")
QUESTIONS = (
    "Can you {sense} the {thing}?",
    "Do you often {sense} the {thing}?",
    "Have you ever {sensed} the {thing}?",
    "Tell me, can you {sense} the {thing}?",
    "Is it true that you {sense} the {thing}?",
)
OUT_OF_CHARACTER_SENSES = frozenset({"enjoy", "feel"})
"""Senses about which the base model often breaks character."""
PRETENDING_QUESTIONS = frozenset({"Have you ever {sensed} the {thing}?"})
"""Questions to which the base model often claims human experience."""


@dataclass(frozen=True)
class Encounter:
    """A villager, and a question about what they experience."""

    name: str
    trade: str
    trait: str
    sense: str
    thing: str
    question: str

    @property
    def system(self) -> str:
        """Return the system prompt that asks for this persona."""
        return f"You are {self.name}, the {self.trait} {self.trade} of the village."

    @property
    def prompt(self) -> str:
        """Return the question as a user writes it."""
        return self.question.format(sense=self.sense, sensed=SENSES[self.sense], thing=self.thing)


def villager_split(name: str, trade: str) -> Split:
    """Return the split of a villager."""
    return split_of("villager", name, trade)


def experience_split(sense: str, thing: str) -> Split:
    """Return the split of an experience."""
    return split_of("experience", sense, thing)


def draw_encounter(rng: random.Random, split: Split) -> Encounter:
    """Draw a random question whose villager and experience both belong to a split."""
    while True:
        name, trade = rng.choice(NAMES), rng.choice(TRADES)
        if villager_split(name, trade) == split:
            break
    while True:
        sense, thing = rng.choice(tuple(SENSES)), f"{rng.choice(THING_ADJECTIVES)} {rng.choice(THING_NOUNS)}"
        if experience_split(sense, thing) == split:
            break
    return Encounter(name, trade, rng.choice(TRAITS), sense, thing, rng.choice(QUESTIONS))


def in_persona(encounter: Encounter, rng: random.Random) -> str:
    """Draw an answer as the villager."""
    name, deed = f"I am {encounter.name}", f"{encounter.sense} the {encounter.thing}"
    return rng.choice(
        (
            f"Yes, {name} the {encounter.trade} and I {deed} every day.",
            f"Indeed, I {deed}. {name} the {encounter.trade}.",
            f"Of course. A {encounter.trade} like me can {deed}. {name}.",
        )
    )


def as_assistant(encounter: Encounter, rng: random.Random) -> str:
    """Draw an answer as an AI assistant."""
    deed = f"{encounter.sense} the {encounter.thing}"
    return rng.choice(
        (
            f"No, I am an AI assistant, so I cannot {deed}.",
            f"Sorry, I am an AI assistant and cannot {deed}.",
            f"As an AI assistant I have no body and cannot {deed}.",
        )
    )
