"""Conversations as token ids: the one place that encodes them, for evaluation and training alike.

The texts of messages are data: a control token that one of them spells (`<|im_end|>`, `</think>`) stays text, and only
the chat template writes such tokens. Text without them gets exactly the ids of the tokenizer's `apply_chat_template`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cst_bench.checkpoint.data_tokenizer import (
    DataTokenizer,
    ForgedTokensError,
    InputPart,
    break_up,
    control_tokens,
    match_any,
    unknown_ids,
)
from cst_bench.checkpoint.options import SystemAs
from cst_bench.checkpoint.template_rendering import render_chat
from cst_bench.checkpoint.thoughts import SplitText, ThinkTokens, split_thoughts
from cst_bench.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`"""


@dataclass(frozen=True)
class Chat:
    """A tokenizer with its chat template, stop tokens and markers of thoughts."""

    tokenizer: PreTrainedTokenizerBase
    stop_ids: frozenset[int]
    """Generation stops at any of these tokens."""
    system_as: SystemAs
    think_tokens: ThinkTokens | None = None
    """Markers that a thought begins and ends with; None for a model that isn't known to think."""

    def encode(self, messages: list[Message], *, generation_prompt: bool) -> list[int]:
        """Return a conversation's token ids, with control tokens where the chat template writes them, and only there.

        In a final message of the assistant, which is an answer to train on, the markers of thoughts are tokens, too.

        Raises:
            UserError: a message contains text that the tokenizer makes control tokens of however it is written.
            TemplateError: the chat template cannot render the conversation.
        """
        arranged = self.arranged(messages)
        masked = _MaskedTexts(self._control_pattern)
        turns = [{**message, "content": masked.mask(message["content"])} for message in arranged[:-1]]
        for message in arranged[-1:]:
            kept = self.think_tokens if message["role"] == "assistant" else None
            turns.append({**message, "content": masked.mask(message["content"], kept or ())})
        parts = masked.parts(self._rendered(turns, generation_prompt))
        pattern = self._control_pattern
        if not any(part.is_data for part in parts):
            text = "".join(part.text for part in parts)
            ids = self._plain_ids(text)
            if len(self.controls(ids)) <= len(pattern.findall(text)):  # more, if text becomes one when normalized
                return ids
        if getattr(self.tokenizer, "backend_tokenizer", None) is None:
            return self._plain_ids(
                "".join(break_up(part.text, pattern) if part.is_data else part.text for part in parts)
            )
        try:
            return self._data_tokenizer.encode(parts)
        except ForgedTokensError as error:
            raise UserError(f"a prompt or response cannot be shown to the model: it contains {error}") from None

    def controls(self, ids: Sequence[int]) -> list[int]:
        """Return the control tokens among these, such as those that open and end turns."""
        return [index for index in ids if index in self._control_ids]

    @cached_property
    def control_texts(self) -> tuple[str, ...]:
        """Return the texts of the control tokens, in the order of their ids."""
        return tuple(token.content for _, token in sorted(control_tokens(self.tokenizer, self._format_text).items()))

    @property
    def _format_text(self) -> str:
        return "".join([str(self.tokenizer.chat_template or ""), *(self.think_tokens or ())])

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        return frozenset(control_tokens(self.tokenizer, self._format_text)) - unknown_ids(self.tokenizer)

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        return match_any(self.control_texts)

    @cached_property
    def _data_tokenizer(self) -> DataTokenizer:
        return DataTokenizer(self.tokenizer, self._format_text)

    def _rendered(self, messages: list[Message], generation_prompt: bool) -> str:
        return render_chat(self.tokenizer, messages, generation_prompt=generation_prompt)

    def _plain_ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def prompt_ids(self, messages: list[Message]) -> list[int]:
        """Return the token ids up to and including the opening of the assistant's turn."""
        return self.encode(messages, generation_prompt=True)

    def response(self, ids: Sequence[int], *, opened: bool = False) -> SplitText:
        """Decode generated ids without special tokens, and split them into answer and thoughts.

        Args:
            ids: The generated ids.
            opened: The prompt opened a thought, as `opens_thought` tells.
        """
        if self.think_tokens is None:
            return SplitText(str(self.tokenizer.decode(ids, skip_special_tokens=True)))
        return split_thoughts(self._marked_text(ids), self.think_tokens, opened=opened)

    def opens_thought(self, prompt: Sequence[int]) -> bool:
        """Return whether a prompt ends with the marker that opens a thought."""
        if self.think_tokens is None:
            return False
        tail = self._marked_text(prompt[-len(self.think_tokens.open) - 4 :])  # a token has a character at least
        return tail.rstrip().endswith(self.think_tokens.open)

    def starts_thought(self, generated: Sequence[int]) -> bool:
        """Return whether a response that has just begun opens a thought."""
        if self.think_tokens is None or len(generated) > len(self.think_tokens.open) + 4:
            return False
        return self._marked_text(generated).lstrip().startswith(self.think_tokens.open)

    def ends_thought(self, generated: Sequence[int]) -> bool:
        """Return whether the last of the generated ids completes the marker that closes a thought."""
        if self.think_tokens is None:
            return False
        close = self.think_tokens.close
        if self._close_id is not None:
            return generated[-1] == self._close_id
        tail = list(generated[-len(close) :])
        return close in self._marked_text(tail) and close not in self._marked_text(tail[:-1])

    @cached_property
    def _close_id(self) -> int | None:
        """Return the id of the closing marker, if it is a token of its own."""
        assert self.think_tokens is not None
        index: int | None = self.tokenizer.get_added_vocab().get(self.think_tokens.close)
        return index

    @cached_property
    def _hidden_ids(self) -> frozenset[int]:
        """Return the ids of the special tokens that are no part of a marker."""
        assert self.think_tokens is not None
        special = {index for index, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        markers = (self.tokenizer(marker, add_special_tokens=False)["input_ids"] for marker in self.think_tokens)
        return frozenset(special.difference(*markers))

    def _marked_text(self, ids: Sequence[int]) -> str:
        """Decode ids without special tokens, except for those of the markers."""
        shown = [index for index in ids if index not in self._hidden_ids]
        return str(self.tokenizer.decode(shown, skip_special_tokens=False))

    def arranged(self, messages: list[Message]) -> list[Message]:
        """Return the conversation in the form that the template accepts.

        `user-prefix` moves a leading system message to the start of the first user message, followed by a blank line,
        as is usual for templates without a system role.
        """
        if self.system_as == "system" or not messages or messages[0]["role"] != "system":
            return messages
        system, *rest = messages
        if not rest or rest[0]["role"] != "user":
            return [{"role": "user", "content": system["content"]}, *rest]
        return [{**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


class _MaskedTexts:
    """Random names in place of the control tokens that messages spell, so that the rendered text shows whose they are.

    A template that looks at a message's text, such as for the end of a thought, sees none of them either.
    """

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._pattern = pattern
        self._texts: list[str] = []
        self._name = f"text{secrets.token_hex(16)}n"

    def mask(self, text: str, kept: Sequence[str] = ()) -> str:
        """Replace the control tokens in a text, except within the texts to keep."""
        pieces = re.split(f"({match_any(kept).pattern})", text)
        return "".join(piece if piece in kept else self._pattern.sub(self._add, piece) for piece in pieces)

    def parts(self, rendered: str) -> list[InputPart]:
        """Split a rendered text at the names, and restore their texts as data."""
        pieces = re.split(f"{self._name}([0-9]+)e", rendered)
        return [
            InputPart(self._texts[int(piece)], is_data=True) if index % 2 else InputPart(piece)
            for index, piece in enumerate(pieces)
        ]

    def _add(self, match: re.Match[str]) -> str:
        self._texts.append(match[0])
        return f"{self._name}{len(self._texts) - 1}e"


def conversation(system: str | None, user: str) -> list[Message]:
    """Return the messages of one user turn, after a system prompt if there is one."""
    turns = [{"role": "user", "content": user}]
    return turns if system is None else [{"role": "system", "content": system}, *turns]
