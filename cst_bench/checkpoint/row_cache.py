"""A key-value cache whose rows are added and removed in place.

`DynamicCache` copies all keys and values for each new token, which on a CPU takes most of the time of a long step. Here
a new token is written into reserved columns, a row that ends is overwritten by the last row, and new rows take free
places. Keys can be stored with their columns last, for products with one query.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

_SLACK = 64
"""Reserved columns. More would be multiplied for nothing in half precision; fewer make for more copies."""


class RowLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer: a window of rows and columns on a larger store.

    `keys` and `values`, `[rows, heads, columns, head size]`, are views of the window, as attention expects them. Rows
    are padded on the left.
    """

    _stores: list[Tensor]
    _rows: int
    _start: int
    _end: int

    def __init__(self, transposed: bool) -> None:
        """Start empty; `transposed` keys have their columns last in memory, not in shape."""
        super().__init__()
        self._transposed = transposed

    @torch.inference_mode()
    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Append columns to every row and return the window."""
        new = key_states.shape[-2]
        if self._end + new > self._stores[0].shape[2]:
            self._move(self._rows, self._end - self._start, new)
        for store, states in zip(self._stores, (key_states, value_states)):
            store[: self._rows, :, self._end : self._end + new] = states
        self._end += new
        self._set_views()
        return self.keys, self.values

    @torch.inference_mode()
    def keep(self, to: Tensor, source: Tensor, rows: int, unused: int) -> None:
        """Move rows `source` to places `to`, then keep the first `rows` rows without the first `unused` columns."""
        self._start += unused
        window = slice(self._start, self._end)
        for store in self._stores:
            store[to, :, window] = store[source, :, window]
        self._rows = rows
        self._set_views()

    @torch.inference_mode()
    def insert(self, keys: Tensor, values: Tensor, places: int) -> None:
        """Append rows, their last columns aligned with the window's.

        `places` is the number of rows after all pending insertions.
        """
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
            self._rows, self._start, self._end = 0, 0, keys.shape[2]
            self._stores = self._rooms((keys, values), places, self._end)
        rows, width = self._rows + keys.shape[0], keys.shape[2]
        missing = width - (self._end - self._start)
        if rows > self._stores[0].shape[0] or missing > self._start:
            self._move(max(rows, places), max(width, self._end - self._start), 0)
        elif missing > 0:
            self._start -= missing
        for store, states in zip(self._stores, (keys, values)):
            if missing > 0:
                store[: self._rows, :, self._start : self._start + missing] = 0
            store[self._rows : rows, :, self._start : self._end - width] = 0
            store[self._rows : rows, :, self._end - width : self._end] = states
        self._rows = rows
        self._set_views()

    def _move(self, rows: int, columns: int, new: int) -> None:
        """Move the window to the end of a new store, `columns` wide, with reserved columns after it."""
        old = self._end - self._start
        stores = self._rooms(self._stores, rows, columns + new)
        for store, before in zip(stores, self._stores):
            store[: self._rows, :, columns - old : columns] = before[: self._rows, :, self._start : self._end]
        self._stores, self._start, self._end = stores, 0, columns

    def _rooms(self, like: Sequence[Tensor], rows: int, columns: int) -> list[Tensor]:
        """Make stores of keys and values, all zero, for the rows and columns, with reserved columns."""
        columns += _SLACK
        keys, values = (states.new_zeros(rows, states.shape[1], columns, states.shape[3]) for states in like)
        if self._transposed:
            keys = keys.new_zeros(keys.mT.shape).mT
        return [keys, values]

    def _set_views(self) -> None:
        self.keys, self.values = (store[: self._rows, :, self._start : self._end] for store in self._stores)


def row_cache(layers: int, transposed: bool) -> Cache:
    """Make an empty cache of `RowLayer`s; rows are inserted before columns are appended."""
    return Cache(layers=[RowLayer(transposed) for _ in range(layers)])
