"""Conversations as token ids: the one place that encodes them, for evaluation and training alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cst_bench.checkpoint.options import SystemAs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`"""


@dataclass(frozen=True)
class Chat:
    """A tokenizer with its chat template and stop tokens."""

    tokenizer: PreTrainedTokenizerBase
    stop_ids: frozenset[int]
    """Generation stops at any of these tokens."""
    system_as: SystemAs

    def encode(self, messages: list[Message], *, generation_prompt: bool) -> list[int]:
        """Return a conversation's token ids: exactly what the tokenizer's `apply_chat_template` returns."""
        ids: list[int] = self.tokenizer.apply_chat_template(
            self.arranged(messages), add_generation_prompt=generation_prompt, tokenize=True, return_dict=False
        )
        return ids

    def prompt_ids(self, messages: list[Message]) -> list[int]:
        """Return the token ids up to and including the opening of the assistant's turn."""
        return self.encode(messages, generation_prompt=True)

    def response_text(self, ids: list[int]) -> str:
        """Decode generated ids without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

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
