"""Three ways to compute attention over a pack: document by document, all at once with a mask, or with block masks.

The first does the least work and suits a CPU. A GPU wants few large kernels: FlexAttention, which skips the blocks
in which nobody sees anybody, or else SDPA with one mask for the whole pack.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, Literal

import torch
from torch.nn.functional import scaled_dot_product_attention

from cst_bench.capabilities.likelihoods.prefix_packing import Pack, Segment

KernelName = Literal["documents", "flex", "masked"]

_NO_WINDOW = 2**30
"""A sliding window that nothing leaves."""


def kernels_for(device: torch.device) -> list[KernelName]:
    """Which to try on a device, best first."""
    if device.type == "cpu":
        return ["documents"]
    return ["flex", "masked"] if device.type == "cuda" else ["masked"]


class Kernel(ABC):
    """Attention over one pack, for all layers of a forward pass."""

    def __init__(self, pack: Pack, device: torch.device) -> None:
        self.pack = pack
        self.ends = torch.tensor(pack.ends, device=device)
        """[keys]"""
        self.positions = torch.tensor([*range(pack.kept), *pack.positions], device=device)
        """[keys]"""
        self._masks: dict[Any, Any] = {}
        """Made once, when the first layer needs them."""

    @abstractmethod
    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None, window: int | None
    ) -> torch.Tensor:
        """Queries [1, heads, rows, size] and keys [1, key heads, kept + rows, size] → [1, heads, rows, size]."""

    def visible(self, rows: torch.Tensor, keys: torch.Tensor, window: int | None) -> torch.Tensor:
        """Which of `keys` [k] each of `rows` [q] (both counted as keys) sees: bool [q, k]."""
        q, k = rows[:, None], keys[None]
        seen = (k <= q) & (q < self.ends[keys][None])
        if window is not None:
            seen &= self.positions[keys][None] > self.positions[rows][:, None] - window
        return seen


class PerDocument(Kernel):
    """One or two calls of SDPA for each document."""

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None, window: int | None
    ) -> torch.Tensor:
        """As `Kernel` says."""
        out = query.new_empty(*query.shape[:3], value.shape[3])  # values may have a size of their own
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
                query[:, :, rows], _of(segment, key), _of(segment, value),
                attn_mask=self._mask(index, first, window, query), scale=scale, enable_gqa=grouped,
            )  # fmt: skip
        return out

    def _mask(self, index: int, first: int, window: int | None, query: torch.Tensor) -> torch.Tensor:
        """What the rows from `first` on see, as what is added to the dot products [rows, keys]; made once a pass."""
        found = self._masks.get((index, window))
        if found is None:
            segment = self.pack.segments[index]
            rows = torch.arange(first, segment.stop, device=self.ends.device)
            keys = _of(segment, torch.arange(len(self.ends), device=self.ends.device)[None, None, :, None]).flatten()
            found = torch.zeros(len(rows), len(keys), dtype=query.dtype, device=query.device)
            found.masked_fill_(~self.visible(rows, keys, window).to(query.device), float("-inf"))
            self._masks[index, window] = found
        return found


def _of(segment: Segment, keys: torch.Tensor) -> torch.Tensor:
    """The keys [1, heads, keys, size] that a segment's rows can see."""
    own = keys[:, :, segment.start : segment.stop]
    if segment.prefix_start == segment.prefix_stop:
        return own
    return torch.cat([keys[:, :, segment.prefix_start : segment.prefix_stop], own], dim=2)


class Masked(Kernel):
    """One call of SDPA with a mask [rows, keys] for all."""

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None, window: int | None
    ) -> torch.Tensor:
        """As `Kernel` says."""
        mask = self._masks.get(window)
        if mask is None:
            keys = torch.arange(len(self.ends), device=self.ends.device)
            mask = self._masks[window] = self.visible(keys[self.pack.kept :], keys, window)[None, None]
        repeats = query.shape[1] // key.shape[1]
        if repeats > 1:  # the memory-efficient kernel takes a mask, but no grouped heads
            key, value = (x.repeat_interleave(repeats, dim=1) for x in (key, value))
        return scaled_dot_product_attention(query, key, value, attn_mask=mask.to(query.device), scale=scale)


class Flex(Kernel):
    """FlexAttention with a block mask: blocks in which nobody sees anybody are skipped."""

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None, window: int | None
    ) -> torch.Tensor:
        """As `Kernel` says."""
        mask = self._masks.get((window, query.device))
        if mask is None:
            mask = self._masks[window, query.device] = self._block_mask(query.device, window)
        attend = _flex(query.device.type == "cuda")
        grouped = query.shape[1] != key.shape[1]
        return attend(query, key, value, block_mask=mask, scale=scale, enable_gqa=grouped)  # type: ignore[no-any-return]

    def _block_mask(self, device: torch.device, window: int | None) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask

        # everything that varies from pack to pack is a tensor, so that one compiled kernel serves them all
        ends, positions = self.ends.to(device), self.positions.to(device)
        kept = torch.tensor(self.pack.kept, device=device)
        first = positions - (_NO_WINDOW if window is None else window)

        def seen(_batch: Any, _head: Any, row: Any, k: Any) -> Any:
            q = row + kept
            return (k <= q) & (q < ends[k]) & (positions[k] > first[q])

        return create_block_mask(seen, None, None, len(ends) - self.pack.kept, len(ends), device=str(device))


@lru_cache
def _flex(compiled: bool) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if compiled else flex_attention


_KERNELS: dict[KernelName, type[Kernel]] = {"documents": PerDocument, "flex": Flex, "masked": Masked}


def make_kernel(name: KernelName, pack: Pack, device: torch.device) -> Kernel:
    """The kernel of that name, for one pack."""
    return _KERNELS[name](pack, device)
