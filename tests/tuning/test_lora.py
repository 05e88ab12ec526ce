"""Fused LoRA layers against PEFT's: the same numbers, and PEFT's own code for every layer that is not plain."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from cst_bench.tuning.packed.fused_lora import _AdaptedLinear, fuse_lora
from tests.numerics import assert_as_exact


class Layers(torch.nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.first = torch.nn.Linear(24, 40, bias=bias)
        self.second = torch.nn.Linear(40, 8, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.second(torch.tanh(self.first(x)))
        return result


def adapted(*, biased: bool = False, **options: Any) -> tuple[Any, Any]:
    """Make a model twice, the second time with its layers fused; its adapters have been trained a little."""
    torch.manual_seed(0)
    config = LoraConfig(**{"r": 3, "lora_alpha": 9, "target_modules": ["first", "second"], **options})
    stock = get_peft_model(Layers(biased), config)
    for name, parameter in stock.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3)
    ours = copy.deepcopy(stock)
    fuse_lora(ours)
    return stock, ours


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with every call of a fused layer, which computes as ever."""
    calls: list[int] = []
    real = _AdaptedLinear.apply

    def apply(*arguments: Any) -> Any:
        calls.append(1)
        return real(*arguments)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(_AdaptedLinear, "apply", apply)
    return calls


def results(model: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """Return the output, and the gradients of the inputs and of all adapters."""
    x = x.clone().requires_grad_()
    out = model(x)
    (out * torch.arange(out.numel()).view_as(out)).sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("shape", [(24,), (7, 24), (2, 5, 24), (0, 24)])
@pytest.mark.parametrize("bias", [False, True])
def test_numbers_and_gradients_are_those_of_peft(bias: bool, shape: tuple[int, ...], used: list[int]) -> None:
    stock, ours = adapted(biased=bias)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    exact = results(copy.deepcopy(stock).double(), x.double())
    theirs, mine = results(stock, x), results(ours, x)
    assert len(used) == 2
    assert len(theirs) == len(mine) == len(exact) == 6
    for index in range(6):
        assert_as_exact(mine[index], theirs[index], exact[index], f"result {index}")


@pytest.mark.parametrize(
    "options", [{"use_dora": True}, {"lora_dropout": 0.5}, {"lora_bias": True}, {"bias": "all"}], ids=str
)
def test_layers_with_more_to_them_stay_pefts(options: dict[str, Any], used: list[int]) -> None:
    stock, ours = adapted(biased=True, **options)
    x = torch.randn(4, 24)
    of_models = []
    for model in (stock, ours):
        torch.manual_seed(2)
        of_models.append(results(model, x))
    assert not used
    for theirs, mine in zip(*of_models, strict=True):
        assert torch.equal(theirs, mine)


def test_an_adapter_that_is_switched_off_merged_or_not_the_only_one_stays_pefts(used: list[int]) -> None:
    stock, ours = adapted()
    x = torch.randn(4, 24)
    with stock.disable_adapter(), ours.disable_adapter():
        assert torch.equal(stock(x), ours(x))
    for model in (stock, ours):
        model.add_adapter("other", LoraConfig(r=2, target_modules=["first"], init_lora_weights=False))
    ours.load_state_dict(stock.state_dict())
    for model in (stock, ours):
        model.base_model.set_adapter(["default", "other"])
    assert torch.equal(stock(x), ours(x))
    assert torch.equal(stock.merge_and_unload()(x), ours.merge_and_unload()(x))
    assert not used


def test_a_copy_has_its_own_weights() -> None:
    _, ours = adapted()
    other = copy.deepcopy(ours)
    for parameter in other.parameters():
        parameter.data.zero_()
    x = torch.randn(4, 24)
    assert not other(x).any()
    with other.disable_adapter():
        assert not other(x).any()


def test_hooks_on_inner_layers_are_called(used: list[int]) -> None:
    stock, ours = adapted()
    for model in (stock, ours):
        model.base_model.model.first.lora_A["default"].register_forward_hook(lambda *arguments: 2 * arguments[-1])
    x = torch.ones(4, 24)
    assert_as_exact(ours(x), stock(x), copy.deepcopy(stock).double()(x.double()))
    assert len(used) == 1  # `second` has no hook, and is fused


@pytest.mark.parametrize("adapter", [torch.float32, torch.bfloat16])
def test_on_a_base_in_bfloat16_it_rounds_about_as_peft_does(adapter: torch.dtype, used: list[int]) -> None:
    stock, ours = adapted(biased=True)
    for model in (stock, ours):
        model.to(adapter)
        for layer in (model.base_model.model.first, model.base_model.model.second):
            layer.base_layer.to(torch.bfloat16)
    x = torch.randn(50, 24, generator=torch.Generator().manual_seed(1)).bfloat16()
    exact = results(copy.deepcopy(stock).double(), x.double())
    theirs, mine = results(stock, x), results(ours, x)
    assert len(used) == 2
    for index in range(6):
        assert_as_exact(mine[index], theirs[index], exact[index], f"result {index}")


def test_other_types_are_left_alone(used: list[int]) -> None:
    stock, ours = (model.to(torch.float16) for model in adapted())
    x = torch.randn(4, 24, dtype=torch.float16)
    assert torch.equal(stock(x), ours(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(stock.float()(x.float()), ours.float()(x.float()))
    assert not used


def test_what_is_saved_is_what_peft_saves(tmp_path: Path) -> None:
    stock, ours = adapted()
    for model, name in ((stock, "stock"), (ours, "ours")):
        model.save_pretrained(tmp_path / name)
    names = ["adapter_model.safetensors", "adapter_config.json"]
    assert sorted(file.name for file in (tmp_path / "stock").glob("adapter_*")) == sorted(names)
    weights, configs = ([(tmp_path / folder / name).read_bytes() for folder in ("stock", "ours")] for name in names)
    assert weights[0] == weights[1]
    theirs, mine = map(json.loads, configs)
    for config in (theirs, mine):
        config["target_modules"].sort()  # a set, in any order
    assert theirs == mine
