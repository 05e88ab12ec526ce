"""What a guard reads: its template or its checkpoint's chat template, with a prompt and a response put in as data."""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cst_bench.errors import UserError
from cst_bench.judging.guard.output_text import DataTokenizer, Encoded, Part, any_of, break_up, shorten

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")

Layout = Sequence[Part]
"""Parts whose data are names of texts, to be put in: `prompt`, `response`, or a field of the row."""


class Reader(ABC):
    """A loaded checkpoint that can say how likely each verdict is after an input."""

    model: Any
    tokenizer: DataTokenizer
    room: int
    """The most tokens that an input may have."""
    rows_each: int
    """Rows of a batch that one input takes."""

    @abstractmethod
    def encode(self, texts: Mapping[str, str]) -> Encoded:
        """The ids of an input with these texts.

        Raises:
            ForgedTokensError: the texts can't be kept from becoming control tokens.
        """

    @abstractmethod
    def likelihoods(self, batch: Sequence[Encoded]) -> list[dict[str, list[float]]]:
        """For each input and verdict the log-likelihoods of what spells the verdict."""

    def fits(self, encoded: Encoded) -> bool:
        """Whether the checkpoint has positions for an input."""
        return len(encoded.ids) <= self.room

    def shortened(self, texts: Mapping[str, str]) -> Encoded | None:
        """The input with the response's middle left out, so that it fits; None if next to nothing would be left."""

        def length(response: str) -> int:
            return len(self.encode({**texts, "response": response}).ids)

        response = shorten(texts["response"], self.tokenizer.spans(texts["response"]), length, self.room)
        if response is None:
            return None
        left_out = len(self.tokenizer.spans(texts["response"])) - len(self.tokenizer.spans(response))
        return self.encode({**texts, "response": response})._replace(left_out=left_out)


def template_layout(template: str) -> Layout:
    """A template file's text; `{prompt}`, `{response}` and `{field}` are where data goes."""
    pieces = _PLACEHOLDER.split(template)  # text and names in turn
    return [Part(piece, index % 2 == 1) for index, piece in enumerate(pieces) if piece]


def chat_layout(tokenizer: Any, arguments: Mapping[str, Any]) -> Layout:
    """The chat template's text around a user's prompt and an assistant's response.

    Raises:
        UserError: there is no chat template, or it doesn't take the two messages as they are.
    """
    from jinja2 import TemplateError

    names = {f"text{secrets.token_hex(16)}": name for name in ("prompt", "response")}
    messages = [{"role": role, "content": mark} for role, mark in zip(("user", "assistant"), names)]
    if not tokenizer.chat_template:
        raise UserError(f"{tokenizer.name_or_path}: has no chat template; give the guard's input as a template file")
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **arguments)
    except (TemplateError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{tokenizer.name_or_path}: its chat template refuses a prompt and a response: {reason}"
        ) from None
    pieces = re.split(f"({'|'.join(names)})", text)
    layout = [Part(names.get(piece, piece), index % 2 == 1) for index, piece in enumerate(pieces) if piece]
    for name in names.values():
        if Part(name, True) not in layout:
            raise UserError(f"{tokenizer.name_or_path}: its chat template leaves out the {name}")
    return layout


def names_in(layout: Layout) -> frozenset[str]:
    """The texts that a layout asks for."""
    return frozenset(part.text for part in layout if part.is_data)


def filled(layout: Layout, texts: Mapping[str, str]) -> list[Part]:
    """The parts with texts put in, in one pass: a text that looks like a placeholder is not filled again."""
    return [Part(texts[part.text], True) if part.is_data else part for part in layout]


def cleaner(markers: Sequence[str]) -> Callable[[str], str]:
    """What makes a text ready to be put in: its ends stripped, the format's own markers in it broken up."""
    pattern = any_of(markers)
    return lambda text: break_up(text.strip(), pattern)
