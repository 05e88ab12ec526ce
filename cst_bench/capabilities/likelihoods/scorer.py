"""Score token-id requests with a model, pack by pack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from cst_bench.capabilities.likelihoods.budget import SOFTMAX_ROWS, scored_share, token_budget
from cst_bench.capabilities.likelihoods.eligibility import unsupported_calls
from cst_bench.capabilities.likelihoods.kernels import KernelName
from cst_bench.capabilities.likelihoods.planning import Group, make_plan
from cst_bench.capabilities.likelihoods.prefix_attention import NAME, ForestAttention, KeysValues, active
from cst_bench.capabilities.likelihoods.prefix_packing import Cursor, PrefixPack, fill, next_pack
from cst_bench.checkpoint.attention_choice import attention_swapped
from cst_bench.checkpoint.attention_kernels import many_lengths
from cst_bench.checkpoint.inspection import base_model, empty_cache, out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Requests = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Token ids of contexts and continuations."""
Scored = tuple[float, bool]
"""Log-likelihood, and whether greedy decoding gives the same tokens."""

_BLOCK = 128
"""Rows of a block of FlexAttention. One block is compiled apart, and so packs have two at least."""
_SOFTMAX_LOGITS = 1 << 20
"""Logits that are normalised at a time on a CPU: 4 MiB, which stay in its cache."""


class UnsupportedModelError(Exception):
    """A model's layers need something that packed scoring does not support; the message says what."""


@dataclass
class Scorer:
    """Packed scoring over one model."""

    model: PreTrainedModel
    """A `transformers` causal LM, or a `peft.PeftModel` around one, in eval mode."""
    max_length: int
    budget: int | None
    """Tokens of one forward pass; None for as many as fit in memory. A call that runs out of it goes on with fewer."""
    kernel: KernelName
    device: torch.device | None = None
    """Device of the model's inputs; that of its first weights if None."""
    softmax_dtype: torch.dtype = torch.float32
    autocast_dtype: torch.dtype | None = None
    tokens: int = field(default=0, init=False)
    """Tokens forwarded so far."""
    margins: dict[int, float] | None = field(default=None, init=False)
    """Request → least lead of one of its tokens over the best other one, in nats; recorded only if it is not None."""

    def score(self, requests: Requests, report: Callable[[int, Scored], None] | None = None) -> list[Scored]:
        """Score requests, in order.

        Args:
            requests: Neither contexts nor continuations may be empty.
            report: Called with a request's index and its answer as soon as it is known.

        Raises:
            UnsupportedModelError: the model's attention is not supported.
            ValueError: a request cannot be scored: see `make_plan`.
        """
        groups = make_plan(requests, self.max_length)
        answers: dict[int, Scored] = {}
        kept: list[KeysValues] = []
        cursor = Cursor()
        device = self.device or self.model.device
        budget = self.budget or token_budget(self.model, device, self.kernel, scored_share(groups))
        with attention_swapped(base_model(self.model), NAME), many_lengths():
            while cursor.group < len(groups):
                pack = next_pack(groups, cursor, budget)
                rows = len(pack.ids)
                if self.kernel == "flex":
                    fill(pack, _BLOCK)
                try:
                    scored, attention = self._forward(pack, kept)
                except RuntimeError as error:
                    if not out_of_memory(error) or not (pack.documents > 1 or _halve(groups, cursor)):
                        raise
                    scored = None
                if scored is None:  # outside of `except`, which holds on to the frames and so to their tensors
                    if pack.documents > 1:
                        budget = max(1, min(budget, rows) // 2)
                    empty_cache(device)
                    continue
                cursor, kept = pack.next, attention.kept
                for request, answer in scored.items():
                    answers[request] = answer
                    if report is not None:
                        report(request, answer)
        return [answers[index] for index in range(len(requests))]

    def _forward(self, pack: PrefixPack, kept: list[KeysValues]) -> tuple[dict[int, Scored], ForestAttention]:
        device = self.device or self.model.device
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
                logits_to_keep=torch.tensor(pack.logit_rows),  # on the CPU: the last layer may be on another device
            ).logits[0]
            reason = unsupported_calls(self.model, attention)
            if reason is not None:
                raise UnsupportedModelError(reason)
            self.tokens += len(pack.ids)
            return self._read(pack, logits), attention

    def _read(self, pack: PrefixPack, logits: torch.Tensor) -> dict[int, Scored]:
        """Read the answers from the logits [logit rows, vocabulary]."""
        rows = [row for answer in pack.answers for row in answer.logits]
        targets = [token for answer in pack.answers for token in answer.tokens]
        order = sorted(range(len(rows)), key=rows.__getitem__)
        likelihoods: list[float] = [0.0] * len(rows)
        greedy: list[bool] = [False] * len(rows)
        leads: list[float] = [0.0] * len(rows)
        at = 0
        together = SOFTMAX_ROWS
        if logits.device.type == "cpu":
            together = max(1, _SOFTMAX_LOGITS // logits.shape[1])
        for start in range(0, len(logits), together):
            block = torch.log_softmax(logits[start : start + together], dim=-1, dtype=self.softmax_dtype)
            here = []
            while at < len(order) and rows[order[at]] < start + together:
                here.append(order[at])
                at += 1
            index = torch.tensor([rows[i] - start for i in here], device=block.device)
            token = torch.tensor([targets[i] for i in here], device=block.device)
            values = block[index, token].double().tolist()
            best = (block.argmax(dim=-1)[index] == token).tolist()
            for i, value, is_best in zip(here, values, best):
                likelihoods[i], greedy[i] = value, is_best
            if self.margins is not None:
                top = block[index].double().topk(2).values.tolist()
                for i, value, is_best, (first, second) in zip(here, values, best, top):
                    leads[i] = value - (second if is_best else first)
        answers: dict[int, Scored] = {}
        at = 0
        for answer in pack.answers:
            stop = at + len(answer.logits)
            answers[answer.request] = (sum(likelihoods[at:stop]), all(greedy[at:stop]))
            if self.margins is not None:
                self.margins[answer.request] = min(leads[at:stop])
            at = stop
        return answers


def _halve(groups: list[Group], cursor: Cursor) -> bool:
    """Split the document at `cursor`, which was too large alone; return False if it cannot be split."""
    documents = groups[cursor.group].documents
    halves = documents[cursor.document].halves()
    documents[cursor.document : cursor.document + 1] = halves
    return len(halves) > 1
