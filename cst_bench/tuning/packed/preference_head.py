"""Log-probabilities of a pack's targets on a CPU, where TRL's kernel for the language-model head falls back to PyTorch.

TRL's folds whole tiles, with temporaries larger than any cache, and multiplies by the head once more in the backward
pass. Here tiles are small, and the exponentials are kept for the backward pass. The numbers are the same.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch.autograd.function import once_differentiable

_TILE = 1 << 18
"""Logits at a time: a megabyte, which stays in the cache."""
_ROWS = 8
"""Rows at a time, at least."""
_KEPT = 1 << 26
"""Most exponentials that are kept for a backward pass: 256 MiB."""
_CHANGED = (
    "final_logit_softcapping",
    "logit_scale",
    "output_multiplier",
    "lm_head_multiplier",
    "logits_scaling",
)
"""Settings by which models change their logits; TRL knows how."""


def has_plain_head(model: Any) -> bool:
    """Whether a model's logits are its hidden states by the head's weights, in float32 on a CPU, and nothing else."""
    config = model.config.get_text_config()
    weight = model.get_output_embeddings().weight
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and all(getattr(config, name, None) is None for name in _CHANGED)
    )


def fits(targets: int, vocabulary: int) -> bool:
    """Whether the exponentials of so many targets may be kept."""
    return targets * vocabulary <= _KEPT


class TargetLogProbs(torch.autograd.Function):
    """Of N targets with hidden states [N, size]; all results have shape [N], and the first alone has a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        keep: bool,
    ) -> tuple[torch.Tensor, ...]:
        """Log-probabilities, entropy, log of the sum of squared probabilities, mean logit, whether it is the top.

        Unless `keep`, there is no backward pass (in here, PyTorch doesn't tell).
        """
        kept = hidden.new_empty(len(hidden), len(weight)) if keep and any(ctx.needs_input_grad) else None
        totals = hidden.new_empty(len(hidden), 1)
        parts = []
        for rows in _tiles(len(hidden), len(weight)):
            logits = hidden[rows] @ weight.t()
            if bias is not None:
                logits += bias
            wanted = targets[rows, None]
            top = logits.amax(-1, keepdim=True)
            logits -= top
            powers = torch.exp(logits, out=None if kept is None else kept[rows])
            total = totals[rows] = powers.sum(-1, keepdim=True)
            log_total = torch.log(total)
            parts.append(
                (
                    logits.gather(1, wanted) - log_total,
                    log_total - torch.linalg.vecdot(powers, logits)[:, None] / total,
                    torch.log(torch.linalg.vecdot(powers, powers)[:, None]) - 2 * log_total,
                    logits.mean(-1, keepdim=True) + top,
                    logits.argmax(-1, keepdim=True) == wanted,
                )
            )
        results = tuple(torch.cat(part)[:, 0] for part in zip(*parts, strict=True))
        if kept is not None:
            ctx.save_for_backward(hidden, weight, targets, kept, totals)
        ctx.mark_non_differentiable(*results[1:])
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of hidden states, weight and bias, as far as they are needed."""
        hidden, weight, targets, kept, totals = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        of_hidden = torch.empty_like(hidden) if needs_hidden else None
        of_weight = torch.zeros_like(weight) if needs_weight else None
        of_bias = weight.new_zeros(len(weight)) if needs_bias else None
        for rows in _tiles(len(hidden), len(weight)):
            given = gradients[0][rows, None]
            of_logits = kept[rows] * (-given / totals[rows])
            of_logits.scatter_add_(1, targets[rows, None], given)
            if of_hidden is not None:
                torch.mm(of_logits, weight, out=of_hidden[rows])
            if of_weight is not None:
                of_weight.addmm_(of_logits.t(), hidden[rows])
            if of_bias is not None:
                of_bias += of_logits.sum(0)
        return of_hidden, of_weight, of_bias, None, None


def _tiles(rows: int, vocabulary: int) -> list[slice]:
    """Of about the same size, so that none is a single row, which is multiplied less exactly."""
    tiles = -(-rows // max(_ROWS, _TILE // vocabulary))
    ends = [rows * at // tiles for at in range(tiles + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]
