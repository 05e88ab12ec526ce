"""Lay out a batch of pairs as one row without padding: each prompt once, its two responses after it.

    prompt 1 | chosen 1 | rejected 1 | prompt 2 | chosen 2 | rejected 2 | …

Positions restart at each prompt, and again for `rejected`, which does not attend to `chosen`. The last token of a
response is left out: nothing is predicted from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference

if TYPE_CHECKING:
    Batch = dict[str, "torch.Tensor | PairPack"]
    """TRL's padded batch, and the pack as `cst_pack`."""


class TokenizedPair(TypedDict):
    """Token ids of a training row."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


class PackedPair(NamedTuple):
    """Number of rows of one pair in a pack."""

    prompt: int
    chosen: int
    rejected: int


@dataclass
class PairPack:
    """Input of one forward pass over several pairs, and the places of its results in TRL's padded batch.

    TRL's batch has shape [2 * pairs, length], chosen first; per-token results have shape [2 * pairs, length - 1].
    """

    pairs: list[PackedPair]
    ids: torch.Tensor
    """[rows]"""
    positions: torch.Tensor
    """[rows], position of each row in its own sequence."""
    predicting: torch.Tensor
    """[targets], row that each target is predicted from."""
    targets: torch.Tensor
    """[targets], tokens of all responses."""
    places: torch.Tensor
    """[targets], index of each in the flattened per-token results."""
    shape: tuple[int, int]
    """Shape of the per-token results."""
    masks: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    """(length, sliding window) → mask of sequences longer than the window; made when the first layer needs it."""
    calls: int = 0
    """Number of attention calls over this pack."""


def make_pack(examples: Sequence[tuple[Sequence[int], Sequence[int], Sequence[int]]], length: int) -> PairPack:
    """Make the pack of prompts with their chosen and rejected responses, none of which is empty.

    Args:
        examples: Token ids of prompt, chosen and rejected.
        length: Tokens of a row of TRL's padded batch.
    """
    width = length - 1
    pairs: list[PackedPair] = []
    ids: list[int] = []
    positions: list[int] = []
    # chosen and rejected separately, so that targets are in the order of TRL's batch
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
        pairs.append(PackedPair(len(prompt), len(responses[0]) - 1, len(responses[1]) - 1))
    return PairPack(
        pairs=pairs,
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        predicting=torch.tensor(predicting[0] + predicting[1]),
        targets=torch.tensor(targets[0] + targets[1]),
        places=torch.tensor(places[0] + places[1]),
        shape=(2 * len(examples), width),
    )


class PackingCollator(DataCollatorForPreference):  # type: ignore[misc]
    """TRL's collator, which adds the pack of the pairs to each batch."""

    def torch_call(self, examples: list[TokenizedPair]) -> Batch:
        """Return TRL's padded batch, with the pack as `cst_pack`."""
        batch: dict[str, torch.Tensor] = super().torch_call(examples)
        cut = []
        for example in examples:
            prompt = example["prompt_ids"]
            end = None if self.max_length is None else self.max_length - len(prompt)
            cut.append((prompt, example["chosen_ids"][:end], example["rejected_ids"][:end]))
        return {**batch, "cst_pack": make_pack(cut, batch["input_ids"].shape[1])}
