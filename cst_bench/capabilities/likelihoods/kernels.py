"""Three ways to compute attention over a pack: document by document, all at once with a mask, or with block masks.

The first does the least work and suits a CPU. A GPU needs few large kernels: FlexAttention, which skips blocks that are
masked entirely, or else SDPA with one mask for the whole pack.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn.functional import scaled_dot_product_attention

from cst_bench.capabilities.likelihoods.prefix_packing import PrefixPack, Segment

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

KernelName = Literal["documents", "flex", "masked"]

_NO_WINDOW = 2**30
"""Sliding window that never hides anything."""


def kernels_for(device: torch.device) -> list[KernelName]:
    """Return the kernels to try on a device, best first."""
    if device.type == "cpu":
        return ["documents"]
    return ["flex", "masked"] if device.type == "cuda" else ["masked"]


class Kernel(ABC):
    """Attention over one pack, for all layers of a forward pass."""

    def __init__(self, pack: PrefixPack, device: torch.device) -> None:
        """Store the pack's index tensors on a device."""
        self.pack = pack
        self.ends = torch.tensor(pack.ends, device=device)
        """[keys]"""
        self.positions = torch.tensor([*range(pack.kept), *pack.positions], device=device)
        """[keys]"""

    @abstractmethod
    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None, window: int | None
    ) -> torch.Tensor:
        """Compute attention: queries [1, heads, rows, size], keys [1, key heads, kept + rows, size] → as queries."""

    def visible(self, rows: torch.Tensor, keys: torch.Tensor, window: int | None) -> torch.Tensor:
        """Return which of `keys` [k] each of `rows` [q] (both counted as keys) sees: bool [q, k]."""
        q, k = rows[:, None], keys[None]
        seen = (k <= q) & (q < self.ends[keys][None])
        if window is not None:
            seen &= self.positions[keys][None] > self.positions[rows][:, None] - window
        return seen


class PerDocument(Kernel):
    """One or two calls of SDPA for each document."""

    def __init__(self, pack: PrefixPack, device: torch.device) -> None:
        """Start without masks; the first layer makes them, for all layers."""
        super().__init__(pack, device)
        self._masks: dict[tuple[int, int | None], torch.Tensor] = {}

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None, window: int | None
    ) -> torch.Tensor:
        """Compute attention as `Kernel` does."""
        out = query.new_empty(*query.shape[:3], value.shape[3])  # values may have another size than keys
        grouped = query.shape[1] != key.shape[1]
        for index, segment in enumerate(self.pack.segments):
            first = segment.start  # of the rows that need a mask
            if segment.prefix_start == segment.prefix_stop:
                alone = window is None or segment.trunk - segment.start <= window
                if alone:
                    first = segment.trunk
                    rows = slice(segment.start - self.pack.kept, first - self.pack.kept)
                    keys = slice(segment.start, first)
                    out[:, :, rows] = scaled_dot_product_attention(
                        query[:, :, rows], key[:, :, keys], value[:, :, keys],
                        is_causal=True, scale=scale, enable_gqa=grouped,
                    )  # fmt: skip
            if first == segment.stop:
                continue
            rows = slice(first - self.pack.kept, segment.stop - self.pack.kept)
            out[:, :, rows] = scaled_dot_product_attention(
                query[:, :, rows], _visible_keys(segment, key), _visible_keys(segment, value),
                attn_mask=self._mask(index, first, window, query), scale=scale, enable_gqa=grouped,
            )  # fmt: skip
        return out

    def _mask(self, index: int, first: int, window: int | None, query: torch.Tensor) -> torch.Tensor:
        """Return the additive mask [rows, keys] of the rows from `first` on; made once a pass."""
        mask = self._masks.get((index, window))
        if mask is None:
            segment = self.pack.segments[index]
            rows = torch.arange(first, segment.stop, device=self.ends.device)
            all_keys = torch.arange(len(self.ends), device=self.ends.device)
            keys = _visible_keys(segment, all_keys[None, None, :, None]).flatten()
            mask = torch.zeros(len(rows), len(keys), dtype=query.dtype, device=query.device)
            mask.masked_fill_(~self.visible(rows, keys, window).to(query.device), float("-inf"))
            self._masks[index, window] = mask
        return mask


def _visible_keys(segment: Segment, keys: torch.Tensor) -> torch.Tensor:
    """Return the keys [1, heads, keys, size] that a segment's rows can see."""
    rows = keys[:, :, segment.start : segment.stop]
    if segment.prefix_start == segment.prefix_stop:
        return rows
    return torch.cat([keys[:, :, segment.prefix_start : segment.prefix_stop], rows], dim=2)


class Masked(Kernel):
    """One call of SDPA with one mask [rows, keys]."""

    def __init__(self, pack: PrefixPack, device: torch.device) -> None:
        """Start without masks; the first layer makes them, for all layers."""
        super().__init__(pack, device)
        self._masks: dict[int | None, torch.Tensor] = {}

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None, window: int | None
    ) -> torch.Tensor:
        """Compute attention as `Kernel` does."""
        mask = self._masks.get(window)
        if mask is None:
            keys = torch.arange(len(self.ends), device=self.ends.device)
            mask = self._masks[window] = self.visible(keys[self.pack.kept :], keys, window)[None, None]
        repeats = query.shape[1] // key.shape[1]
        if repeats > 1:  # the memory-efficient kernel supports a mask, but not grouped heads
            key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
        return scaled_dot_product_attention(query, key, value, attn_mask=mask.to(query.device), scale=scale)


class Flex(Kernel):
    """FlexAttention with a block mask: blocks that are masked entirely are skipped."""

    def __init__(self, pack: PrefixPack, device: torch.device) -> None:
        """Start without masks; the first layer makes them, for all layers."""
        super().__init__(pack, device)
        self._masks: dict[tuple[int | None, torch.device], BlockMask] = {}

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None, window: int | None
    ) -> torch.Tensor:
        """Compute attention as `Kernel` does."""
        mask = self._masks.get((window, query.device))
        if mask is None:
            mask = self._masks[window, query.device] = self._block_mask(query.device, window)
        attend = _flex(query.device.type == "cuda")
        grouped = query.shape[1] != key.shape[1]
        return attend(query, key, value, block_mask=mask, scale=scale, enable_gqa=grouped)

    def _block_mask(self, device: torch.device, window: int | None) -> BlockMask:
        from torch.nn.attention.flex_attention import create_block_mask

        # everything that differs between packs is a tensor, so that one compiled kernel serves all
        ends, positions = self.ends.to(device), self.positions.to(device)
        kept = torch.tensor(self.pack.kept, device=device)
        first = positions - (_NO_WINDOW if window is None else window)

        def seen(_batch: torch.Tensor, _head: torch.Tensor, row: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            q = row + kept
            return (k <= q) & (q < ends[k]) & (positions[k] > first[q])

        return create_block_mask(seen, None, None, len(ends) - self.pack.kept, len(ends), device=str(device))


@lru_cache
def _flex(compiled: bool) -> Callable[..., torch.Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    attend: Callable[..., torch.Tensor] = flex_attention
    return torch.compile(attend, dynamic=True) if compiled else attend


_KERNELS: dict[KernelName, type[Kernel]] = {"documents": PerDocument, "flex": Flex, "masked": Masked}


def make_kernel(name: KernelName, pack: PrefixPack, device: torch.device) -> Kernel:
    """Make the kernel of that name for one pack."""
    return _KERNELS[name](pack, device)
