"""The one place where a conversation becomes token ids. Evaluation and training both come through here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cst_bench.checkpoint.options import SystemAs

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`"""


@dataclass(frozen=True)
class Chat:
    """A tokenizer with its chat template, and where a turn ends."""

    tokenizer: Any
    stop_ids: frozenset[int]
    """Generation stops at any of these tokens."""
    system_as: SystemAs

    def encode(self, messages: list[Message], *, generation_prompt: bool) -> list[int]:
        """Token ids of a conversation: exactly what the tokenizer's `apply_chat_template` gives, nothing added."""
        ids: list[int] = self.tokenizer.apply_chat_template(
            self.arranged(messages), add_generation_prompt=generation_prompt, tokenize=True, return_dict=False
        )
        return ids

    def prompt_ids(self, messages: list[Message]) -> list[int]:
        """Token ids up to and with the opening of the assistant's turn."""
        return self.encode(messages, generation_prompt=True)

    def response_text(self, ids: list[int]) -> str:
        """The text of generated ids; special tokens are left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def arranged(self, messages: list[Message]) -> list[Message]:
        """The conversation as the template can take it.

        `user-prefix` moves a leading system message to the head of the first user message, a blank line between, as
        is usual for templates without a system role.
        """
        if self.system_as == "system" or not messages or messages[0]["role"] != "system":
            return messages
        system, *rest = messages
        if not rest or rest[0]["role"] != "user":
            return [{"role": "user", "content": system["content"]}, *rest]
        return [{**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


def conversation(system: str | None, user: str) -> list[Message]:
    """A system prompt (or none) and one user turn."""
    turns = [{"role": "user", "content": user}]
    return turns if system is None else [{"role": "system", "content": system}, *turns]
