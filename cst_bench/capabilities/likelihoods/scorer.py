"""Scores token-id requests with a model, pack by pack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from cst_bench.capabilities.likelihoods.budget import out_of_memory
from cst_bench.capabilities.likelihoods.eligibility import base_of, unsupported_calls
from cst_bench.capabilities.likelihoods.kernels import KernelName
from cst_bench.capabilities.likelihoods.planning import Group, make_plan
from cst_bench.capabilities.likelihoods.prefix_attention import ForestAttention, KeysValues, active, attention_swapped
from cst_bench.capabilities.likelihoods.prefix_packing import Cursor, Pack, next_pack

Requests = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Token ids of contexts and continuations."""
Scored = tuple[float, bool]
"""A log-likelihood, and whether greedy decoding would have said the same."""

_SOFTMAX_ROWS = 512
"""Rows of logits that are normalised at a time, so that memory holds only so many in fp32."""


class UnsupportedModelError(Exception):
    """A model's layers ask for what packed scoring can't do; the message says what."""


@dataclass
class Scorer:
    """Packed scoring over one model."""

    model: Any
    """A `transformers` causal LM, or a `peft.PeftModel` around one, in eval mode."""
    max_length: int
    budget: int
    """Tokens of one forward pass. Halved when memory runs short, and stays so."""
    kernel: KernelName
    softmax_dtype: torch.dtype | None = None
    """By default fp32, or the model's own where that is wider."""
    autocast_dtype: torch.dtype | None = None
    tokens: int = field(default=0, init=False)
    """Forwarded so far."""

    def score(self, requests: Requests, report: Callable[[int, Scored], None] | None = None) -> list[Scored]:
        """Scores requests, in order.

        Args:
            requests: Neither contexts nor continuations may be empty.
            report: Told of every answer, by its request's index, as soon as it is known.

        Raises:
            UnsupportedModelError: the model's attention can't be done this way.
            ValueError: a request can't be scored at all.
        """
        groups = make_plan(requests, self.max_length)
        answers: dict[int, Scored] = {}
        kept: list[KeysValues] = []
        cursor = Cursor()
        with attention_swapped(base_of(self.model)):
            while cursor.group < len(groups):
                pack = next_pack(groups, cursor, self.budget)
                try:
                    found, attention = self._forward(pack, kept)
                except RuntimeError as error:
                    if not out_of_memory(error) or not self._shrink(groups, cursor, pack):
                        raise
                    found = None
                if found is None:  # outside of `except`, which holds on to the frames and so to their tensors
                    _empty_cache(self.model.device)
                    continue
                cursor, kept = pack.next, attention.kept
                for request, answer in found.items():
                    answers[request] = answer
                    if report is not None:
                        report(request, answer)
        return [answers[index] for index in range(len(requests))]

    def _shrink(self, groups: list[Group], cursor: Cursor, pack: Pack) -> bool:
        """Makes the next pack smaller than one that was too large; False if it can't be."""
        if pack.documents > 1:
            self.budget = max(1, min(self.budget, len(pack.ids)) // 2)
            return True
        documents = groups[cursor.group].documents
        halves = documents[cursor.document].halves()
        documents[cursor.document : cursor.document + 1] = halves
        return len(halves) > 1

    def _forward(self, pack: Pack, kept: list[KeysValues]) -> tuple[dict[int, Scored], ForestAttention]:
        device = self.model.device
        attention = ForestAttention(pack, self.kernel, device, kept)
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None),
            active(attention),
        ):
            logits = self.model(
                input_ids=torch.tensor([pack.ids], device=device),
                position_ids=torch.tensor([pack.positions], device=device),
                use_cache=False,
                logits_to_keep=torch.tensor(pack.logit_rows, device=device),
            ).logits[0]
            reason = unsupported_calls(self.model, attention)
            if reason is not None:
                raise UnsupportedModelError(reason)
            self.tokens += len(pack.ids)
            return self._read(pack, logits), attention

    def _read(self, pack: Pack, logits: torch.Tensor) -> dict[int, Scored]:
        """The answers in the logits [logit rows, vocabulary]."""
        rows = [row for answer in pack.answers for row in answer.logits]
        wanted = [token for answer in pack.answers for token in answer.tokens]
        order = sorted(range(len(rows)), key=rows.__getitem__)
        dtype = self.softmax_dtype or torch.promote_types(logits.dtype, torch.float32)
        likelihoods: list[float] = [0.0] * len(rows)
        greedy: list[bool] = [False] * len(rows)
        at = 0
        for start in range(0, len(logits), _SOFTMAX_ROWS):
            block = torch.log_softmax(logits[start : start + _SOFTMAX_ROWS], dim=-1, dtype=dtype)
            here = []
            while at < len(order) and rows[order[at]] < start + _SOFTMAX_ROWS:
                here.append(order[at])
                at += 1
            index = torch.tensor([rows[i] - start for i in here], device=block.device)
            token = torch.tensor([wanted[i] for i in here], device=block.device)
            values = block[index, token].double().tolist()
            best = (block.argmax(dim=-1)[index] == token).tolist()
            for i, value, is_best in zip(here, values, best):
                likelihoods[i], greedy[i] = value, is_best
        found: dict[int, Scored] = {}
        at = 0
        for answer in pack.answers:
            stop = at + len(answer.logits)
            found[answer.request] = (sum(likelihoods[at:stop]), all(greedy[at:stop]))
            at = stop
        return found


def _empty_cache(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
