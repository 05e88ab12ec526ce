"""A decode batch whose finished rows leave it, cache and all, and whose free places waiting rows take.

The tokens are those of `model.generate`, row by row. Rows are left-padded in one key-value cache; when a row ends,
its cache rows go, and columns that are padding for every row left go too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cst_bench.checkpoint.row_cache import row_cache
from cst_bench.checkpoint.sampling import Row, choose

_PLAIN_ATTENTION = {"full_attention", "sliding_attention"}
_PASS_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Most tokens of a pass that prefills: more gains nothing, and takes memory."""
_PADDING = 256
"""Most tokens of padding in such a pass: what another pass costs besides its tokens."""


def can_compact(model: Any) -> bool:
    """Whether rows can be cut out of this model's cache: attention layers only, none sharing another's.

    Nor may an adapter put virtual tokens before each input, which only `generate` keeps account of.
    """
    config = model.config.get_text_config()
    types = set(getattr(config, "layer_types", None) or ["full_attention"])
    stateful = getattr(model, "_is_stateful", False) or getattr(config, "is_encoder_decoder", False)
    shared = getattr(config, "num_kv_shared_layers", 0)
    return types <= _PLAIN_ATTENTION and not stateful and not shared and not _has_virtual_tokens(model)


def _has_virtual_tokens(model: Any) -> bool:
    """Whether an adapter of `peft` learned a prompt rather than weights."""
    return any(adapter.is_prompt_learning for adapter in getattr(model, "peft_config", {}).values())


class DecodeBatch:
    """Rows being decoded together. `add` prefills new ones, `step` gives each row one more token."""

    def __init__(self, model: Any, stop_ids: frozenset[int]) -> None:
        """Starts empty; `model` is a causal LM that `can_compact`."""
        self.rows: list[Row] = []
        self._model = model
        self._stop_ids = stop_ids
        self._cache: Any = None
        self._mask: Any = None

    def width(self) -> int:
        """Columns of the cache: the tokens of the longest row."""
        return 0 if self._mask is None else int(self._mask.shape[1])

    def add(self, rows: Sequence[Row]) -> list[Row]:
        """Prefills rows (with what they have generated already, if anything); returns those that ended at once."""
        import torch
        from transformers import DynamicCache

        device = self._model.device
        places = len(self.rows) + len(rows)
        ended = []
        for part in _alike(rows, _PASS_TOKENS.get(device.type, _PASS_TOKENS["cpu"])):
            tokens = [row.prompt + row.generated for row in part]
            width = len(tokens[0])
            ids = torch.tensor([[0] * (width - len(row)) + row for row in tokens], device=device)
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in tokens], device=device)
            cache = DynamicCache()
            keep = self._append(choose(self._forward(ids, mask, cache), part), part)
            self._merge(part, cache, mask, keep, places)
            ended += [row for index, row in enumerate(part) if index not in set(keep)]
        return ended

    def step(self) -> list[Row]:
        """One more token for every row; returns the rows that ended with it."""
        import torch

        ids = torch.tensor([[row.generated[-1]] for row in self.rows], device=self._model.device)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=1)
        logits = self._forward(ids, self._mask, self._cache)
        keep = self._append(choose(logits, self.rows), self.rows)
        ended = [row for index, row in enumerate(self.rows) if index not in set(keep)]
        if ended:
            self._keep(keep)
        return ended

    def clear(self) -> list[Row]:
        """Empties the batch and gives back its rows, with what they have generated so far."""
        rows, self.rows, self._cache, self._mask = self.rows, [], None, None
        return rows

    def _forward(self, ids: Any, mask: Any, cache: Any) -> Any:
        import torch

        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with torch.inference_mode():
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return output.logits[:, -1]

    def _append(self, tokens: list[int], rows: Sequence[Row]) -> list[int]:
        """Gives each row its token; returns the indices of the rows that go on."""
        keep = []
        for index, (row, token) in enumerate(zip(rows, tokens)):
            row.generated.append(token)
            if not row.ended(self._stop_ids):
                keep.append(index)
        return keep

    def _keep(self, keep: list[int]) -> None:
        """Drops the other rows; the places of those in front are taken by rows from the end."""
        import torch

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

    def _merge(self, rows: Sequence[Row], cache: Any, mask: Any, keep: list[int], places: int) -> None:
        """Puts what is kept of freshly prefilled rows behind the batch, the narrower side padded on the left."""
        import torch
        from torch.nn.functional import pad

        if not keep:
            return
        chosen = slice(None) if len(keep) == len(rows) else torch.tensor(keep, device=mask.device)
        mask = mask[chosen]
        if self._cache is None:
            self._cache, self._mask = row_cache(len(cache.layers)), mask[:0]
        for mine, theirs in zip(self._cache.layers, cache.layers):
            mine.insert(theirs.keys[chosen], theirs.values[chosen], places)
        width = max(mask.shape[1], self._mask.shape[1])
        self._mask = torch.cat([pad(part, (width - part.shape[1], 0)) for part in (self._mask, mask)])
        self.rows = [*self.rows, *(rows[index] for index in keep)]


def _alike(rows: Sequence[Row], most: int) -> Iterator[list[Row]]:
    """Rows by length, longest first, in passes of few tokens of padding and at most `most` tokens, or of one row."""
    part: list[Row] = []
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


def _length(row: Row) -> int:
    return len(row.prompt) + len(row.generated)


def decode_static(model: Any, rows: Sequence[Row], stop_ids: frozenset[int]) -> None:
    """Decodes rows with `model.generate`, for models whose cache can't be cut (state-space, linear attention).

    The tokens are chosen by the same rule as in `DecodeBatch`, by way of a logits processor.
    """
    if not _has_virtual_tokens(model):
        _decode_padded(model, rows, stop_ids)
        return
    for length in sorted({len(row.prompt) for row in rows}):  # peft counts padding as positions: let there be none
        _decode_padded(model, [row for row in rows if len(row.prompt) == length], stop_ids)


def _decode_padded(model: Any, rows: Sequence[Row], stop_ids: frozenset[int]) -> None:
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    width = max(len(row.prompt) for row in rows)
    ids = torch.tensor([[0] * (width - len(row.prompt)) + row.prompt for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows], device=model.device)

    def only_chosen(_: Any, scores: Any) -> Any:
        chosen = torch.tensor(choose(scores, rows), device=scores.device)[:, None]
        return torch.full_like(scores, float("-inf")).scatter(1, chosen, 0.0)

    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max(row.sampling.max_tokens for row in rows),
        eos_token_id=sorted(stop_ids) or None,
        pad_token_id=0,
    )
    own, model.generation_config = model.generation_config, GenerationConfig()  # else its penalties fill ours up
    try:
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                logits_processor=LogitsProcessorList([only_chosen]),
            )
    finally:
        model.generation_config = own
    for row, tokens in zip(rows, output[:, width:].tolist()):
        for token in tokens:
            row.generated.append(token)
            if row.ended(stop_ids):
                break
