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
    tokens: list[int] = logits.argmax(-1).tolist()
    sampled = [index for index, row in enumerate(rows) if row.sampling.temperature > 0]
    if sampled:
        for index, token in zip(sampled, _sample(logits[sampled], [rows[index] for index in sampled])):
            tokens[index] = token
    return tokens


def _sample(logits: Tensor, rows: Sequence[SamplingRow]) -> list[int]:
    """Sample by the inverse CDF over the tokens that top-k and top-p leave, most probable first."""
    import torch

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=logits.device)[:, None]

    heat = column([row.sampling.temperature for row in rows]).float()
    probabilities = (logits.float() / heat).softmax(-1).double()
    order = None
    if any(row.sampling.top_p < 1 or row.sampling.top_k for row in rows):
        order = logits.argsort(dim=-1, descending=True, stable=True)
        probabilities = probabilities.gather(-1, order)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= column([row.sampling.top_p for row in rows]), 0.0)
        rank = torch.arange(logits.shape[-1], device=logits.device)
        probabilities = probabilities.masked_fill(
            rank >= column([float(row.sampling.top_k or logits.shape[-1]) for row in rows]), 0.0
        )
    cumulative = probabilities.cumsum(-1)
    point = column([row.random.random() for row in rows]) * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, point, right=True).clamp(max=logits.shape[-1] - 1)
    chosen: list[int] = (index if order is None else order.gather(-1, index))[:, 0].tolist()
    return chosen
