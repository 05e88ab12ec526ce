"""Preference pairs, and the training rows made of them: which of two responses each configuration asks for."""

from cst_bench.preferences.flipping import METHODS, FlipResult, flip
from cst_bench.preferences.preference_pairs import PreferencePair, are_pairs, parse_pairs, read_pairs, write_pairs
from cst_bench.preferences.training_rows import (
    TrainingRow,
    parse_rows,
    read_training_rows,
    rows_digest,
    write_training_rows,
)

__all__ = [
    "METHODS",
    "FlipResult",
    "PreferencePair",
    "TrainingRow",
    "are_pairs",
    "flip",
    "parse_pairs",
    "parse_rows",
    "read_pairs",
    "read_training_rows",
    "rows_digest",
    "write_pairs",
    "write_training_rows",
]
