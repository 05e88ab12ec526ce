"""The one place where a conversation becomes token ids. Evaluation and training both come through here."""

from __future__ import annotations

from typing import Any

from cst_bench.checkpoint.options import SystemAs

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`"""


def with_system(messages: list[Message], system_as: SystemAs) -> list[Message]:
    """The conversation as the checkpoint's template can take it.

    `user-prefix` moves a leading system message to the head of the first user message, a blank line between, which
    is what the authors of Gemma and of the released data set advise for templates without a system role.
    """
    if system_as == "system" or not messages or messages[0]["role"] != "system":
        return messages
    system, first, *rest = messages
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def conversation(system: str | None, user: str) -> list[Message]:
    """A system prompt (or none) and one user turn."""
    turns = [{"role": "user", "content": user}]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


def encode(tokenizer: Any, messages: list[Message], *, generation_prompt: bool) -> list[int]:
    """Token ids of a conversation: exactly what the tokenizer's `apply_chat_template` gives, nothing added."""
    ids: list[int] = tokenizer.apply_chat_template(
        messages, add_generation_prompt=generation_prompt, tokenize=True, return_dict=False
    )
    return ids
