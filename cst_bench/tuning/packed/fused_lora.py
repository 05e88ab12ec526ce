"""A LoRA layer with fewer passes over its outputs than PEFT's, on a CPU: the same numbers.

PEFT writes the base layer's output, the adapter's, the scaled adapter's, and their sum, and as many tensors in the
backward pass. Here the adapter's product is added to the base's in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from peft.tuners.lora import Linear
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx

    class Context(FunctionCtx):
        """Context of `_AdaptedLinear`."""

        needs_input_grad: tuple[bool, ...]
        saved_tensors: tuple[torch.Tensor, ...]
        scaling: float
        adapter_types: tuple[torch.dtype, torch.dtype]


_TYPES = (torch.float32, torch.bfloat16)
"""Types of inputs and base. The adapter may be in float32 on a base in bfloat16, whose type it is multiplied in."""


def fuse_lora(model: torch.nn.Module) -> None:
    """Swap a model's LoRA layers on linear layers for the fused version, which uses PEFT's where it does not apply."""
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is torch.nn.Linear:
            module.__class__ = FusedLinear


class FusedLinear(Linear):  # type: ignore[misc]
    """PEFT's layer, fused for one plain adapter on a frozen base in float32 on a CPU."""

    def forward(self, x: torch.Tensor, *args: object, **options: object) -> torch.Tensor:
        """Compute the layer's output, as PEFT's layer does."""
        name = None if args or options else self._plain_adapter(x)
        if name is None:
            output: torch.Tensor = super().forward(x, *args, **options)
            return output
        base, down, up = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
        rows = x.reshape(-1, x.shape[-1])
        result: torch.Tensor = _AdaptedLinear.apply(  # type: ignore[no-untyped-call]
            rows, base.weight, base.bias, down, up, self.scaling[name]
        )
        return result.view(*x.shape[:-1], len(base.weight))

    def _plain_adapter(self, x: torch.Tensor) -> str | None:
        """Return the only adapter, if it is to be added without dropout, variants or hooks; None otherwise."""
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
        if any(tensor.device.type != "cpu" for tensor in (x, base.weight, down.weight, up.weight)):
            return None
        adapter_types = (torch.float32, base.weight.dtype)
        if (
            x.dtype != base.weight.dtype
            or x.dtype not in _TYPES
            or not {down.weight.dtype, up.weight.dtype}.issubset(adapter_types)
        ):
            return None
        trains_base = any(parameter.requires_grad for parameter in base.parameters())
        return None if trains_base or torch.is_autocast_enabled("cpu") else name


class _AdaptedLinear(torch.autograd.Function):
    """Linear layer with frozen weights, plus the scaled product of an adapter's two matrices."""

    @staticmethod
    def forward(
        ctx: Context,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Return the output [rows, out].

        Args:
            ctx: Context for the backward pass.
            x: Inputs [rows, in].
            weight: Frozen weight [out, in].
            bias: Frozen bias [out].
            down: The adapter's first matrix [r, in].
            up: The adapter's second matrix [out, r].
            scaling: Factor of the adapter's product.
        """
        ctx.scaling, ctx.adapter_types = scaling, (down.dtype, up.dtype)
        down, up = down.to(x.dtype), up.to(x.dtype)
        low = x @ down.t()
        ctx.save_for_backward(x, weight, down, up, low)
        return torch.nn.functional.linear(x, weight, bias).addmm_(low, up.t(), alpha=scaling)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Compute the gradients of the adapter's matrices, and of the inputs if they are needed."""
        x, weight, down, up, low = ctx.saved_tensors
        grad_low = (grad @ up).mul_(ctx.scaling)
        grad_x = (grad @ weight).addmm_(grad_low, down) if ctx.needs_input_grad[0] else None
        of_down, of_up = ctx.adapter_types
        grad_down, grad_up = (grad_low.t() @ x).to(of_down), (grad.t() @ low).to(of_up).mul_(ctx.scaling)
        return grad_x, None, None, grad_down, grad_up, None
