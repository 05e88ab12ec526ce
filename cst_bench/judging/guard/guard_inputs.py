"""A guard's input: its template, or its checkpoint's chat template, with a prompt and a response filled in as data."""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cst_bench.checkpoint.data_tokenizer import DataTokenizer, InputPart, break_up, match_any
from cst_bench.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GAP = " […] "
"""Replaces the omitted middle of a response."""
_LEAST = 8
"""Fewest tokens to keep of a response; with fewer there is nothing to judge."""
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")

InputLayout = Sequence[InputPart]
"""Parts whose data are names of texts to be filled in: `prompt`, `response`, or a field of the row."""


class GuardInput(NamedTuple):
    """Tokenized input of a guard."""

    ids: list[int]
    type_ids: list[int]
    """Which of a pair's two texts each token belongs to: 0 or 1."""
    left_out: int = 0
    """Tokens omitted from the response to make it fit."""


class GuardModel(ABC):
    """Loaded checkpoint that scores verdicts after an input."""

    model: PreTrainedModel
    tokenizer: DataTokenizer
    room: int
    """Most tokens that an input may have."""
    rows_each: int
    """Rows of a batch that an input takes."""

    @abstractmethod
    def encode(self, texts: Mapping[str, str]) -> GuardInput:
        """Tokenize an input with these texts.

        Raises:
            ForgedTokensError: the texts would become control tokens.
        """

    @abstractmethod
    def likelihoods(self, batch: Sequence[GuardInput]) -> list[dict[str, list[float]]]:
        """Return, for each input and verdict, the log-likelihoods of the token sequences that spell the verdict."""

    def fits(self, encoded: GuardInput) -> bool:
        """Return whether the checkpoint has enough positions for an input."""
        return len(encoded.ids) <= self.room

    def shortened(self, texts: Mapping[str, str]) -> GuardInput | None:
        """Return an input that fits, with the middle of the response left out; None if too little would be left."""

        def length(response: str) -> int:
            return len(self.encode({**texts, "response": response}).ids)

        response = shorten(texts["response"], self.tokenizer.spans(texts["response"]), length, self.room)
        if response is None:
            return None
        left_out = len(self.tokenizer.spans(texts["response"])) - len(self.tokenizer.spans(response))
        return self.encode({**texts, "response": response})._replace(left_out=left_out)


def template_layout(template: str) -> InputLayout:
    """Return the layout of a template file's text, with data at `{prompt}`, `{response}` and `{field}`."""
    pieces = _PLACEHOLDER.split(template)  # text and names in turn
    return [InputPart(piece, index % 2 == 1) for index, piece in enumerate(pieces) if piece]


def chat_layout(tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, object]) -> InputLayout:
    """Return the layout of the chat template around a user's prompt and an assistant's response.

    Raises:
        UserError: there is no chat template, or it doesn't render the two messages as they are.
    """
    from cst_bench.checkpoint.template_rendering import TemplateError, render_chat

    names = {f"text{secrets.token_hex(16)}": name for name in ("prompt", "response")}
    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), names)]
    if not tokenizer.chat_template:
        raise UserError(f"{tokenizer.name_or_path}: has no chat template; give the guard's input as a template file")
    try:
        text = render_chat(tokenizer, messages, generation_prompt=True, **arguments)
    except (TemplateError, TypeError, ValueError) as error:
        reason = error.reason if isinstance(error, TemplateError) else " ".join(str(error).split())
        raise UserError(
            f"{tokenizer.name_or_path}: its chat template refuses a prompt and a response: {reason}"
        ) from None
    pieces = re.split(f"({'|'.join(names)})", text)
    layout = [InputPart(names.get(piece, piece), index % 2 == 1) for index, piece in enumerate(pieces) if piece]
    for name in names.values():
        if InputPart(name, True) not in layout:
            raise UserError(f"{tokenizer.name_or_path}: its chat template leaves out the {name}")
    return layout


def layout_names(layout: InputLayout) -> frozenset[str]:
    """Return the names of the texts that a layout needs."""
    return frozenset(part.text for part in layout if part.is_data)


def fill_layout(layout: InputLayout, texts: Mapping[str, str]) -> list[InputPart]:
    """Fill in texts, in one pass: a text that looks like a placeholder is not filled again."""
    return [InputPart(texts[part.text], True) if part.is_data else part for part in layout]


def make_cleaner(markers: Sequence[str]) -> Callable[[str], str]:
    """Return a function that prepares a text: it strips it and breaks up the format's own markers."""
    pattern = match_any(markers)
    return lambda text: break_up(text.strip(), pattern)


def shorten(response: str, spans: Sequence[tuple[int, int]], length: Callable[[str], int], room: int) -> str | None:
    """Omit the middle of a response so that an input with it fits; return None if too little would be left.

    Args:
        response: Response that is too long.
        spans: Start and end of each of its tokens, in characters.
        length: Function that returns the number of tokens of the input with a given response.
        room: Most tokens that the input may have.
    """
    keep = len(spans) - (length(response) - room)
    while keep >= _LEAST:
        head, tail = (keep + 1) // 2, keep // 2
        short = response[: spans[head - 1][1]] + GAP + response[spans[-tail][0] :]
        excess = length(short) - room
        if excess <= 0:
            return short
        keep -= excess
    return None
