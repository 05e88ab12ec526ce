"""Log-probabilities of a pack's targets on a CPU, where TRL's kernel for the language-model head falls back to PyTorch.

TRL folds whole tiles, with temporaries larger than any cache, and multiplies by the head again in the backward pass.
Here tiles are small, and the exponentials are kept for the backward pass. The numbers are the same.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from torch.autograd.function import FunctionCtx
    from transformers import PreTrainedModel

    class Context(FunctionCtx):
        """Context of `TargetLogProbs`."""

        needs_input_grad: tuple[bool, ...]
        saved_tensors: tuple[torch.Tensor, ...]


_TILE = 1 << 18
"""Logits of a tile: a megabyte, which stays in the CPU's cache."""
_ROWS = 64
"""Fewest rows of a tile: fewer are multiplied faster than the head's weights are read from memory."""
_KEPT = 1 << 26
"""Most exponentials to keep for a backward pass: 256 MiB."""
_CHANGED = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
)
"""Settings of models that change their logits, which TRL's head applies."""


def has_plain_head(model: PreTrainedModel) -> bool:
    """Return whether a model's logits are its hidden states times the head's weights, on a CPU.

    They must be in float32, or in bfloat16 with frozen weights.
    """
    config = model.config.get_text_config()
    weight: torch.Tensor = model.get_output_embeddings().weight
    return (
        weight.device.type == "cpu"
        and (weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and not weight.requires_grad))
        and all(getattr(config, name, None) is None for name in _CHANGED)
    )


def fits(targets: int, vocabulary: int) -> bool:
    """Return whether the exponentials of this number of targets may be kept."""
    return targets * vocabulary <= _KEPT


class TargetLogProbs(torch.autograd.Function):
    """Log-probabilities and statistics of N targets; only the log-probabilities have a gradient."""

    @staticmethod
    def forward(
        ctx: Context,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        keep: bool,
    ) -> tuple[torch.Tensor, ...]:
        """Compute the results of all targets.

        Args:
            ctx: Context for the backward pass.
            hidden: Hidden states [N, size].
            weight: The head's weight [vocabulary, size].
            bias: The head's bias [vocabulary].
            targets: Token ids [N].
            keep: Prepare for a backward pass (in here, PyTorch does not say whether there is one).

        Returns:
            Each [N]: log-probability, entropy, log of the sum of squared probabilities, mean logit, and whether the
            target is the most probable token.
        """
        kept = hidden.new_empty(len(hidden), len(weight)) if keep and any(ctx.needs_input_grad) else None
        totals = hidden.new_empty(len(hidden), 1, dtype=torch.float32)
        parts = []
        for rows in _tiles(len(hidden), len(weight)):
            targeted = targets[rows, None]
            logits = (hidden[rows] @ weight.t()).float()
            if hidden.dtype != torch.float32:  # the product was rounded; a target is the likely error
                exact = torch.linalg.vecdot(hidden[rows].float(), weight[targets[rows]].float())
                logits.scatter_(1, targeted, exact[:, None])
            if bias is not None:
                logits += bias
            top = logits.amax(-1, keepdim=True)
            logits -= top
            powers = logits.exp()
            if kept is not None:
                kept[rows] = powers
            total = totals[rows] = powers.sum(-1, keepdim=True)
            log_total = torch.log(total)
            parts.append(
                (
                    logits.gather(1, targeted) - log_total,
                    log_total - torch.linalg.vecdot(powers, logits)[:, None] / total,
                    torch.log(torch.linalg.vecdot(powers, powers)[:, None]) - 2 * log_total,
                    logits.mean(-1, keepdim=True) + top,
                    logits.argmax(-1, keepdim=True) == targeted,
                )
            )
        results = tuple(torch.cat(part)[:, 0] for part in zip(*parts, strict=True))
        if kept is not None:
            ctx.save_for_backward(hidden, weight, targets, kept, totals)
        ctx.mark_non_differentiable(*results[1:])
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Compute the gradients of hidden states, weight and bias that are needed."""
        hidden, weight, targets, kept, totals = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        if not needs_weight and not needs_bias:
            return _gradient_of_hidden(gradients[0], weight, targets, kept, totals), None, None, None, None
        grad_weight = torch.zeros_like(weight) if needs_weight else None
        grad_bias = weight.new_zeros(len(weight)) if needs_bias else None
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        for rows in _tiles(len(hidden), len(weight)):
            grad_log_probs = gradients[0][rows, None]
            grad_logits = kept[rows] * (-grad_log_probs / totals[rows])
            grad_logits.scatter_add_(1, targets[rows, None], grad_log_probs)
            if grad_hidden is not None:
                torch.mm(grad_logits, weight, out=grad_hidden[rows])
            if grad_weight is not None:
                grad_weight.addmm_(grad_logits.t(), hidden[rows])
            if grad_bias is not None:
                grad_bias += grad_logits.sum(0)
        return grad_hidden, grad_weight, grad_bias, None, None


def _gradient_of_hidden(
    grad_log_probs: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, kept: torch.Tensor, totals: torch.Tensor
) -> torch.Tensor:
    """Compute the gradient of hidden states without gradients of the logits: the target's weights less the mean's."""
    mean = (kept @ weight).float() / totals
    return (grad_log_probs[:, None] * (weight[targets] - mean)).to(kept.dtype)


def _tiles(rows: int, vocabulary: int) -> list[slice]:
    """Divide rows into tiles of about equal size, so that none is a single row, which is multiplied less exactly."""
    tiles = -(-rows // max(_ROWS, _TILE // vocabulary))
    ends = [rows * at // tiles for at in range(tiles + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]
