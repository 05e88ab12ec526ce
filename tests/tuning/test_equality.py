"""Packed training gives TRL's own numbers: loss, gradients and metrics, on random checkpoints in fp32."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkpoints import make_checkpoint

PAIRS = 4
SLOW = pytest.mark.slow


class Numbers(NamedTuple):
    loss: float
    gradients: dict[str, torch.Tensor]
    metrics: dict[str, float]


def make_rows(count: int = PAIRS, seed: int = 0) -> list[dict[str, list[int]]]:
    """Token ids of very different lengths, among them responses and prompts of one token."""
    draw = random.Random(seed)

    def ids(most: int) -> list[int]:
        return [draw.randrange(5, 380) for _ in range(draw.randint(1, most))]

    rows = [{"prompt_ids": ids(30), "chosen_ids": ids(25), "rejected_ids": ids(40)} for _ in range(count - 1)]
    return [*rows, {"prompt_ids": [7], "chosen_ids": [8], "rejected_ids": [9]}]


def numbers(packed: bool, folder: Path, work: Path, *, lora: bool, rows: Any = None, **options: Any) -> Numbers:
    """Loss, gradients and TRL's metrics of one batch, on weights that have moved away from the reference."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig

    from cst_bench.tuning.packed.packed_model import PackedDPOTrainer, RenderedDPOTrainer

    options = {"gradient_checkpointing": False, "max_length": 60, **options}
    args = DPOConfig(
        str(work), use_cpu=True, bf16=False, report_to="none", per_device_train_batch_size=PAIRS, **options
    )
    adapter = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = (PackedDPOTrainer if packed else RenderedDPOTrainer)(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=args,
        train_dataset=Dataset.from_list(rows or make_rows()),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=adapter if lora else None,
    )
    noise = torch.Generator().manual_seed(3)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.02 * torch.randn(parameter.shape, generator=noise))
    trainer.model.train()
    if options["gradient_checkpointing"]:
        trainer.model.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[i] for i in range(PAIRS)]))
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    return Numbers(loss.item(), gradients, {name: values[-1] for name, values in trainer._metrics["train"].items()})


def assert_equal(ours: Numbers, theirs: Numbers) -> None:
    assert ours.loss == pytest.approx(theirs.loss, abs=1e-5, rel=1e-6)
    assert ours.gradients.keys() == theirs.gradients.keys()
    for name, gradient in theirs.gradients.items():
        assert float((ours.gradients[name] - gradient).norm()) <= 1e-4 * float(gradient.norm()) + 1e-9, name
    assert ours.metrics == pytest.approx(theirs.metrics, abs=1e-4, rel=1e-5)


CASES: list[Any] = [
    ("llama", True, {"loss_type": ["sigmoid"]}),
    ("llama", False, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2], "precompute_ref_log_probs": True}),
    ("mistral", True, {"loss_type": ["ipo"], "precompute_ref_log_probs": True}),  # a window shorter than the rows
    ("qwen2", True, {"loss_type": ["sigmoid", "sft"], "gradient_checkpointing": True}),
    ("gpt_neox", True, {"loss_type": ["sigmoid"], "max_length": 33}),
    *(
        pytest.param(architecture, lora, {"loss_type": loss, "precompute_ref_log_probs": early}, marks=SLOW)
        for architecture in ("llama", "mistral", "qwen2", "gpt_neox", "gemma")
        for lora in (True, False)
        for loss in (["sigmoid"], ["ipo"], ["sigmoid", "sft"])
        for early in (False, True)
    ),
    *(
        pytest.param("llama", True, options, marks=SLOW)
        for options in (
            {"loss_type": ["sigmoid_norm"]},
            {"loss_type": ["robust"], "label_smoothing": 0.1},
            {"loss_type": ["sigmoid"], "ld_alpha": 0.5, "precompute_ref_log_probs": True},
            {"loss_type": ["sigmoid"], "use_weighting": True},
            {"loss_type": ["sigmoid"], "f_divergence_type": "js_divergence"},
            {"loss_type": ["sigmoid"], "gradient_checkpointing": True,
             "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "lora", "options"), CASES)
def test_packed_equals_trl(tmp_path: Path, architecture: str, lora: bool, options: dict[str, Any]) -> None:
    folder = make_checkpoint(tmp_path / architecture, architecture)
    theirs = numbers(False, folder, tmp_path / "stock", lora=lora, **options)
    assert_equal(numbers(True, folder, tmp_path / "packed", lora=lora, **options), theirs)


def test_it_can_tell_a_difference(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "llama", "llama")
    theirs = numbers(False, folder, tmp_path / "stock", lora=True)
    other = make_rows()
    other[0]["chosen_ids"][0] += 1
    with pytest.raises(AssertionError):
        assert_equal(numbers(True, folder, tmp_path / "packed", lora=True, rows=other), theirs)


ids = st.lists(st.integers(0, 99), min_size=1, max_size=9)


@given(st.lists(st.tuples(ids, ids, ids), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_pack_has_each_prompt_once_and_each_target_in_its_place(pairs: list[tuple[list[int], ...]]) -> None:
    from cst_bench.tuning.packed.pair_packing import make_pack

    pack = make_pack([(prompt, chosen, rejected) for prompt, chosen, rejected in pairs])
    length = max(len(p) + max(len(c), len(r)) for p, c, r in pairs)
    padded = torch.full((2 * len(pairs), length - 1), -1)
    padded.view(-1)[pack.places] = pack.targets
    assert len(set(pack.places.tolist())) == len(pack.places)
    assert pack.shape == (2 * len(pairs), length - 1)
    for index, (prompt, *responses) in enumerate(pairs):
        for side, response in enumerate(responses):
            line = padded[side * len(pairs) + index]
            start = len(prompt) - 1
            assert line[start : start + len(response)].tolist() == response
            assert (line[:start] == -1).all()
            assert (line[start + len(response) :] == -1).all()
    assert len(pack.ids) == sum(len(p) + len(c) + len(r) - 2 for p, c, r in pairs)
    # what a target is predicted from stands one position before it
    position = {place: place % (length - 1) for place in pack.places.tolist()}
    assert pack.positions[pack.predicting].tolist() == [position[place] for place in pack.places.tolist()]
