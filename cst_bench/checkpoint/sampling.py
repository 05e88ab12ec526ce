"""Choose the next token of each row, greedily or by the row's own seeded random numbers."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cst_bench.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


_CANDIDATES = 1024
"""Tokens among which top-p and top-k are looked for first: sorting a vocabulary takes longer than a small model."""


class ThoughtMarkers(Protocol):
    """Object that tells where a thought begins and ends (`Chat`)."""

    def opens_thought(self, prompt: Sequence[int]) -> bool:
        """Return whether a prompt opens a thought."""
        ...

    def starts_thought(self, generated: Sequence[int]) -> bool:
        """Return whether a response that has just begun opens a thought."""
        ...

    def ends_thought(self, generated: Sequence[int]) -> bool:
        """Return whether the last of the generated ids ends a thought."""
        ...


@dataclass(frozen=True)
class Sampling:
    """Sampling settings of one response. Temperature 0 is greedy."""

    max_tokens: int
    """Most tokens of the answer."""
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0
    max_think_tokens: int = 0
    """Most tokens of a thought before the answer, its markers included."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UserError(f"max_tokens must be at least 1, not {self.max_tokens}")
        if self.temperature < 0 or not 0 < self.top_p <= 1 or (self.top_k is not None and self.top_k < 1):
            raise UserError(f"temperature must be >= 0, top_p in (0, 1], top_k >= 1, not {self}")


@dataclass
class SamplingRow:
    """One unfinished response: its prompt, the tokens generated so far, and its own random numbers.

    A row draws one number a token, from a stream seeded by its seed and its prompt, so that its tokens do not depend
    on the rows decoded with it, and rows with different prompts draw different numbers.
    """

    prompt: list[int]
    sampling: Sampling
    room: int = sys.maxsize
    """Tokens that the context has left for the response."""
    markers: ThoughtMarkers | None = None
    """None if the model isn't known to think."""
    generated: list[int] = field(default_factory=list)
    thought_tokens: int = field(init=False, default=0)
    """Number of generated tokens of a thought, which come first."""
    random: random.Random = field(init=False)
    _thinks: bool = field(init=False)

    def __post_init__(self) -> None:
        self._thinks = self.markers is not None and self.markers.opens_thought(self.prompt)
        self.rewind()

    @property
    def limit(self) -> int:
        """Return the most tokens that may be generated."""
        return min(self.room, self.sampling.max_tokens + self.sampling.max_think_tokens)

    def rewind(self) -> None:
        """Reset the random numbers to their state after the generated tokens, when a drawn token was lost."""
        self.random = random.Random(f"{self.sampling.seed} {self.prompt}")
        for _ in self.generated:
            self.random.random()

    def append(self, token: int) -> None:
        """Add a generated token, and note whether it belongs to a thought."""
        self.generated.append(token)
        if self.markers is None:
            return
        if not self.thought_tokens:
            self._thinks = self._thinks or self.markers.starts_thought(self.generated)
        if self._thinks:
            self.thought_tokens = len(self.generated)
            self._thinks = not self.markers.ends_thought(self.generated)

    def ended(self, stop_ids: frozenset[int]) -> bool:
        """Return whether the row is finished: at a stop token, or at the end of the room for a thought or an answer."""
        if not self.generated:
            return False
        full = (
            self.thought_tokens >= self.sampling.max_think_tokens
            if self._thinks
            else len(self.generated) - self.thought_tokens >= self.sampling.max_tokens
        )
        return full or self.generated[-1] in stop_ids or len(self.generated) >= self.room


def choose(logits: Tensor, rows: Sequence[SamplingRow]) -> list[int]:
    """Choose the next token of each row, given logits [rows, vocabulary]."""
    tokens: list[int] = logits.max(-1).indices.tolist()  # in bf16 five times as fast as argmax, on a CPU
    sampled = [index for index, row in enumerate(rows) if row.sampling.temperature > 0]
    if sampled:
        for index, token in zip(sampled, _sample(logits[sampled], [rows[index] for index in sampled])):
            tokens[index] = token
    return tokens


def _sample(logits: Tensor, rows: Sequence[SamplingRow]) -> list[int]:
    """Sample by the inverse CDF, of rows with top-k or top-p over the tokens that it leaves, most probable first."""
    import torch

    heat = _column([row.sampling.temperature for row in rows], logits).float()
    probabilities = (logits.float() / heat).softmax(-1)
    points = _column([row.random.random() for row in rows], logits)
    tokens = torch.zeros(len(rows), dtype=torch.long, device=logits.device)
    rest = [index for index, row in enumerate(rows) if row.sampling.top_p == 1 and not row.sampling.top_k]
    if rest:
        tokens[rest] = _inverse_cdf(probabilities[rest].double(), points[rest])
    rest = [index for index, row in enumerate(rows) if row.sampling.top_p < 1 or row.sampling.top_k]
    for count in (_CANDIDATES, logits.shape[-1]):
        if rest:
            order, certain = _most_probable(logits[rest], min(count, logits.shape[-1]))
            kept, complete = _cut(probabilities[rest].gather(-1, order).double(), certain, [rows[i] for i in rest])
            chosen = order.gather(-1, _inverse_cdf(kept, points[rest])[:, None])[:, 0]
            done = complete.tolist()
            tokens[[index for index, is_done in zip(rest, done) if is_done]] = chosen[complete]
            rest = [index for index, is_done in zip(rest, done) if not is_done]
    result: list[int] = tokens.tolist()
    return result


def _most_probable(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the tokens of the `count` largest logits, equal ones by their number, and how many of them are certain.

    Those at the end may be any of several equal ones: [rows, count] and [rows].
    """
    if count == logits.shape[-1]:
        order = logits.argsort(dim=-1, descending=True, stable=True)
        return order, order.new_full((len(order),), count)
    values, tokens = logits.topk(count)
    tokens = tokens.sort(-1).values
    order = logits.gather(-1, tokens).argsort(dim=-1, descending=True, stable=True)
    return tokens.gather(-1, order), (values > values[:, -1:]).sum(-1)


def _cut(probabilities: Tensor, certain: Tensor, rows: Sequence[SamplingRow]) -> tuple[Tensor, Tensor]:
    """Set probabilities [rows, tokens], largest first, to 0 beyond top-k and top-p.

    Returns:
        The probabilities, and for each row whether all that top-k and top-p leave are among the `certain` first.
    """
    import torch

    count = probabilities.shape[-1]
    limit = _column([float(row.sampling.top_k or sys.maxsize) for row in rows], probabilities)
    before = probabilities.cumsum(-1) - probabilities
    beyond = before >= _column([row.sampling.top_p for row in rows], probabilities)
    beyond |= torch.arange(count, device=probabilities.device) >= limit
    complete = certain == count
    complete |= beyond.gather(-1, certain.clamp(max=count - 1)[:, None])[:, 0]
    return probabilities.masked_fill(beyond, 0.0), complete


def _inverse_cdf(probabilities: Tensor, points: Tensor) -> Tensor:
    """Return the index [rows] where the sum of probabilities [rows, tokens] passes a share [rows, 1] of the whole."""
    import torch

    cumulative = probabilities.cumsum(-1)
    index = torch.searchsorted(cumulative, points * cumulative[:, -1:], right=True)
    return index[:, 0].clamp(max=probabilities.shape[-1] - 1)


def _column(values: list[float], like: Tensor) -> Tensor:
    """Return numbers as a tensor [rows, 1] of float64 on a device."""
    import torch

    return torch.tensor(values, dtype=torch.float64, device=like.device)[:, None]
