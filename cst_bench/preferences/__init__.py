"""Preference pairs, and the training rows made of them: which of two responses each configuration asks for."""

from cst_bench.preferences.critique_job import CritiqueOptions, CritiqueResult, critique
from cst_bench.preferences.flipping import METHODS, FlipOptions, FlipResult, flip, flip_pairs
from cst_bench.preferences.mixing import MixResult, MixSource, mix
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
    "CritiqueOptions",
    "CritiqueResult",
    "FlipOptions",
    "FlipResult",
    "MixResult",
    "MixSource",
    "PreferencePair",
    "TrainingRow",
    "are_pairs",
    "critique",
    "flip",
    "flip_pairs",
    "mix",
    "parse_pairs",
    "parse_rows",
    "read_pairs",
    "read_training_rows",
    "rows_digest",
    "write_pairs",
    "write_training_rows",
]
