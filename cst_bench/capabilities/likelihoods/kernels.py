"""Three ways to compute attention over a pack: document by document, all at once with a mask, or with block masks.

The first does the least work and suits a CPU. A GPU needs few large kernels: FlexAttention, which skips blocks that are
masked entirely. Where it does not work, document by document is next: many calls, but most of them of FlashAttention.
SDPA with one mask for the whole pack does work that grows with the square of the rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal

import torch

from cst_bench.capabilities.likelihoods.prefix_packing import PrefixPack, Segment
from cst_bench.checkpoint.attention_kernels import grouped_attention

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

KernelName = Literal["documents", "flex", "masked"]

_NO_WINDOW = 2**30
"""Sliding window that never hides anything."""
_GRAPHS = 64
"""Most graphs of FlexAttention in a process: a few for each model with other heads, scale or soft-cap."""


def kernels_for(device: torch.device) -> list[KernelName]:
    """Return the kernels to try on a device, best first."""
    if device.type == "cpu":
        return ["documents"]
    return ["flex", "documents", "masked"] if device.type == "cuda" else ["documents", "masked"]


@dataclass(frozen=True)
class LayerSettings:
    """Settings of attention in one layer, beside queries, keys and values."""

    scale: float | None = None
    """Factor of the dot products; None for size to the power -1/2."""
    window: int | None = None
    """Number of positions that each row sees, its own included; None for all."""
    softcap: float | None = None
    """Limit c of the scaled dot products, by c tanh(x / c) (Gemma 2, arXiv 2408.00118, section 2)."""
    sinks: torch.Tensor | None = None
    """[heads]: logits of a key that takes attention and has no value (gpt-oss, arXiv 2508.10925, section 2)."""

    @property
    def plain(self) -> bool:
        """Return whether SDPA computes it."""
        return self.softcap is None and self.sinks is None


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
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: LayerSettings
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
        self._masks: dict[tuple[int, int, int | None, torch.device], torch.Tensor] = {}

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: LayerSettings
    ) -> torch.Tensor:
        """Compute attention as `Kernel` does."""
        window = settings.window
        out = query.new_empty(*query.shape[:3], value.shape[3])  # values may have another size than keys
        for index, segment in enumerate(self.pack.segments):
            first = segment.start  # of the rows that need a mask
            if segment.prefix_start == segment.prefix_stop:
                alone = window is None or segment.trunk - segment.start <= window
                if alone and settings.plain:
                    first = segment.trunk
                    rows = slice(segment.start - self.pack.kept, first - self.pack.kept)
                    keys = slice(segment.start, first)
                    out[:, :, rows] = grouped_attention(
                        query[:, :, rows], key[:, :, keys], value[:, :, keys], causal=True, scale=settings.scale
                    )
            if first == segment.stop:
                continue
            rows = slice(first - self.pack.kept, segment.stop - self.pack.kept)
            out[:, :, rows] = _masked_attention(
                query[:, :, rows], _visible_keys(segment, key), _visible_keys(segment, value),
                self._mask(index, first, window, query), settings,
            )  # fmt: skip
        return out

    def _mask(self, index: int, first: int, window: int | None, query: torch.Tensor) -> torch.Tensor:
        """Return the additive mask [rows, keys] of the rows from `first` on; made once a pass."""
        mask = self._masks.get((index, first, window, query.device))
        if mask is None:
            segment = self.pack.segments[index]
            rows = torch.arange(first, segment.stop, device=self.ends.device)
            all_keys = torch.arange(len(self.ends), device=self.ends.device)
            keys = _visible_keys(segment, all_keys[None, None, :, None]).flatten()
            mask = torch.zeros(len(rows), len(keys), dtype=query.dtype, device=query.device)
            mask.masked_fill_(~self.visible(rows, keys, window).to(query.device), float("-inf"))
            self._masks[index, first, window, query.device] = mask
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
        self._masks: dict[tuple[int | None, torch.device], torch.Tensor] = {}

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: LayerSettings
    ) -> torch.Tensor:
        """Compute attention as `Kernel` does."""
        mask = self._masks.get((settings.window, query.device))
        if mask is None:
            keys = torch.arange(len(self.ends), device=self.ends.device)
            seen = self.visible(keys[self.pack.kept :], keys, settings.window)[None, None]
            mask = self._masks[settings.window, query.device] = seen.to(query.device)
        return _masked_attention(query, key, value, mask, settings)


def _masked_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, settings: LayerSettings
) -> torch.Tensor:
    """Compute attention as SDPA does, with a soft-cap and sinks, which SDPA has not; the mask is bool or additive."""
    if settings.plain:
        return grouped_attention(query, key, value, mask, scale=settings.scale)
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
    scores = query @ key.mT * (query.shape[3] ** -0.5 if settings.scale is None else settings.scale)
    if settings.softcap is not None:
        scores = settings.softcap * torch.tanh(scores / settings.softcap)
    scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    if settings.sinks is not None:
        sinks = settings.sinks.to(scores.dtype).reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32)[..., : key.shape[2]]
    return weights.to(value.dtype) @ value


class Flex(Kernel):
    """FlexAttention with a block mask: blocks that are masked entirely are skipped."""

    def __init__(self, pack: PrefixPack, device: torch.device) -> None:
        """Start without masks; the first layer makes them, for all layers."""
        super().__init__(pack, device)
        self._masks: dict[tuple[int | None, torch.device], BlockMask] = {}

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, settings: LayerSettings
    ) -> torch.Tensor:
        """Compute attention as `Kernel` does."""
        mask = self._masks.get((settings.window, query.device))
        if mask is None:
            mask = self._masks[settings.window, query.device] = self._block_mask(query.device, settings.window)
        attend = partial(  # of one layout, whether keys were kept or not, so that one compiled kernel serves both
            _compiled_flex if self.compiled(query.device) else _flex, query, key.contiguous(), value.contiguous(),
            score_mod=None if settings.softcap is None else _soft_cap(settings.softcap),
            block_mask=mask, scale=settings.scale, enable_gqa=query.shape[1] != key.shape[1],
        )  # fmt: skip
        out: torch.Tensor
        if settings.sinks is None:
            out = attend()
            return out
        out, lse = attend(return_lse=True)  # a sink adds exp(sink) to the sum of the other keys' exponentials
        return out * torch.sigmoid(lse - settings.sinks.reshape(1, -1, 1))[..., None].to(out.dtype)

    @staticmethod
    def compiled(device: torch.device) -> bool:
        """Return whether FlexAttention is compiled on a device; it writes all weights to memory where it is not."""
        return device.type == "cuda"

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
def _soft_cap(limit: float) -> Callable[..., torch.Tensor]:
    def capped(score: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return limit * torch.tanh(score / limit)

    return capped


def _flex(*inputs: torch.Tensor, **options: Any) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    attend: Callable[..., Any] = flex_attention
    return attend(*inputs, **options)


def _compiled_flex(*inputs: torch.Tensor, **options: Any) -> Any:
    """Call FlexAttention, compiled once for packs of all sizes.

    Below 128 rows PyTorch would take its kernel for decoding, which fails for four or more heads of queries to one of
    keys (pytorch#185349). Numbers are constants of the graph, since Inductor compiles no soft-cap that is an input.
    A first pack with as many rows as keys does not make that a rule.

    Raises:
        RuntimeError: it could not be compiled, or too often, where PyTorch would go on without compiling.
    """
    from torch._dynamo import config
    from torch.fx.experimental import _config as shapes

    try:
        with (
            config.patch(recompile_limit=_GRAPHS, specialize_float=True),
            shapes.patch(use_duck_shape=False),  # type: ignore[attr-defined]
        ):
            return _flex_graphs()(*inputs, kernel_options={"FORCE_USE_FLEX_ATTENTION": True}, **options)
    except RuntimeError:
        raise
    except Exception as error:  # the compilers and the tools that they call raise many kinds
        raise RuntimeError(f"{type(error).__name__}: {error}") from error


@lru_cache
def _flex_graphs() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    attend: Callable[..., Any] = torch.compile(flex_attention, dynamic=True, fullgraph=True)
    return attend


_KERNELS: dict[KernelName, type[Kernel]] = {"documents": PerDocument, "flex": Flex, "masked": Masked}


def make_kernel(name: KernelName, pack: PrefixPack, device: torch.device) -> Kernel:
    """Make the kernel of that name for one pack."""
    return _KERNELS[name](pack, device)
