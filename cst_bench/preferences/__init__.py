"""Preference pairs, and the rows that train a model: which of two responses each configuration asks for."""

from cst_bench.preferences.flipping import METHODS, FlipResult, flip
from cst_bench.preferences.preference_pairs import Pair, read_pairs
from cst_bench.preferences.training_rows import TrainingRow, read_training_rows, write_training_rows

__all__ = [
    "METHODS",
    "FlipResult",
    "Pair",
    "TrainingRow",
    "flip",
    "read_pairs",
    "read_training_rows",
    "write_training_rows",
]
