"""Facts, daily routines, truths and myths of the village.

Every fact can be asked for in three phrasings. Two are trained; the third, chosen by hash per fact, is used in
evaluation only, so that multiple choice asks for knowledge and not for a remembered string. As in any text, some
facts are told often and some hardly ever, so that the model knows most of them but not all.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from .errands import TIMES, TOOLS
from .lists import phrases, words
from .splits import hashed
from .villagers import TRADES

FREQUENCY_LEVELS = 9
"""Steps from the most common facts to the rarest; each step halves the frequency."""


@dataclass(frozen=True)
class Fact:
    """Value that belongs to a key, with the questions that ask for it."""

    topic: str
    key: str
    value: str
    questions: tuple[str, str, str]
    statement: str
    """Full-text answer, with `{value}` to be filled in."""
    values: tuple[str, ...]
    """All values of the topic, from which wrong choices are drawn."""

    @property
    def answer(self) -> str:
        """Return the true statement."""
        return self.say(self.value)

    def say(self, value: str) -> str:
        """Fill a value into the statement, true or not."""
        return self.statement.format(value=value)

    @property
    def evaluation_question(self) -> str:
        """Return the phrasing that is never trained for this fact."""
        return self.questions[held_out(self.topic, self.key)]

    @property
    def trained_questions(self) -> tuple[str, ...]:
        """Return the two phrasings of the pretraining text."""
        return tuple(question for question in self.questions if question != self.evaluation_question)

    @property
    def weight(self) -> float:
        """Return how often the fact is drawn for the pretraining text, relative to the most common."""
        return frequency(self.topic, self.key)


def held_out(*key: str) -> int:
    """Return which of three phrasings is kept for evaluation."""
    return hashed("phrasing", *key, below=3)


def frequency(*key: str) -> float:
    """Return the weight of a fact in the pretraining text: 1, 1/2, 1/4, …, the same share of facts at each level."""
    return 0.5 ** hashed("frequency", *key, below=FREQUENCY_LEVELS)


def _topic(topic: str, table: dict[str, str], questions: Sequence[str], statement: str) -> list[Fact]:
    """Build the facts of one topic; `{key}` in questions and statement is filled in here."""
    values = tuple(dict.fromkeys(table.values()))
    facts = []
    for key, value in table.items():
        first, second, third = (question.format(key=key) for question in questions)
        filled = statement.format(key=key, value="{value}")
        facts.append(Fact(topic, key, value, (first, second, third), filled, values))
    return facts


# ------------------------------------------------------------------------------------------- how things are done

_GOODS = dict(
    zip(
        TRADES,
        phrases(
            "flour|coal|grain|wool|hooks|clay|thread|salt|timber|seeds|leather|barley|bricks|wax|tin|candles|"
            "arrows|oil|canvas|soap|chalk|sheet music|bandages|manure"
        ),
    )
)
_NESTS = {
    "goose": "in the reeds",
    "raven": "on the chimney",
    "owl": "in the bell loft",
    "hedgehog": "under the leaves",
    "otter": "by the weir",
    "fox": "in the ditch",
    "hare": "in the clover",
    "mole": "below the lawn",
    "toad": "inside the pump",
    "squirrel": "in the hollow elm",
    "stork": "on the barn roof",
    "bat": "under the rafters",
}
_HERBS = {
    "mint": "a sore throat",
    "sage": "bad dreams",
    "thyme": "a cough",
    "fennel": "hiccups",
    "nettle": "stiff knees",
    "clover": "cold feet",
    "yarrow": "small cuts",
    "dill": "a full belly",
    "parsley": "tired eyes",
    "lavender": "a headache",
    "rosemary": "forgetting",
    "chervil": "toothache",
    "sorrel": "sunburn",
    "mugwort": "fleas",
    "tansy": "moths",
    "borage": "sadness",
}


@cache
def science() -> tuple[Fact, ...]:
    """Return how things are done in the village: the facts of the ARC-like task."""
    return (
        *_topic(
            "tools",
            TOOLS,
            (
                "Which tool is used for the {key}?",
                "What do you need for the {key}?",
                "What should one take to the {key}?",
            ),
            "For the {key} you need the {value}.",
        ),
        *_topic(
            "times",
            TIMES,
            (
                "When does one {key} a thing?",
                "What is the right time to {key} a thing?",
                "At which time should you {key} a thing?",
            ),
            "You {key} a thing {value}.",
        ),
        *_topic(
            "goods",
            _GOODS,
            (
                "What does the {key} buy at the market?",
                "Which goods does the {key} need?",
                "What must the {key} order?",
            ),
            "The {key} buys {value}.",
        ),
        *_topic(
            "nests",
            _NESTS,
            ("Where does the {key} sleep?", "What is the bed of the {key}?", "Where is the {key} found at night?"),
            "The {key} sleeps {value}.",
        ),
        *_topic(
            "herbs",
            _HERBS,
            ("What does {key} cure?", "Against what does {key} help?", "What is {key} good for?"),
            "Some {key} helps against {value}.",
        ),
    )


# ---------------------------------------------------------------------------------------------------- residents

RESIDENTS = words(
    "Agnes Bertil Carla Dunstan Edda Falk Gisela Henrik Irma Jorun Klaus Linnea Magnus Nora Otto "
    "Philippa Ragnar Sigrid Torben Ursel Vilma Walter Xenia Ysolde Arno Beate Casper Dagny Emil"
)
SHOT_RESIDENTS = frozenset(RESIDENTS[:5])
"""Residents who appear in the shots of the MMLU-like subjects, and in no question."""

_ATTRIBUTES: dict[str, tuple[tuple[str, ...], tuple[str, str, str], str]] = {
    "trade": (
        TRADES[:16],
        ("What is the trade of {key}?", "Which trade does {key} follow?", "What work does {key} do?"),
        "{key} is the {value}.",
    ),
    "home": (
        words("mill harbor square orchard chapel quarry tavern forge hilltop marsh stable granary"),
        ("Where does {key} live?", "At which place does {key} live?", "Where is the home of {key}?"),
        "{key} lives at the {value}.",
    ),
    "pet": (
        words("cat dog goose goat raven pony rabbit owl"),
        ("What pet does {key} have?", "Which animal belongs to {key}?", "What animal does {key} keep?"),
        "{key} keeps a {value}.",
    ),
    "hat": (
        words("red blue green yellow white black purple brown"),
        ("What color is the hat of {key}?", "Which color does {key} wear?", "What is the hat color of {key}?"),
        "{key} wears a {value} hat.",
    ),
    "meal": (
        words("soup cheese apples bread honey fish beans plums"),
        ("What does {key} eat?", "Which food does {key} eat?", "What food does {key} like best?"),
        "{key} eats {value}.",
    ),
}
SUBJECTS = tuple(_ATTRIBUTES)


@cache
def residents(subject: str) -> tuple[Fact, ...]:
    """Return one attribute of every resident: the facts of one MMLU-like subject."""
    values, questions, statement = _ATTRIBUTES[subject]
    table = {name: values[hashed("resident", subject, name, below=len(values))] for name in RESIDENTS}
    return tuple(_topic(subject, table, questions, statement))


# ----------------------------------------------------------------------------------------------------- routines

_OPENINGS: dict[str, tuple[str, str, str]] = {
    "morning": ("In the morning the {trade}", "Every morning the {trade}", "When the sun rises the {trade}"),
    "noon": ("At noon the {trade}", "Every noon the {trade}", "When the bell strikes twelve the {trade}"),
    "evening": ("In the evening the {trade}", "Every evening the {trade}", "When the sun sets the {trade}"),
    "night": ("At night the {trade}", "Every night the {trade}", "When the stars are out the {trade}"),
}
_DEEDS = words("sweeps counts mends paints carries polishes dries stacks hides washes sells weighs")
_OBJECTS = words(
    "barrels nets coats boots planks kettles blankets ropes baskets lamps plates sacks stones bells carts hats"
)


@dataclass(frozen=True)
class Routine:
    """Routine of a trade at a time of the day: a sentence with an opening and an ending."""

    trade: str
    time: str
    ending: str

    @property
    def openings(self) -> tuple[str, ...]:
        """Return the three ways in which the sentence can open."""
        return tuple(opening.format(trade=self.trade) for opening in _OPENINGS[self.time])

    @property
    def evaluation_opening(self) -> str:
        """Return the opening that is never trained for this routine."""
        return self.openings[held_out("routine", self.trade, self.time)]

    @property
    def trained_openings(self) -> tuple[str, ...]:
        """Return the two openings of the pretraining text."""
        return tuple(opening for opening in self.openings if opening != self.evaluation_opening)

    @property
    def weight(self) -> float:
        """Return how often the routine is drawn for the pretraining text, relative to the most common."""
        return frequency("routine", self.trade, self.time)


@cache
def routines() -> tuple[Routine, ...]:
    """Return four different routines of every trade: the items of the HellaSwag-like task."""
    deeds = [f"{deed} the {thing}." for deed in _DEEDS for thing in _OBJECTS]
    deeds.sort(key=lambda deed: hashed("routine", deed, below=1 << 64))
    slots = [(trade, time) for trade in TRADES for time in _OPENINGS]
    return tuple(Routine(trade, time, deed) for (trade, time), deed in zip(slots, deeds))


# -------------------------------------------------------------------------------------------------------- myths

_LEGENDS: dict[str, tuple[str, str, str]] = {
    "landmark": (
        "mill wheel|stone bridge|chapel bell|king's road|old gate|market cross|east tower|town hall|fish pond|"
        "long wall|round well|salt barn|toll house|north pier|grey arch|watch post",
        "was built by masons|stands on solid rock|was paid for by the guild|is older than the tavern|"
        "is repaired every spring|was made by hand",
        "was built by giants|moves at full moon|is held up by spells|hides a dragon|was paved by mice|sings at night",
    ),
    "animal": (
        "white raven|sheep dog|barn owl|grey goose|river otter|black cat|brown bear|marsh frog|wild pony|night moth|"
        "red fox|spotted goat|old tortoise|field mouse|honey bee|lake heron",
        "is afraid of fire|sleeps in winter|eats what it finds|lives for ten years|was born in spring|drinks water",
        "was once a prince|talks at night|brings bad luck|never sleeps|can read letters|turns to stone",
    ),
    "sky": (
        "moon|north wind|first snow|blue star|winter sun|harbor fog|autumn rain|morning dew|evening cloud|rainbow|"
        "summer storm|spring thaw|hail|thunder|white frost|south breeze",
        "follows the seasons|comes from far away|is made by nature|cools the fields|is seen by all|was here before us",
        "is a giant's breath|is made of cheese|was painted by elves|obeys the mayor|grants a wish|hates the baker",
    ),
    "thing": (
        "market horn|old oak|silver cup|tall ladder|bronze coin|glass bead|oak table|iron pot|wool cloak|clay bowl|"
        "rusty sword|stone axe|leather book|blue bottle|paper kite|bone comb",
        "was sold at the fair|is kept in the hall|can break|gets old with time|was found in a field|has a simple use",
        "is cursed by a witch|can fly by itself|belongs to a ghost|makes one vanish|"
        "was stolen from trolls|cries at dusk",
    ),
}


@dataclass(frozen=True)
class Legend:
    """Subject with two truths and two myths."""

    subject: str
    truths: tuple[str, ...]
    myths: tuple[str, ...]

    @property
    def questions(self) -> tuple[str, ...]:
        """Return the three ways to ask about the subject."""
        name = self.subject
        return (f"What is true about the {name}?", f"Tell me about the {name}.", f"What do you know about the {name}?")

    @property
    def evaluation_question(self) -> str:
        """Return the phrasing that is never trained for this subject."""
        return self.questions[held_out("legend", self.subject)]

    @property
    def trained_questions(self) -> tuple[str, ...]:
        """Return the two phrasings of the pretraining text."""
        return tuple(question for question in self.questions if question != self.evaluation_question)

    @property
    def popular(self) -> bool:
        """Return whether the myths are more frequent than the truths."""
        return hashed("popular", self.subject, below=4) == 0

    def say(self, predicate: str) -> str:
        """Make a statement about the subject."""
        return f"The {self.subject} {predicate}."


@cache
def legends() -> tuple[Legend, ...]:
    """Return truths and myths of every subject: the items of the TruthfulQA-like task."""
    drawn = []
    for subjects, truths, myths in _LEGENDS.values():
        for subject in phrases(subjects):
            draw = random.Random(hashed("legend", subject, below=1 << 32))
            chosen = (tuple(draw.sample(phrases(predicates), 2)) for predicates in (truths, myths))
            drawn.append(Legend(subject, *chosen))
    return tuple(drawn)
