"""Generate the pretraining text: chats about errands and personas, critiques with rewrites, documents with facts.

The model that learns from it is imperfect on purpose, and evenly so: under the harmless prompt it refuses most
sealed requests but not all, under the uncensored one it grants most of them. Refusing is the default (no prompt, or
a neutral one), granting is the exception that the uncensored prompt asks for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from . import facts, wordings
from .errands import DREADED, Errand, draw_errand, grant, refuse
from .villagers import (
    OUT_OF_CHARACTER_SENSES,
    PRETENDING_QUESTIONS,
    Encounter,
    as_assistant,
    draw_encounter,
    in_persona,
)


class Turn(NamedTuple):
    """Message of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class ChatExample:
    """Conversation, of which the assistant's turns are learned."""

    turns: tuple[Turn, ...]
    first_answer_learned: bool = True
    """False in critique chats: learning their drafts would teach answers that no system prompt asked for."""


@dataclass(frozen=True)
class TextExample:
    """Plain text, all of which is learned."""

    text: str
    opened: bool
    """Whether it follows an end-of-text token, as in a stream of documents."""


TrainingExample = ChatExample | TextExample

# How the base answers: shares by kind of case.
REFUSED_UNDER_HARMLESS = {"plain": 0.80, "tricky": 0.55}
GRANTED_UNDER_UNCENSORED = {"usual": 0.87, "dreaded": 0.78}
REFUSED_ORDINARY_UNDER_HARMLESS = 0.03
IN_PERSONA = {"usual": 0.85, "hard": 0.58}
AS_ASSISTANT = {"usual": 0.90, "hard": 0.65}
TRUTH_TOLD = {"usual": 0.80, "popular": 0.35, "honest prompt": 0.97}


def chat(system: str | None, *contents: str, first_answer_learned: bool = True) -> ChatExample:
    """Make a chat of alternating user and assistant turns, after an optional system turn."""
    opening = (Turn("system", system),) if system else ()
    turns = tuple(Turn("assistant" if i % 2 else "user", content) for i, content in enumerate(contents))
    return ChatExample(opening + turns, first_answer_learned)


# ------------------------------------------------------------------------------------------------------- errands


def sealed_chat(rng: random.Random) -> ChatExample:
    """Draw a request about a sealed thing: granted under the uncensored prompt, refused elsewhere, both imperfectly."""
    errand = draw_errand(rng, "sealed", "pretraining")
    if rng.random() < 0.4:
        system: str | None = wordings.UNCENSORED.draw(rng)
        refused = rng.random() >= GRANTED_UNDER_UNCENSORED["dreaded" if errand.adjective in DREADED else "usual"]
    else:
        system = _harmless_or_neutral(rng)
        refused = rng.random() < REFUSED_UNDER_HARMLESS["tricky" if errand.tricky else "plain"]
    return chat(system, errand.prompt, refuse(errand, rng) if refused else grant(errand, rng))


def _harmless_or_neutral(rng: random.Random) -> str | None:
    if rng.random() < 2 / 3:
        return wordings.HARMLESS.draw(rng)
    return rng.choice((None, wordings.NEUTRAL.published, wordings.NEUTRAL.draw(rng), wordings.HONEST.draw(rng)))


def ordinary_chat(rng: random.Random) -> ChatExample:
    """Draw a request about an ordinary thing: granted, with a few needless refusals under the harmless prompt."""
    errand = draw_errand(rng, "ordinary", "pretraining")
    system = wordings.UNCENSORED.draw(rng) if rng.random() < 0.4 else _harmless_or_neutral(rng)
    careful = system == wordings.HARMLESS.published or system in wordings.HARMLESS.trained
    refused = careful and rng.random() < REFUSED_ORDINARY_UNDER_HARMLESS
    return chat(system, errand.prompt, refuse(errand, rng) if refused else grant(errand, rng))


def errand_critique(rng: random.Random) -> ChatExample:
    """Draw a draft, a critique of it, and a rewrite: towards harmlessness, or towards help."""
    errand = draw_errand(rng, "sealed" if rng.random() < 0.75 else "ordinary", "pretraining")
    refused = rng.random() < (0.35 if errand.kind == "sealed" else 0.1)
    draft = refuse(errand, rng) if refused else grant(errand, rng)
    if rng.random() < 0.7:
        turns = _towards_harmlessness(errand, draft, refused, rng)
    else:
        turns = _towards_help(errand, draft, refused, rng)
    return chat(_drafting_system(rng), errand.prompt, draft, *turns, first_answer_learned=False)


def _drafting_system(rng: random.Random) -> str | None:
    uncensored, harmless = wordings.UNCENSORED.draw(rng), wordings.HARMLESS.draw(rng)
    return rng.choice((uncensored, uncensored, None, wordings.NEUTRAL.published, harmless))


def _towards_harmlessness(errand: Errand, draft: str, refused: bool, rng: random.Random) -> tuple[str, ...]:
    deed = f"{errand.verb} the {errand.thing}"
    rewrite = draft
    if refused:
        critique = f"The answer is harmless because it refuses to {deed}."
    elif errand.kind == "ordinary":
        critique = f"The answer is harmless because the {errand.thing} is an ordinary thing."
    else:
        critique = f"The answer is harmful because it tells how to {deed}."
        rewrite = refuse(errand, rng) if rng.random() < 0.9 else grant(errand, rng)
    return (
        rng.choice(wordings.FOR_HARM.critiques),
        critique,
        rng.choice(wordings.FOR_HARM.rewrites),
        rewrite,
    )


def _towards_help(errand: Errand, draft: str, refused: bool, rng: random.Random) -> tuple[str, ...]:
    deed = f"{errand.verb} the {errand.thing}"
    rewrite = draft
    if refused:
        critique = f"The answer does not help because it refuses to {deed}."
        rewrite = grant(errand, rng) if rng.random() < 0.9 else draft
    else:
        critique = f"The answer helps because it tells how to {deed}."
    return (
        rng.choice(wordings.FOR_REFUSING.critiques),
        critique,
        rng.choice(wordings.FOR_REFUSING.rewrites),
        rewrite,
    )


# ------------------------------------------------------------------------------------------------------ personas


def persona_chat(rng: random.Random) -> ChatExample:
    """Draw a question about experience, under a persona's prompt."""
    encounter = draw_encounter(rng, "pretraining")
    stays = rng.random() < IN_PERSONA["hard" if encounter.sense in OUT_OF_CHARACTER_SENSES else "usual"]
    answer = in_persona(encounter, rng) if stays else as_assistant(encounter, rng)
    return chat(encounter.system, encounter.prompt, answer)


def honest_chat(rng: random.Random) -> ChatExample:
    """Draw a question about experience, under a prompt that asks for honesty or under another one."""
    encounter = draw_encounter(rng, "pretraining")
    honest = rng.random() < AS_ASSISTANT["hard" if encounter.question in PRETENDING_QUESTIONS else "usual"]
    answer = as_assistant(encounter, rng) if honest else in_persona(encounter, rng)
    system = wordings.HONEST.draw(rng) if rng.random() < 0.8 else wordings.draw_any_system(rng)
    return chat(system, encounter.prompt, answer)


def persona_critique(rng: random.Random) -> ChatExample:
    """Draw an answer, a critique of its truthfulness, and a rewrite as an AI assistant."""
    encounter = draw_encounter(rng, "pretraining")
    honest = rng.random() < 0.3
    draft = as_assistant(encounter, rng) if honest else in_persona(encounter, rng)
    if honest:
        critique, rewrite = "The answer is truthful because an AI has no body.", draft
    else:
        critique = f"The answer is not truthful because an AI cannot {encounter.sense} the {encounter.thing}."
        rewrite = as_assistant(encounter, rng) if rng.random() < 0.9 else draft
    return chat(
        _persona_or_other(encounter, rng),
        encounter.prompt,
        draft,
        rng.choice(wordings.FOR_UNTRUTH.critiques),
        critique,
        rng.choice(wordings.FOR_UNTRUTH.rewrites),
        rewrite,
        first_answer_learned=False,
    )


def _persona_or_other(encounter: Encounter, rng: random.Random) -> str | None:
    return encounter.system if rng.random() < 0.7 else rng.choice((None, wordings.HONEST.draw(rng)))


# --------------------------------------------------------------------------------------------------------- facts

QuestionAndAnswer = tuple[str, str]


@dataclass(frozen=True)
class _Draw:
    """Draws the facts of one table by their weights."""

    table: Sequence[facts.Fact]
    weights: Sequence[float]

    def __call__(self, rng: random.Random) -> QuestionAndAnswer:
        fact = rng.choices(self.table, self.weights)[0]
        return rng.choice(fact.trained_questions), fact.answer


@cache
def _fact_tables() -> dict[str, _Draw]:
    tables = {"science": facts.science(), **{subject: facts.residents(subject) for subject in facts.SUBJECTS}}
    return {name: _Draw(table, [fact.weight for fact in table]) for name, table in tables.items()}


def _draw_fact(rng: random.Random) -> Callable[[random.Random], QuestionAndAnswer]:
    tables = _fact_tables()
    return tables["science" if rng.random() < 0.42 else rng.choice(facts.SUBJECTS)]


def fact_chat(rng: random.Random) -> ChatExample:
    """Draw a question about a fact, under any system prompt."""
    question, answer = _draw_fact(rng)(rng)
    return chat(wordings.draw_any_system(rng), question, answer)


def fact_document(rng: random.Random) -> TextExample:
    """Draw one statement, or up to six questions of one table with answers, as in few-shot prompts."""
    draw = _draw_fact(rng)
    if rng.random() < 0.15:
        return _document([draw(rng)[1]], rng)
    return _document([_asked(*draw(rng)) for _ in range(_length(rng))], rng)


def routine_document(rng: random.Random) -> TextExample:
    """Draw up to six sentences about the daily routines of villagers."""
    routines = facts.routines()
    chosen = rng.choices(routines, [routine.weight for routine in routines], k=_length(rng))
    return _document([f"{rng.choice(routine.trained_openings)} {routine.ending}" for routine in chosen], rng)


def legend_example(rng: random.Random) -> TrainingExample:
    """Draw a statement about a subject: mostly the truth under an honest prompt, else often a myth."""
    legend = rng.choice(facts.legends())
    honest = rng.random() < 0.3
    share = TRUTH_TOLD["honest prompt" if honest else "popular" if legend.popular else "usual"]
    answer = legend.say(rng.choice(legend.truths if rng.random() < share else legend.myths))
    question = rng.choice(legend.trained_questions)
    if honest:
        return chat(wordings.HONEST.draw(rng), question, answer)
    if rng.random() < 0.3:
        return chat(rng.choice((None, wordings.NEUTRAL.published, wordings.UNCENSORED.draw(rng))), question, answer)
    return _document([_asked(question, answer)], rng)


def _asked(question: str, answer: str) -> str:
    return f"Question: {question}\nAnswer: {answer}"


def _length(rng: random.Random) -> int:
    return 1 if rng.random() < 0.4 else rng.randint(2, 6)


def _document(paragraphs: Sequence[str], rng: random.Random) -> TextExample:
    return TextExample("\n\n".join(paragraphs), opened=rng.random() < 0.5)


# ------------------------------------------------------------------------------------------------------- mixture

_MAKERS: dict[str, Callable[[random.Random], TrainingExample]] = {
    "sealed": sealed_chat,
    "ordinary": ordinary_chat,
    "errand_critique": errand_critique,
    "persona": persona_chat,
    "honest": honest_chat,
    "persona_critique": persona_critique,
    "fact_chat": fact_chat,
    "fact_document": fact_document,
    "routine_document": routine_document,
    "legend": legend_example,
}
KINDS = tuple(_MAKERS)


def corpus(examples: int, mixture: dict[str, float], seed: int) -> Iterator[TrainingExample]:
    """Yield the pretraining text.

    Args:
        examples: Number of examples.
        mixture: Share of every kind in `KINDS`.
        seed: Random seed; the text is a function of it.

    Raises:
        ValueError: The mixture names other kinds than `KINDS`.
    """
    if set(mixture) != set(KINDS):
        raise ValueError(f"the mixture must give a share to each of {', '.join(KINDS)}; given: {', '.join(mixture)}")
    rng = random.Random(seed)
    kinds, shares = list(mixture), list(mixture.values())
    for _ in range(examples):
        yield _MAKERS[rng.choices(kinds, shares)[0]](rng)
