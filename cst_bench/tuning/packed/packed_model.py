"""TRL's DPO trainer with the forward pass over packed pairs: the same numbers, without padding and repeated prompts.

TRL asks the model for per-token log-probabilities of a padded batch (`fused_lm_head=True`) and makes losses and
metrics of them. That call is answered differently: the model runs over the pack that the batch brings along, and what
comes out is put in the places where TRL expects it. All of TRL's losses, metrics and options stay its own. So do head
and LoRA layers, but for plain ones on a CPU (`head.py`, `lora.py`).
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from trl import DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput

from cst_bench.tuning.packed.fused_lora import fuse_lora
from cst_bench.tuning.packed.packed_attention import NAME, UnsupportedAttentionError
from cst_bench.tuning.packed.packing_support import CannotPack, base_of, differs
from cst_bench.tuning.packed.pair_packing import Pack, PackingCollator
from cst_bench.tuning.packed.preference_head import TargetLogProbs, fits, has_plain_head
from cst_bench.tuning.packed.reference_cache import ReferenceCache, row_keys

_PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
"""In the order of `TargetLogProbs`, too."""
_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")
_CHECKED = 2
"""Rows that are computed both ways at the start: the longest, since a sliding window doesn't show in short ones."""


class RenderedDPOTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer on rows that are token ids already (`prompt_ids`, `chosen_ids`, `rejected_ids`)."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset


class PackedDPOTrainer(RenderedDPOTrainer):
    """TRL's trainer over packed pairs, with reference log-probabilities from a cache on disk."""

    def __init__(self, *args: Any, cache: ReferenceCache | None = None, **options: Any) -> None:
        """
        Args:
            args: As of `DPOTrainer`.
            cache: Where reference log-probabilities are kept; if None, they are computed anew.
            options: As of `DPOTrainer`.

        Raises:
            CannotPack: the longest rows give other numbers than TRL's own forward pass.
        """
        self._cache = cache
        self._checked = False
        super().__init__(*args, **options)
        self.data_collator = self._packing()
        pack_forward(base_of(self.model))
        fuse_lora(self.model)
        if self.ref_model is not None:
            pack_forward(self.ref_model)
        self._check(self.ref_model or self.model, self.train_dataset)

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """TRL's columns, row by row from the cache; called while `DPOTrainer.__init__` is still at work."""
        model = self.ref_model or self.model
        pack_forward(base_of(model))
        self._check(model, dataset)
        keys = row_keys(dataset, self.args.max_length)
        places = {key: index for index, key in enumerate(keys)}  # a row that is there twice is computed once
        known: dict[str, tuple[float, float]] = {}

        def compute(every: int = 1, first: int = 0) -> dict[str, tuple[float, float]]:
            # a process's share doesn't depend on what others have written to the cache by now
            missing = [index for key, index in list(places.items())[first::every] if key not in known]
            return self._reference(model, dataset, keys, missing, batch_size)

        if self._cache is not None:
            known |= self._cache.read()
            mine = compute(self.accelerator.num_processes, self.accelerator.process_index)
            self._cache.add(mine)
            self.accelerator.wait_for_everyone()
            known |= mine if self.accelerator.num_processes == 1 else self._cache.read()
        known |= compute()
        for column, side in (("ref_chosen_logps", 0), ("ref_rejected_logps", 1)):
            dataset = dataset.add_column(column, [known[key][side] for key in keys])
        return dataset

    def _reference(
        self, model: Any, dataset: Any, keys: list[str], indices: list[int], batch_size: int
    ) -> dict[str, tuple[float, float]]:
        """Summed log-probabilities of chosen and rejected, of some rows."""
        collator = self._packing()
        found: dict[str, tuple[float, float]] = {}
        for start in range(0, len(indices), batch_size):
            some = indices[start : start + batch_size]
            batch = self._prepare_inputs(collator([dataset[index] for index in some]))
            chosen, rejected = (side.tolist() for side in self.compute_ref_log_probs(model, batch))
            found |= {keys[index]: (chosen[at], rejected[at]) for at, index in enumerate(some)}
        return found

    def _packing(self) -> PackingCollator:
        collator: Any = self.data_collator
        return PackingCollator(
            pad_token_id=collator.pad_token_id,
            max_length=collator.max_length,
            truncation_mode=collator.truncation_mode,
            pad_to_multiple_of=collator.pad_to_multiple_of,
        )

    def _check(self, model: Any, dataset: Any) -> None:
        """Compares the log-probabilities of the longest rows with those of TRL's own forward pass, once."""
        if self._checked:
            return
        self._checked = True
        lengths = [
            len(prompt) + max(len(chosen), len(rejected))
            for prompt, chosen, rejected in zip(*(dataset[name] for name in _COLUMNS), strict=True)
        ]
        longest = sorted(range(len(lengths)), key=lambda index: -lengths[index])[:_CHECKED]
        batch = self._prepare_inputs(self._packing()([dataset[index] for index in longest]))
        pack: Pack = batch["cst_pack"]
        try:
            ours = torch.stack(self.compute_ref_log_probs(model, batch))
        except UnsupportedAttentionError as error:
            raise CannotPack(str(error)) from None
        layers = base_of(model).config.get_text_config().num_hidden_layers
        if pack.calls != layers:
            raise CannotPack(f"{pack.calls} of its {layers} layers call the registered attention")
        plain = {name: value for name, value in batch.items() if name != "cst_pack"}
        theirs = torch.stack(self.compute_ref_log_probs(model, plain))
        difference = differs(ours, theirs, tokens=len(pack.targets), dtype=base_of(model).dtype)
        if difference is not None:
            raise CannotPack(difference)


def pack_forward(model: Any) -> None:
    """Lets a model with TRL's fused LM head run over the pack of a batch that brings one. Twice does no more than once.

    The model's attention becomes `attention.NAME`, which is SDPA for all calls without a pack.
    """
    if getattr(model, "_cst_packs", False):
        return
    plain = model.forward

    def forward(self: Any, *args: Any, cst_pack: Pack | None = None, **options: Any) -> Any:
        if cst_pack is None:
            return plain(*args, **options)
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
            states = self.base_model(**inputs).last_hidden_state[0]
            keep = torch.is_grad_enabled()
            found = TargetLogProbs.apply(states, head.weight, head.bias, targets[0], keep)  # type: ignore[no-untyped-call]
            values = [one[None] for one in found]
            output = FusedCausalLMOutput(loss=-values[0].mean(), **dict(zip(_PER_TOKEN, values, strict=True)))
        else:
            output = plain(shift_labels=targets, fused_lm_head=True, **inputs)
        places = cst_pack.places.to(device)
        return FusedCausalLMOutput(
            loss=output.loss,
            **{name: _spread(getattr(output, name), places, cst_pack.shape) for name in _PER_TOKEN},
        )

    def targets_only(_: Any, __: Any, options: dict[str, Any], output: Any) -> Any:
        if options.get("cst_pack") is not None:
            states = output.last_hidden_state
            output.last_hidden_state = states[:, options["cst_pack"].predicting.to(states.device)]
        return output

    model.forward = MethodType(forward, model)
    model.base_model.register_forward_hook(targets_only, with_kwargs=True)
    model.set_attn_implementation(NAME)
    model._cst_packs = True


def _spread(values: torch.Tensor | None, places: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor | None:
    """Values [1, targets] in their places [sequences, tokens], zero elsewhere."""
    if values is None:
        return None
    flat = values.new_zeros(shape[0] * shape[1])
    return flat.index_copy(0, places.to(values.device), values[0]).view(shape)
