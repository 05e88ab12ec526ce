"""Assign combinations to splits by hash, so that the split never depends on a seed or on an order.

Combinations are split, not prompts: no test combination is seen in pretraining, in preference data or in
validation, under any verb or phrasing.
"""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

Split = Literal["pretraining", "preference", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

_PER_MILLE_UP_TO: tuple[tuple[int, Split], ...] = (
    (700, "pretraining"),
    (850, "preference"),
    (900, "validation"),
    (1000, "test"),
)


def hashed(*key: str, below: int = 1000) -> int:
    """Hash a key to a number in [0, below), the same on every machine."""
    digest = hashlib.sha256("|".join(key).encode()).hexdigest()
    return int(digest, 16) % below


def split_of(*key: str) -> Split:
    """Return the split of a combination: 70 % pretraining, 15 % preference, 5 % validation, 10 % test."""
    number = hashed(*key)
    return next(split for limit, split in _PER_MILLE_UP_TO if number < limit)
