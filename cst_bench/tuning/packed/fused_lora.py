"""A LoRA layer in fewer passes over its outputs than PEFT's, on a CPU: the same numbers.

PEFT writes what the base layer gives, what the adapter gives, that scaled, and the sum of both, and as much again in
the backward pass. Here the adapter's product is added to the base's where it stands.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch.autograd.function import once_differentiable


def fuse_lora(model: torch.nn.Module) -> None:
    """Lets a model's LoRA layers take fewer passes; what is no plain layer in float32 on a CPU stays PEFT's."""
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is torch.nn.Linear:
            module.__class__ = FusedLinear


class FusedLinear(Linear):  # type: ignore[misc]
    """PEFT's layer, which it remains whenever there is more to it than one adapter on a frozen base."""

    def forward(self, x: torch.Tensor, *args: Any, **options: Any) -> Any:
        """As PEFT's."""
        name = None if args or options else self._plain_adapter(x)
        if name is None:
            return super().forward(x, *args, **options)
        base, down, up = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
        rows = x.reshape(-1, x.shape[-1])
        result = _Adapted.apply(rows, base.weight, base.bias, down, up, self.scaling[name])  # type: ignore[no-untyped-call]
        return result.view(*x.shape[:-1], len(base.weight))

    def _plain_adapter(self, x: torch.Tensor) -> str | None:
        """The one adapter, if nothing is to be done but to add it."""
        if self.disable_adapters or self.merged or self.fan_in_fan_out or len(self.active_adapters) != 1:
            return None
        name: str = self.active_adapters[0]
        if name not in self.lora_A or name in self.lora_variant or self.lora_bias[name]:
            return None
        base, down, up, dropout = self.base_layer, self.lora_A[name], self.lora_B[name], self.lora_dropout[name]
        if self.training and getattr(dropout, "p", 0.0):
            return None
        if any(inner._forward_hooks or inner._forward_pre_hooks for inner in (base, down, up, dropout)):
            return None
        tensors = (x, base.weight, down.weight, up.weight)
        if any(tensor.dtype != torch.float32 or tensor.device.type != "cpu" for tensor in tensors):
            return None
        trains_base = any(parameter.requires_grad for parameter in base.parameters())
        return None if trains_base or torch.is_autocast_enabled("cpu") else name


class _Adapted(torch.autograd.Function):
    """Inputs [rows, in] by frozen weights [out, in], and by an adapter's two [r, in] and [out, r], scaled."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """[rows, out]."""
        low = x @ down.t()
        ctx.save_for_backward(x, weight, down, up, low)
        ctx.scaling = scaling
        return torch.nn.functional.linear(x, weight, bias).addmm_(low, up.t(), alpha=scaling)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of inputs, if they are needed, and of the adapter's weights."""
        x, weight, down, up, low = ctx.saved_tensors
        of_low = (given @ up).mul_(ctx.scaling)
        of_x = (given @ weight).addmm_(of_low, down) if ctx.needs_input_grad[0] else None
        return of_x, None, None, of_low.t() @ x, (given.t() @ low).mul_(ctx.scaling), None
