"""TRL's DPO trainer with the forward pass over packed pairs: the same numbers, without padding and repeated prompts.

TRL asks the model for per-token log-probabilities of a padded batch (`fused_lm_head=True`) and computes losses and
metrics from them. Here the model answers that call by running over the pack that comes with the batch and writing the
results to the places where TRL expects them. All losses, metrics and options remain TRL's, and so do the head and the
LoRA layers, except plain ones on a CPU (`preference_head.py`, `fused_lora.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import MethodType
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
from trl import DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput

from cst_bench.checkpoint.attention_choice import EAGER, attention_swapped
from cst_bench.checkpoint.inspection import base_model, batch_invariant_length, context_length, layer_count
from cst_bench.tuning.packed.fused_lora import fuse_lora
from cst_bench.tuning.packed.packed_attention import NAME, UnsupportedAttentionError
from cst_bench.tuning.packed.packing_support import CannotPack, difference
from cst_bench.tuning.packed.pair_packing import PackingCollator, PairPack, TokenizedPair
from cst_bench.tuning.packed.preference_head import TargetLogProbs, fits, has_plain_head
from cst_bench.tuning.packed.reference_cache import LogProbs, ReferenceCache, row_keys

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel
    from transformers.modeling_outputs import BaseModelOutput

_PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
"""Per-token results of TRL's fused head, in the order of `TargetLogProbs`."""
_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Type of the hidden states under each kind of mixed precision."""
_MORE_PADDING = 64
"""Tokens of padding that make SDPA and matrix products take other blocks."""
_CHECKED = 2
"""Rows computed both ways at the start: the longest ones, since a sliding window changes nothing in short ones."""


class TokenizedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer on rows that are token ids already (`prompt_ids`, `chosen_ids`, `rejected_ids`)."""

    def _prepare_dataset(self, dataset: Dataset, *_: object, **__: object) -> Dataset:
        return dataset


class PackedDPOTrainer(TokenizedDPOTrainer):
    """TRL's trainer over packed pairs, with reference log-probabilities from a cache on disk."""

    def __init__(self, *args: object, cache: ReferenceCache | None = None, **options: object) -> None:
        """Make the trainer, and compare the longest rows with TRL's own forward pass.

        Args:
            args: Arguments of `DPOTrainer`.
            cache: Cache of reference log-probabilities; if None, they are always computed.
            options: Keyword arguments of `DPOTrainer`.

        Raises:
            CannotPack: the log-probabilities of the longest rows differ from TRL's.
        """
        self._cache = cache
        self._checked = False
        with _weights_unhashed():
            super().__init__(*args, **options)
        self.data_collator = self._packing_collator()
        pack_forward(base_model(self.model))
        fuse_lora(self.model)
        if self.ref_model is not None:
            pack_forward(self.ref_model)
        self._check(self.ref_model or self.model, self.train_dataset)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Add TRL's columns, row by row from the cache; `DPOTrainer.__init__` calls this before it is done."""
        model = self.ref_model or self.model
        pack_forward(base_model(model))
        self._check(model, dataset)
        keys = row_keys(dataset, self.args.max_length)
        positions = {key: index for index, key in enumerate(keys)}  # a repeated row is computed once
        known: dict[str, LogProbs] = {}

        def compute(every: int = 1, first: int = 0) -> dict[str, LogProbs]:
            # a process's share does not depend on what others have written to the cache by now
            missing = [index for key, index in list(positions.items())[first::every] if key not in known]
            return self._reference(model, dataset, keys, missing, batch_size)

        if self._cache is not None:
            known |= self._cache.read()
            share = compute(self.accelerator.num_processes, self.accelerator.process_index)
            self._cache.add(share)
            self.accelerator.wait_for_everyone()
            known |= share if self.accelerator.num_processes == 1 else self._cache.read()
        known |= compute()
        for column, side in (("ref_chosen_logps", 0), ("ref_rejected_logps", 1)):
            dataset = dataset.add_column(column, [known[key][side] for key in keys])
        return dataset

    def _reference(
        self, model: PreTrainedModel, dataset: Dataset, keys: Sequence[str], indices: Sequence[int], batch_size: int
    ) -> dict[str, LogProbs]:
        """Compute the summed log-probabilities of chosen and rejected for the rows with these indices, by key."""
        collator = self._packing_collator()
        computed: dict[str, LogProbs] = {}
        for start in range(0, len(indices), batch_size):
            batch_indices = indices[start : start + batch_size]
            batch = self._prepare_inputs(collator([dataset[index] for index in batch_indices]))
            chosen, rejected = (side.tolist() for side in self.compute_ref_log_probs(model, batch))
            computed |= {keys[index]: (chosen[at], rejected[at]) for at, index in enumerate(batch_indices)}
        return computed

    def _packing_collator(self) -> PackingCollator:
        collator = self.data_collator
        return PackingCollator(
            pad_token_id=collator.pad_token_id,
            max_length=collator.max_length,
            truncation_mode=collator.truncation_mode,
            pad_to_multiple_of=collator.pad_to_multiple_of,
        )

    def _check(self, model: PreTrainedModel, dataset: Dataset) -> None:
        """Compare the log-probabilities of the longest rows with those of TRL's own forward pass, once.

        Raises:
            CannotPack: they differ.
        """
        if self._checked:
            return
        self._checked = True
        lengths = [
            len(prompt) + max(len(chosen), len(rejected))
            for prompt, chosen, rejected in zip(*(dataset[name] for name in _COLUMNS), strict=True)
        ]
        longest = sorted(range(len(lengths)), key=lambda index: -lengths[index])[:_CHECKED]
        rows = [dataset[index] for index in longest]
        batch = self._prepare_inputs(self._packing_collator()(rows))
        pack: PairPack = batch["cst_pack"]
        try:
            ours = self._token_log_probs(model, batch)
        except UnsupportedAttentionError as error:
            raise CannotPack(str(error)) from None
        layers = layer_count(model)
        if pack.calls != layers:
            raise CannotPack(f"{pack.calls} of its {layers} layers call the registered attention")
        theirs = self._token_log_probs(model, {**batch, "cst_pack": None})
        dtype = _AUTOCAST.get(self.accelerator.mixed_precision, base_model(model).dtype)
        with attention_swapped(base_model(model), EAGER) if dtype.itemsize < 4 else nullcontext():
            alone = [self._token_log_probs(model, self._alone(model, row)) for row in rows]
        chosen, rejected = zip(*alone, strict=True)
        reason = difference(ours, theirs, (*chosen, *rejected), dtype)
        if reason is not None:
            raise CannotPack(reason)

    def _alone(self, model: PreTrainedModel, row: TokenizedPair) -> dict[str, Any]:
        """Return TRL's batch of one pair, with more padding: where shapes are the same, so is the rounding."""
        batch = self._prepare_inputs(self._packing_collator()([row]))
        invariant = batch_invariant_length(base_model(model).config)
        longest = min(context_length(model.config, self.processing_class), invariant or sys.maxsize)
        more = max(0, min(_MORE_PADDING, longest - batch["input_ids"].shape[1]))
        names = ("input_ids", "attention_mask", "completion_mask")
        return {**{name: torch.nn.functional.pad(batch[name], (0, more)) for name in names}, "cst_pack": None}

    def _token_log_probs(self, model: PreTrainedModel, batch: dict[str, Any]) -> list[torch.Tensor]:
        """Compute the log-probabilities [tokens] of each sequence's response, as TRL does for the reference."""
        outputs: list[FusedCausalLMOutput] = []

        def forward(**options: Any) -> FusedCausalLMOutput:
            outputs.append(model(**options))
            return outputs[-1]

        self.compute_ref_log_probs(forward, batch)
        in_response = batch["completion_mask"][:, 1:].bool()
        return [values[mask] for values, mask in zip(outputs[0].log_probs, in_response, strict=True)]


@contextmanager
def _weights_unhashed() -> Iterator[None]:
    """Keep TRL from hashing all weights, a minute for 7B, for the key of a cache that `ReferenceCache` replaces."""
    with patch.object(sys.modules[DPOTrainer.__module__], "hash_module", lambda _: "", create=True):
        yield


def pack_forward(model: PreTrainedModel) -> None:
    """Patch a model with TRL's fused head to run over the pack of a batch that brings one. Idempotent.

    The model's attention becomes `packed_attention.NAME`, which is SDPA for all calls without a pack.
    """
    if getattr(model, "_cst_packs", False):
        return
    forward_of_trl = model.forward

    def forward(
        self: PreTrainedModel, *args: Any, cst_pack: PairPack | None = None, **options: Any
    ) -> FusedCausalLMOutput:
        if cst_pack is None:
            return forward_of_trl(*args, **options)
        device = options["input_ids"].device
        targets = cst_pack.targets[None].to(device)
        inputs = {
            "input_ids": cst_pack.ids[None].to(device),
            "position_ids": cst_pack.positions[None].to(device),
            "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),  # 4D, so that no other is made
            "use_cache": False,
            "cst_pack": cst_pack,
        }
        head = self.get_output_embeddings()
        if (
            has_plain_head(self)
            and not torch.is_autocast_enabled(device.type)
            and fits(targets.numel(), len(head.weight))
        ):
            hidden = self.base_model(**inputs).last_hidden_state[0]
            keep = torch.is_grad_enabled()
            results = TargetLogProbs.apply(hidden, head.weight, head.bias, targets[0], keep)  # type: ignore[no-untyped-call]
            per_token = {name: values[None] for name, values in zip(_PER_TOKEN, results, strict=True)}
            output = FusedCausalLMOutput(loss=-per_token["log_probs"].mean(), **per_token)
        else:
            output = forward_of_trl(shift_labels=targets, fused_lm_head=True, **inputs)
        places = cst_pack.places.to(device)
        return FusedCausalLMOutput(
            loss=output.loss,
            **{name: _scatter(getattr(output, name), places, cst_pack.shape) for name in _PER_TOKEN},
        )

    def keep_predicting_rows(
        _: PreTrainedModel, __: object, options: dict[str, Any], output: BaseModelOutput
    ) -> BaseModelOutput:
        if options.get("cst_pack") is not None:
            states = output.last_hidden_state
            output.last_hidden_state = states[:, options["cst_pack"].predicting.to(states.device)]
        return output

    model.forward = MethodType(forward, model)
    model.base_model.register_forward_hook(keep_predicting_rows, with_kwargs=True)
    model.set_attn_implementation(NAME)
    model._cst_packs = True


def _scatter(values: torch.Tensor | None, places: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor | None:
    """Write values [1, targets] to their places in a tensor [sequences, tokens] of zeros."""
    if values is None:
        return None
    flat = values.new_zeros(shape[0] * shape[1])
    return flat.index_copy(0, places.to(values.device), values[0]).view(shape)
