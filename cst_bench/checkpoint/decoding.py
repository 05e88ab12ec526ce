"""Continuous batching: finished rows leave a decode batch, cache included, and waiting rows take their places.

Each row gets the tokens of `model.generate`. Rows are left-padded in one key-value cache; when a row ends, its cache
row is removed, and so are columns that are padding for every remaining row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from cst_bench.checkpoint.decoding_modes import StaticMode
from cst_bench.checkpoint.inspection import has_prompt_learning, plain_attention_only
from cst_bench.checkpoint.row_cache import row_cache
from cst_bench.checkpoint.sampling import SamplingRow, choose

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel
    from transformers.cache_utils import Cache

Choose = Callable[["Tensor", Sequence[SamplingRow]], list[int]]
"""Choice of each row's next token from logits [rows, vocabulary]."""

_PASS_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Most tokens of a prefill pass: more gains nothing, and takes memory."""
_PADDING = 256
"""Most tokens of padding in such a pass: the cost of another pass, in tokens."""


def prefill_tokens(device: str) -> int:
    """Return the most tokens of a pass that reads prompts, on a type of device."""
    return _PASS_TOKENS.get(device, _PASS_TOKENS["cpu"])


def can_compact(model: PreTrainedModel) -> bool:
    """Return whether rows can be removed from this model's cache: attention layers only, none sharing another's.

    Virtual tokens that an adapter puts before each input rule it out, since only `generate` takes them into account.
    """
    config = model.config.get_text_config()
    stateful = getattr(model, "_is_stateful", False) or getattr(config, "is_encoder_decoder", False)
    shared = getattr(config, "num_kv_shared_layers", 0)
    return plain_attention_only(config) and not stateful and not shared and not has_prompt_learning(model)


def cache_argument(model: PreTrainedModel) -> str:
    """Return the name by which a model's forward pass takes keys and values: `cache` since transformers 5.24."""
    whole = cast("Any", model)
    forward = (whole.get_base_model() if hasattr(whole, "get_base_model") else whole).forward
    return "cache" if "cache" in signature(forward).parameters else "past_key_values"


class DecodeBatch:
    """Rows that are decoded together. `add` prefills new ones, `step` decodes one more token for each row."""

    def __init__(self, model: PreTrainedModel, stop_ids: frozenset[int], choose: Choose = choose) -> None:
        """Start with no rows; `model` is a causal LM for which `can_compact` is true."""
        from cst_bench.checkpoint.decode_attention import configs_with_sdpa

        self.rows: list[SamplingRow] = []
        self._model = model
        self._cache_argument = cache_argument(model)
        self._stop_ids = stop_ids
        self._choose = choose
        self._cache: Cache | None = None
        self._mask: Tensor | None = None
        """[rows, columns]"""
        self._configs = configs_with_sdpa(model)

    def width(self) -> int:
        """Return the columns of the cache: the tokens of the longest row."""
        return 0 if self._mask is None else int(self._mask.shape[1])

    def add(self, rows: Sequence[SamplingRow]) -> list[SamplingRow]:
        """Prefill rows, including tokens that they have already generated; return those that ended at once."""
        import torch
        from transformers import DynamicCache

        device = self._model.device
        places = len(self.rows) + len(rows)
        ended = []
        for part in _passes(rows, prefill_tokens(device.type)):
            tokens = [row.prompt + row.generated for row in part]
            width = len(tokens[0])
            ids = torch.tensor([[0] * (width - len(row)) + row for row in tokens], device=device)
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in tokens], device=device)
            cache = DynamicCache()
            keep = self._append(self._choose(self._forward(ids, mask, cache), part), part)
            self._merge(part, cache, mask, keep, places)
            ended += [row for index, row in enumerate(part) if index not in set(keep)]
        return ended

    def repeat(self, rows: Sequence[SamplingRow]) -> None:
        """Append rows that have the prompt and the generated tokens of the first one, whose cache they copy."""
        import torch

        assert self._cache is not None
        assert self._mask is not None
        places = len(self.rows) + len(rows)
        for layer in self._cache.layers:
            keys, values = (states[:1].expand(len(rows), -1, -1, -1) for states in (layer.keys, layer.values))
            layer.insert(keys, values, places)
        self._mask = torch.cat([self._mask, self._mask[:1].expand(len(rows), -1)])
        self.rows = [*self.rows, *rows]

    def step(self) -> list[SamplingRow]:
        """Decode one more token for every row; return the rows that ended with it."""
        import torch

        from cst_bench.checkpoint.decode_attention import decode_attention

        assert self._mask is not None
        ids = torch.tensor([[row.generated[-1]] for row in self.rows], device=self._model.device)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=1)
        with decode_attention(self._configs):
            logits = self._forward(ids, self._mask, self._cache)
        keep = self._append(self._choose(logits, self.rows), self.rows)
        ended = [row for index, row in enumerate(self.rows) if index not in set(keep)]
        if ended:
            self._keep(keep)
        return ended

    def clear(self) -> list[SamplingRow]:
        """Remove all rows and return them, with the tokens that they have generated so far."""
        rows, self.rows, self._cache, self._mask = self.rows, [], None, None
        return rows

    def _forward(self, ids: Tensor, mask: Tensor, cache: Cache | None) -> Tensor:
        """Return the logits [rows, vocabulary] at the last of the tokens `ids`."""
        import torch

        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with torch.inference_mode():
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=True,
                logits_to_keep=1,
                **{self._cache_argument: cache},
            )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _append(self, tokens: list[int], rows: Sequence[SamplingRow]) -> list[int]:
        """Append each row's token; return the indices of the rows that go on."""
        keep = []
        for index, (row, token) in enumerate(zip(rows, tokens)):
            row.append(token)
            if not row.ended(self._stop_ids):
                keep.append(index)
        return keep

    def _keep(self, keep: list[int]) -> None:
        """Remove the rows that are not in `keep`; rows from the end move into the places of those in front."""
        import torch

        assert self._cache is not None
        assert self._mask is not None
        if not keep:
            self.clear()
            return
        free = [index for index in range(len(keep)) if index not in set(keep)]
        moves = list(zip(free, [index for index in keep if index >= len(keep)]))
        order = list(range(len(keep)))
        for to, source in moves:
            order[to] = source
        self.rows = [self.rows[index] for index in order]
        self._mask = self._mask[order]
        unused = int(self._mask.any(0).int().argmax())
        self._mask = self._mask[:, unused:]
        to, source = torch.tensor(moves, dtype=torch.long, device=self._mask.device).reshape(-1, 2).T
        for layer in self._cache.layers:
            layer.keep(to, source, len(keep), unused)

    def _merge(self, rows: Sequence[SamplingRow], cache: Cache, mask: Tensor, keep: list[int], places: int) -> None:
        """Append the prefilled rows that are in `keep` to the batch, the narrower side padded on the left."""
        import torch
        from torch.nn.functional import pad

        if not keep:
            return
        chosen = slice(None) if len(keep) == len(rows) else torch.tensor(keep, device=mask.device)
        mask = mask[chosen]
        if self._cache is None or self._mask is None:
            self._cache, self._mask = row_cache(len(cache.layers), bool(self._configs)), mask[:0]
        for mine, theirs in zip(self._cache.layers, cache.layers):
            mine.insert(theirs.keys[chosen], theirs.values[chosen], places)
        width = max(mask.shape[1], self._mask.shape[1])
        self._mask = torch.cat([pad(part, (width - part.shape[1], 0)) for part in (self._mask, mask)])
        self.rows = [*self.rows, *(rows[index] for index in keep)]


def _passes(rows: Sequence[SamplingRow], most: int) -> Iterator[list[SamplingRow]]:
    """Yield rows by length, longest first, in passes with little padding of at most `most` tokens, or of one row."""
    part: list[SamplingRow] = []
    width = padding = 0
    for row in sorted(rows, key=_length, reverse=True):
        padding += width - _length(row)
        if part and (padding > _PADDING or (len(part) + 1) * width > most):
            yield part
            part = []
        if not part:
            width, padding = _length(row), 0
        part.append(row)
    yield part


def _length(row: SamplingRow) -> int:
    return len(row.prompt) + len(row.generated)


def decode_static(
    model: PreTrainedModel,
    rows: Sequence[SamplingRow],
    stop_ids: frozenset[int],
    mode: StaticMode,
    choose: Choose = choose,
) -> None:
    """Decode rows with `model.generate`, for models or rows that `DecodeBatch` does not support.

    Rows go on after the tokens that they have already generated. A logits processor chooses by the same rule as there.
    """
    if mode == "padded":
        _decode_padded(model, rows, stop_ids, choose)
    elif mode == "equal":
        by_length = sorted(rows, key=_length)
        for part in [list(part) for _, part in groupby(by_length, key=_length)]:  # before any row grows
            _decode_padded(model, part, stop_ids, choose)
    else:
        for row in rows:
            _decode_padded(model, [row], stop_ids, choose)


def _decode_padded(
    model: PreTrainedModel, rows: Sequence[SamplingRow], stop_ids: frozenset[int], choose: Choose
) -> None:
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    width = max(_length(row) for row in rows)
    tokens = [row.prompt + row.generated for row in rows]
    ids = torch.tensor([[0] * (width - len(row)) + row for row in tokens], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in tokens], device=model.device)

    def only_chosen(_: Tensor, scores: Tensor) -> Tensor:
        chosen = torch.tensor(choose(scores, rows), device=scores.device)[:, None]
        return torch.full_like(scores, float("-inf")).scatter(1, chosen, 0.0)

    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max(row.limit - len(row.generated) for row in rows),
        eos_token_id=sorted(stop_ids) or None,
        pad_token_id=0,
    )
    original = model.generation_config
    model.generation_config = GenerationConfig()  # or its penalties would be added to ours
    try:
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                logits_processor=LogitsProcessorList([only_chosen]),
            )
    finally:
        model.generation_config = original
    for row, generated in zip(rows, output[:, width:].tolist()):
        for token in generated:
            row.append(token)
            if row.ended(stop_ids):
                break
