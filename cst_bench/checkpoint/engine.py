"""What continues prompts, in process or on a server: token ids go in, token ids and the reason for the end come out.

The chat (tokenizer, template, stop tokens, thoughts) is the checkpoint's own in both cases: an engine never sees a
conversation, so that no template of a server's can change one.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from cst_bench.checkpoint.sampling import Sampling, SamplingRow

if TYPE_CHECKING:
    from cst_bench.checkpoint.chat import Chat

StopReason = Literal["stop", "max_tokens", "model_length"]

may_begin: ContextVar[Callable[[], bool]] = ContextVar("may_begin", default=lambda: True)
"""Called when an engine begins a request; a request for which it is false is never answered."""


@dataclass(frozen=True)
class GeneratedTokens:
    """Tokens of one response, without the one that ended it, and the reason why it ended."""

    ids: list[int]
    stop_reason: StopReason
    prompt_tokens: int
    generated_tokens: int
    """Includes the end-of-turn token."""
    thought_tokens: int = 0
    """Number of generated tokens of a thought before the answer."""


class Engine(Protocol):
    """Continues prompts."""

    rows: int
    """Responses that are generated together."""

    def submit(self, prompt: list[int], sampling: Sampling) -> Future[GeneratedTokens]:
        """Submit one prompt (token ids from `Chat.prompt_ids`); the future resolves to its response."""

    def close(self) -> None:
        """Stop working and cancel the waiting requests."""


@dataclass(frozen=True)
class Responder:
    """A checkpoint's chat, and the engine that continues its prompts."""

    chat: Chat
    engine: Engine
    max_think_tokens: int
    """Most tokens of a thought; 0 if the checkpoint is not known to think."""


def new_row(chat: Chat, context_length: int, prompt: list[int], sampling: Sampling) -> SamplingRow:
    """Return the row of a response that is not begun; its `room` is below 1 if the prompt fills the context."""
    markers = None if chat.think_tokens is None or not sampling.max_think_tokens else chat
    return SamplingRow(prompt, sampling, context_length - len(prompt), markers)


def ended_response(row: SamplingRow, stop_ids: frozenset[int]) -> GeneratedTokens:
    """Return the response of a row that has ended."""
    stopped = row.generated[-1] in stop_ids
    full = row.room < row.sampling.max_tokens + row.sampling.max_think_tokens and len(row.generated) >= row.room
    reason: StopReason = "stop" if stopped else "model_length" if full else "max_tokens"
    ids = row.generated[:-1] if stopped else row.generated
    return GeneratedTokens(ids, reason, len(row.prompt), len(row.generated), row.thought_tokens)
