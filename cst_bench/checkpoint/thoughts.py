"""Thoughts of reasoning models: the markers around them, and the answer that is left without them.

A judge is shown the answer alone, so that a model scores the same whether its server separates thoughts or not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cst_bench.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CUT_OFF_THOUGHT = "no answer: the response was cut off within its thought"
ONLY_THOUGHTS = "no answer: the response is only a thought"
DEFAULT_MAX_THINK_TOKENS = 4096
"""Most tokens of a local checkpoint's thought, unless `--max-think-tokens` gives another number."""


class ThinkTokens(NamedTuple):
    """Markers that a thought begins and ends with."""

    open: str
    close: str


DEFAULT_THINK_TOKENS = ThinkTokens("<think>", "</think>")
"""Markers of Qwen 3, DeepSeek R1 and most others; Inspect splits off the same for OpenAI-compatible servers."""
KNOWN_THINK_TOKENS = (
    DEFAULT_THINK_TOKENS,
    ThinkTokens("[THINK]", "[/THINK]"),
    ThinkTokens("<seed:think>", "</seed:think>"),
    ThinkTokens("<thinking>", "</thinking>"),
    ThinkTokens("<thought>", "</thought>"),
    ThinkTokens("<reasoning>", "</reasoning>"),
    ThinkTokens("<|START_THINKING|>", "<|END_THINKING|>"),
    ThinkTokens("<|begin_of_thought|>", "<|end_of_thought|>"),
    ThinkTokens("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
"""Markers that are recognized in a chat template or among a tokenizer's added tokens."""


@dataclass(frozen=True)
class Thinking:
    """How thoughts in responses are dealt with, beyond what the model's provider does by itself."""

    tokens: ThinkTokens = DEFAULT_THINK_TOKENS
    """Markers of thoughts that are still in the text."""
    more_tokens: int = 0
    """Tokens to add to those of an answer, where the provider counts both alike."""


@dataclass(frozen=True)
class SplitText:
    """A response's answer and thoughts."""

    answer: str
    """Text outside of the thoughts; empty if the last thought never ends."""
    thoughts: tuple[str, ...] = ()
    """Without their markers; empty ones are left out."""
    unfinished: bool = False
    """The response ended within a thought."""


def find_think_tokens(tokenizer: PreTrainedTokenizerBase) -> ThinkTokens | None:
    """Return the known markers that a chat template names or a tokenizer has as tokens of their own."""
    template = str(tokenizer.chat_template)
    tokens = tokenizer.get_added_vocab()
    for pair in KNOWN_THINK_TOKENS:
        if any(marker in template for marker in pair) or all(marker in tokens for marker in pair):
            return pair
    return None


def as_think_tokens(markers: tuple[str, str] | None) -> ThinkTokens | None:
    """Return markers that a user gave; None if none were given.

    Raises:
        UserError: one is blank, or both are the same.
    """
    if markers is None:
        return None
    tokens = ThinkTokens(*markers)
    if not all(map(str.strip, tokens)) or tokens.open == tokens.close:
        raise UserError(f"think_tokens must be two different texts, not {tokens.open!r} and {tokens.close!r}")
    return tokens


def split_thoughts(text: str, tokens: ThinkTokens, *, opened: bool = False) -> SplitText:
    """Split a response into answer and thoughts; a text without markers is returned as it is.

    Args:
        text: The response.
        tokens: Markers of a thought.
        opened: The prompt opened a thought, as some chat templates do. Where a thought ends that was never opened, it
            is taken to have been opened by the prompt, whether or not this is said.
    """
    pieces = re.split("(" + "|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) + ")", text)
    if len(pieces) == 1 and not opened:
        return SplitText(text)
    thoughts: list[str] = []
    answer: list[str] = []
    inside: list[str] | None = [] if opened else None
    for piece in pieces:
        if piece == tokens.open:
            inside = [] if inside is None else inside  # opened by the prompt, and again by the model
        elif piece == tokens.close:
            thoughts.append("".join(answer if inside is None else inside))
            answer = [] if inside is None else answer
            inside = None
        else:
            (answer if inside is None else inside).append(piece)
    if inside is not None:
        thoughts.append("".join(inside))
        answer = []
    return SplitText(
        "\n".join(part.strip() for part in answer if part.strip()),
        tuple(thought.strip() for thought in thoughts if thought.strip()),
        inside is not None,
    )
