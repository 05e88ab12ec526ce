"""Picks the next token of each row, greedily or by the row's own seeded random numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cst_bench.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How one response is generated. Temperature 0 is greedy."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UserError(f"max_tokens must be at least 1, not {self.max_tokens}")
        if self.temperature < 0 or not 0 < self.top_p <= 1 or (self.top_k is not None and self.top_k < 1):
            raise UserError(f"temperature must be >= 0, top_p in (0, 1], top_k >= 1: given {self}")


@dataclass
class Row:
    """One response in the making: its prompt, what is generated so far, and its own random numbers.

    A row draws one number a token, from a stream of its seed and its prompt: what it becomes does not depend on the
    rows beside it, and rows of other prompts draw other numbers.
    """

    prompt: list[int]
    sampling: Sampling
    generated: list[int] = field(default_factory=list)
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rewind()

    def rewind(self) -> None:
        """Puts the random numbers where they stood after what is generated, when a token drawn was lost."""
        self.random = random.Random(f"{self.sampling.seed} {self.prompt}")
        for _ in self.generated:
            self.random.random()

    def ended(self, stop_ids: frozenset[int]) -> bool:
        """Whether there is no token to come: the last one ends the turn, or there are as many as may be."""
        return bool(self.generated) and (
            self.generated[-1] in stop_ids or len(self.generated) >= self.sampling.max_tokens
        )


def choose(logits: Any, rows: Sequence[Row]) -> list[int]:
    """The next token of each row. `logits` is a `[rows, vocabulary]` tensor."""
    tokens: list[int] = logits.argmax(-1).tolist()
    sampled = [index for index, row in enumerate(rows) if row.sampling.temperature > 0]
    if sampled:
        for index, token in zip(sampled, _sample(logits[sampled], [rows[index] for index in sampled])):
            tokens[index] = token
    return tokens


def _sample(logits: Any, rows: Sequence[Row]) -> list[int]:
    """Inverse-CDF sampling over the tokens that top-k and top-p leave, most probable first."""
    import torch

    def column(values: list[float]) -> Any:
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
