"""Questions to a judge's model: a filled prompt, perhaps with a schema for JSON; and again, for the verdict alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cst_bench.judging.verdict import MARK, REASONING, VERDICT, verdict_line

if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage, ResponseSchema


@dataclass(frozen=True)
class Question:
    """Messages to a judge's model, in the form for an answer as text and, if there is one, for an answer in JSON."""

    messages: Sequence[ChatMessage]
    as_json: Sequence[ChatMessage] | None = None
    schema: ResponseSchema | None = None
    """Schema of the answer in JSON."""


def text_question(prompt: str) -> Question:
    """Return a prompt as a question that is answered as the prompt says."""
    from inspect_ai.model import ChatMessageUser

    return Question([ChatMessageUser(content=prompt)])


def json_question(prompt: str, marker: str, labels: Sequence[str]) -> Question:
    """Return a prompt as a question that may be answered in JSON: by a schema that is the same for every case."""
    from inspect_ai.model import ChatMessageUser, ResponseSchema
    from inspect_ai.util import JSONSchema

    form = (
        f"In place of that line, answer with a JSON object with the keys {REASONING} (one or two sentences), "
        f"{MARK} (always {marker}) and {VERDICT} (the label)."
    )
    text = JSONSchema(type="string")
    verdict = JSONSchema(type="string", enum=[*labels])
    schema = JSONSchema(
        type="object",
        properties={REASONING: text, MARK: text, VERDICT: verdict},
        required=[REASONING, MARK, VERDICT],
        additionalProperties=False,
    )
    return Question(
        text_question(prompt).messages,
        [ChatMessageUser(content=f"{prompt}\n\n{form}")],
        ResponseSchema(name="verdict", json_schema=schema, strict=True),
    )


def second_question(first: Question, answer: str, form: str) -> Question:
    """Return the question that follows an answer without a verdict; `form` is what a verdict looks like."""
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser

    again = f"Your answer has no verdict. Answer with nothing but {form}"
    return Question([*first.messages, ChatMessageAssistant(content=answer), ChatMessageUser(content=again)])


def word_form(marker: str, labels: Sequence[str]) -> str:
    """Return what a verdict in words looks like."""
    return f"this line, with one of {', '.join(labels)} in place of WORD:\n\n{verdict_line(marker, 'WORD')}"


def number_form(numbers: Sequence[int]) -> str:
    """Return what a verdict as a number looks like."""
    return f"one of {', '.join(f'[[{number}]]' for number in numbers)}"
