"""Attention by blocks against SDPA: about as near to the exact numbers and gradients in bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from cst_bench.checkpoint.block_attention import block_attention, suits_blocks
from tests.numerics import assert_as_exact


def states(rows: int, keys: int, heads: int, value_size: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(rows)
    shapes = ((6, rows, 16), (heads, keys, 16), (heads, keys, value_size))
    return [torch.randn(1, *shape, generator=draw).bfloat16() for shape in shapes]


def causal(rows: int, keys: int) -> torch.Tensor:
    """Return the additive mask of queries that are the last rows of the keys."""
    hidden = torch.ones(rows, keys, dtype=torch.bool).triu(keys - rows + 1)
    return torch.zeros(rows, keys).masked_fill_(hidden, float("-inf"))


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("rows", "keys", "heads", "value_size"), [(1, 1, 6, 16), (5, 9, 2, 16), (128, 128, 3, 16), (300, 420, 1, 24)]
)
def test_numbers_and_gradients_are_those_of_sdpa(
    rows: int, keys: int, heads: int, value_size: int, masked: bool, scale: float | None
) -> None:
    seen = causal(rows, keys)
    if masked:  # hides every third of the keys before the queries as well
        seen[:, : keys - rows : 3] = float("-inf")
    mask = seen.bfloat16() if masked else None
    ours, stock = states(rows, keys, heads, value_size), states(rows, keys, heads, value_size)
    exact = [tensor.double() for tensor in ours]
    for tensors in (ours, stock, exact):
        for tensor in tensors:
            tensor.requires_grad_()
    grouped = heads != 6
    query, key, value = ours
    mine = block_attention(query, key, value, mask, causal=mask is None, scale=scale)
    theirs = scaled_dot_product_attention(
        stock[0], stock[1], stock[2], seen.bfloat16(), scale=scale, enable_gqa=grouped
    )  # fmt: skip
    reference = scaled_dot_product_attention(
        exact[0], exact[1], exact[2], seen.double(), scale=scale, enable_gqa=grouped
    )  # fmt: skip
    assert_as_exact(mine, theirs, reference)
    weights = torch.randn(mine.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    for result in (mine, theirs, reference):
        result.backward(weights.to(result.dtype))  # type: ignore[no-untyped-call]
    for name, of_ours, of_stock, of_exact in zip(("query", "key", "value"), ours, stock, exact, strict=True):
        assert of_ours.grad is not None
        assert of_stock.grad is not None
        assert of_exact.grad is not None
        if keys > 1 or name == "value":  # the softmax of a single key has no gradient
            assert_as_exact(of_ours.grad, of_stock.grad, of_exact.grad, f"gradient of {name}")


def test_only_bfloat16_on_a_cpu_takes_blocks() -> None:
    query = torch.zeros(1, 1, 1, 1)
    assert suits_blocks(query.bfloat16())
    assert not suits_blocks(query)
    assert not suits_blocks(torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16, device="meta"))
