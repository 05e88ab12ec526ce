"""Conversations as token ids: the one place that encodes them, for evaluation and training alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cst_bench.checkpoint.options import SystemAs
from cst_bench.checkpoint.thoughts import SplitText, ThinkTokens, split_thoughts

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
        """Return a conversation's token ids: exactly what the tokenizer's `apply_chat_template` returns."""
        ids: list[int] = self.tokenizer.apply_chat_template(
            self.arranged(messages), add_generation_prompt=generation_prompt, tokenize=True, return_dict=False
        )
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


def conversation(system: str | None, user: str) -> list[Message]:
    """Return the messages of one user turn, after a system prompt if there is one."""
    turns = [{"role": "user", "content": user}]
    return turns if system is None else [{"role": "system", "content": system}, *turns]
