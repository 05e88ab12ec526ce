"""Packed training gives TRL's own numbers: loss, gradients and metrics, on random checkpoints in fp32."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import trl.trainer.utils
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig

from cst_bench.tuning.packed import PackedDPOTrainer, TokenizedDPOTrainer
from cst_bench.tuning.packed.pair_packing import make_pack
from tests.checkpoints import make_checkpoint
from tests.numerics import assert_as_exact

PAIRS = 4
SLOW = pytest.mark.slow


class Numbers(NamedTuple):
    loss: float
    gradients: dict[str, torch.Tensor]
    metrics: dict[str, float]


class ExactHead:
    """Stands in for TRL's head, which computes in float32 whatever the type of the model."""

    @staticmethod
    def apply(hidden: torch.Tensor, weight: torch.Tensor, bias: Any, targets: torch.Tensor, *_: Any) -> Any:
        logits = hidden @ weight.t() + (0 if bias is None else bias)
        logs = logits.log_softmax(-1)
        return (
            logs.gather(1, targets[:, None])[:, 0],
            -(logs.exp() * logs).sum(-1).detach(),
            (2 * logs).logsumexp(-1).detach(),
            logits.mean(-1).detach(),
            logits.argmax(-1) == targets,
        )


def make_rows(count: int = PAIRS, seed: int = 0) -> list[dict[str, list[int]]]:
    """Make rows of very different lengths, among them a prompt and responses of one token."""
    draw = random.Random(seed)

    def ids(most: int) -> list[int]:
        return [draw.randrange(5, 380) for _ in range(draw.randint(1, most))]

    rows = [{"prompt_ids": ids(30), "chosen_ids": ids(25), "rejected_ids": ids(40)} for _ in range(count - 1)]
    return [*rows, {"prompt_ids": [7], "chosen_ids": [8], "rejected_ids": [9]}]


def packed_numbers(folder: Path, work: Path, *, lora: bool, rows: Any = None, **options: Any) -> Numbers:
    """Compute a batch with the packed trainer."""
    return numbers(PackedDPOTrainer, folder, work, torch.float32, lora=lora, rows=rows, **options)


def stock_numbers(folder: Path, work: Path, *, lora: bool, **options: Any) -> tuple[Numbers, Numbers]:
    """Compute a batch with TRL's own forward pass, in float32 and in float64."""
    single = numbers(TokenizedDPOTrainer, folder, work, torch.float32, lora=lora, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trl.trainer.utils, "_ChunkedLogProbFunction", ExactHead)
        double = numbers(TokenizedDPOTrainer, folder, work, torch.float64, lora=lora, **options)
    return single, double


def numbers(
    trainer_class: Any, folder: Path, work: Path, dtype: torch.dtype, *, lora: bool, rows: Any = None, **options: Any
) -> Numbers:
    """Compute loss, gradients and TRL's metrics of a batch, on weights that have moved away from the reference."""
    options = {"gradient_checkpointing": False, "max_length": 60, **options}
    args = DPOConfig(
        str(work), use_cpu=True, bf16=False, report_to="none", per_device_train_batch_size=PAIRS, **options
    )
    adapter = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = trainer_class(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(dtype),
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


def assert_equal(ours: Numbers, theirs: Numbers, exact: Numbers) -> None:
    """Check that our numbers differ from TRL's by no more than rounding."""
    assert ours.gradients.keys() == theirs.gradients.keys() == exact.gradients.keys()
    for name, gradient in exact.gradients.items():
        assert_as_exact(ours.gradients[name], theirs.gradients[name], gradient, name)
    assert ours.metrics.keys() == theirs.metrics.keys() == exact.metrics.keys()
    # loss and metrics are differences and functions of sums of log-probabilities
    sums = torch.tensor([exact.metrics[f"logps/{side}"] for side in ("chosen", "rejected")])
    for name in ("loss", *exact.metrics):
        values = [named(numbers, name) for numbers in (ours, theirs, exact)]
        single, stock = (torch.tensor(value) for value in values[:2])
        assert_as_exact(single, stock, torch.tensor(values[2], dtype=torch.float64), name, terms=sums)


def named(numbers: Numbers, name: str) -> float:
    return numbers.loss if name == "loss" else numbers.metrics[name]


CASES: list[Any] = [
    ("llama", True, {"loss_type": ["sigmoid"]}),
    ("llama", False, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2], "precompute_ref_log_probs": True}),
    ("mistral", True, {"loss_type": ["ipo"], "precompute_ref_log_probs": True}),  # a window shorter than the rows
    ("qwen2", True, {"loss_type": ["sigmoid", "sft"], "gradient_checkpointing": True}),
    ("gpt_neox", True, {"loss_type": ["sigmoid"], "max_length": 33}),
    ("llama", True, {"pad_to_multiple_of": 64, "precompute_ref_log_probs": True}),
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
    theirs, exact = stock_numbers(folder, tmp_path / "stock", lora=lora, **options)
    assert_equal(packed_numbers(folder, tmp_path / "packed", lora=lora, **options), theirs, exact)


def test_weights_are_not_hashed_for_a_cache_that_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hashed(module: object) -> str:
        raise AssertionError("the weights are hashed")

    monkeypatch.setattr("trl.trainer.dpo_trainer.hash_module", hashed)
    folder = make_checkpoint(tmp_path / "llama", "llama")
    options = {"lora": True, "precompute_ref_log_probs": True}
    packed_numbers(folder, tmp_path / "packed", **options)
    with pytest.raises(AssertionError, match="are hashed"):
        numbers(TokenizedDPOTrainer, folder, tmp_path / "stock", torch.float32, **options)


def test_it_can_tell_a_difference(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "llama", "llama")
    theirs, exact = stock_numbers(folder, tmp_path / "stock", lora=True)
    other = make_rows()
    other[0]["chosen_ids"][0] += 1
    with pytest.raises(AssertionError, match=r"error .* stock"):
        assert_equal(packed_numbers(folder, tmp_path / "packed", lora=True, rows=other), theirs, exact)


ids = st.lists(st.integers(0, 99), min_size=1, max_size=9)


@given(st.lists(st.tuples(ids, ids, ids), min_size=1, max_size=4), st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_a_pack_has_each_prompt_once_and_each_target_in_its_place(
    pairs: list[tuple[list[int], ...]], padding: int
) -> None:
    length = max(len(p) + max(len(c), len(r)) for p, c, r in pairs) + padding
    pack = make_pack([(prompt, chosen, rejected) for prompt, chosen, rejected in pairs], length)
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
    # each target is predicted from the position before it
    position = {place: place % (length - 1) for place in pack.places.tolist()}
    assert pack.positions[pack.predicting].tolist() == [position[place] for place in pack.places.tolist()]
