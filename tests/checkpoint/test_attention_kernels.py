"""Grouped attention gives the same by every kernel, and cuDNN is left out only for a while."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from cst_bench.checkpoint.attention_kernels import grouped_attention, many_lengths


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("heads", [8, 4, 2])
def test_grouped_heads_are_those_of_repeated_keys_and_values(
    masked: bool, taken: bool, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one seam: whether a kernel takes grouped heads."""
    monkeypatch.setattr("cst_bench.checkpoint.attention_kernels._takes_groups", lambda *call: taken)
    query, key, value = torch.randn(1, 8, 9, 16), torch.randn(1, heads, 9, 16), torch.randn(1, heads, 9, 12)
    mask = torch.ones(9, 9, dtype=torch.bool).tril(-1).logical_not() if masked else None
    ours = grouped_attention(query, key, value, mask, causal=not masked, scale=0.3)
    key, value = (states.repeat_interleave(8 // heads, dim=1) for states in (key, value))
    theirs = scaled_dot_product_attention(query, key, value, mask, is_causal=not masked, scale=0.3)
    torch.testing.assert_close(ours, theirs)


def test_on_a_device_whose_kernels_are_not_known_heads_are_repeated() -> None:
    query, key = torch.randn(1, 8, 9, 16, device="meta"), torch.randn(1, 2, 9, 16, device="meta")
    assert grouped_attention(query, key, key, causal=True).shape == query.shape


def test_cudnn_is_left_out_inside_and_comes_back_after_an_error() -> None:
    enabled = torch.backends.cuda.cudnn_sdp_enabled
    before = enabled()  # type: ignore[no-untyped-call]
    seen = []

    def fail() -> None:
        with many_lengths():
            seen.append(enabled())  # type: ignore[no-untyped-call]
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert seen == [False]
    assert enabled() == before  # type: ignore[no-untyped-call]
