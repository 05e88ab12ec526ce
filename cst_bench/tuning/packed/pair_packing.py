"""A batch of pairs laid out as one row without padding: each prompt once, its two responses behind it.

    prompt 1 | chosen 1 | rejected 1 | prompt 2 | chosen 2 | rejected 2 | …

Positions restart at each prompt, and again for `rejected`, which doesn't see `chosen`. The last token of a response is
left out: nothing is predicted from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference


class Pair(NamedTuple):
    """Rows of one pair in the pack."""

    prompt: int
    chosen: int
    rejected: int


@dataclass
class Pack:
    """One forward pass over several pairs, and where its results belong in TRL's padded batch.

    TRL's batch has shape [2 * pairs, length], chosen first; per-token results have shape [2 * pairs, length - 1].
    """

    pairs: list[Pair]
    ids: torch.Tensor
    """[rows]"""
    positions: torch.Tensor
    """[rows], each in its own sequence."""
    predicting: torch.Tensor
    """[targets], the row that each target is predicted from."""
    targets: torch.Tensor
    """[targets], the tokens of all responses."""
    places: torch.Tensor
    """[targets], where each stands in the flattened per-token results."""
    shape: tuple[int, int]
    """Of the per-token results."""
    masks: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    """Of sequences longer than a sliding window, by length and window; made when the first layer needs them."""
    calls: int = 0
    """How often a layer has asked for attention over this pack."""


def make_pack(examples: Sequence[tuple[Sequence[int], Sequence[int], Sequence[int]]]) -> Pack:
    """Lays out prompts and their chosen and rejected responses, none of them empty."""
    length = max(len(prompt) + max(len(chosen), len(rejected)) for prompt, chosen, rejected in examples)
    width = length - 1
    pairs: list[Pair] = []
    ids: list[int] = []
    positions: list[int] = []
    # chosen and rejected apart, so that targets come in the order of TRL's batch
    predicting: tuple[list[int], list[int]] = ([], [])
    targets: tuple[list[int], list[int]] = ([], [])
    places: tuple[list[int], list[int]] = ([], [])
    for index, (prompt, *responses) in enumerate(examples):
        last = len(ids) + len(prompt) - 1
        ids += prompt
        positions += range(len(prompt))
        for side, response in enumerate(responses):
            predicting[side].append(last)
            predicting[side].extend(range(len(ids), len(ids) + len(response) - 1))
            targets[side].extend(response)
            first = (side * len(examples) + index) * width + len(prompt) - 1
            places[side].extend(range(first, first + len(response)))
            ids += response[:-1]
            positions += range(len(prompt), len(prompt) + len(response) - 1)
        pairs.append(Pair(len(prompt), len(responses[0]) - 1, len(responses[1]) - 1))
    predicted, tokens, where = (torch.tensor(chosen + rejected) for chosen, rejected in (predicting, targets, places))
    return Pack(
        pairs, torch.tensor(ids), torch.tensor(positions), predicted, tokens, where, shape=(2 * len(examples), width)
    )


class PackingCollator(DataCollatorForPreference):  # type: ignore[misc]
    """TRL's collator, whose batches bring the pack of their pairs along."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's padded batch, and `cst_pack`."""
        batch: dict[str, Any] = super().torch_call(examples)
        cut = []
        for example in examples:
            prompt = example["prompt_ids"]
            end = None if self.max_length is None else self.max_length - len(prompt)
            cut.append((prompt, example["chosen_ids"][:end], example["rejected_ids"][:end]))
        return {**batch, "cst_pack": make_pack(cut)}
