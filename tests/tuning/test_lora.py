"""LoRA layers with fewer passes against PEFT's own: the same numbers, and PEFT's wherever there is more to a layer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from cst_bench.tuning.packed.fused_lora import _Adapted, fuse_lora


class Layers(torch.nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.first = torch.nn.Linear(24, 40, bias=bias)
        self.second = torch.nn.Linear(40, 8, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.second(torch.tanh(self.first(x)))
        return result


def adapted(*, biased: bool = False, **options: Any) -> tuple[Any, Any]:
    """The same model twice, the second with its layers exchanged; adapters have moved."""
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
    """Grows with every layer that is not PEFT's; what it computes stays real."""
    calls: list[int] = []
    real = _Adapted.apply

    def apply(*given: Any) -> Any:
        calls.append(1)
        return real(*given)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(_Adapted, "apply", apply)
    return calls


def results(model: Any, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    out = model(x)
    (out * torch.arange(out.numel()).view_as(out)).sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("shape", [(24,), (7, 24), (2, 5, 24), (0, 24)])
@pytest.mark.parametrize("bias", [False, True])
def test_numbers_and_gradients_are_those_of_peft(bias: bool, shape: tuple[int, ...], used: list[int]) -> None:
    stock, ours = adapted(biased=bias)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    theirs, mine = results(stock, x), results(ours, x)
    assert len(used) == 2
    assert len(theirs) == len(mine) == 6
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{"use_dora": True}, {"lora_dropout": 0.5}, {"lora_bias": True}, {"bias": "all"}], ids=str
)
def test_layers_with_more_to_them_stay_pefts(options: dict[str, Any], used: list[int]) -> None:
    stock, ours = adapted(biased=True, **options)
    x = torch.randn(4, 24)
    found = []
    for model in (stock, ours):
        torch.manual_seed(2)
        found.append(results(model, x))
    assert not used
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_an_adapter_that_is_switched_off_merged_or_one_of_two_is_pefts_affair(used: list[int]) -> None:
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
    found = []
    for model in adapted():
        model.base_model.model.first.lora_A["default"].register_forward_hook(lambda *given: 2 * given[-1])
        found.append(model(torch.ones(4, 24)))
    assert torch.equal(*found)
    assert len(used) == 1  # `second` has none


def test_other_types_are_left_alone(used: list[int]) -> None:
    stock, ours = (model.to(torch.bfloat16) for model in adapted())
    x = torch.randn(4, 24, dtype=torch.bfloat16)
    assert torch.equal(stock(x), ours(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(stock.float()(x.float()), ours.float()(x.float()))
    assert not used


def test_what_is_saved_is_what_peft_saves(tmp_path: Path) -> None:
    stock, ours = adapted()
    for model, name in ((stock, "stock"), (ours, "ours")):
        model.save_pretrained(tmp_path / name)
    for file in (tmp_path / "stock").glob("adapter_*"):
        assert file.read_bytes() == (tmp_path / "ours" / file.name).read_bytes()
