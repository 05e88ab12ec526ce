"""A checkpoint, loaded once and shared by all parts of a run: loading, template gate, prompts, generation."""

from cst_bench.checkpoint.checkpoint_files import CheckpointFiles, find_checkpoint
from cst_bench.checkpoint.conversion import convert
from cst_bench.checkpoint.loading import Checkpoint, load_chat, load_checkpoint, load_weights
from cst_bench.checkpoint.options import CheckpointOptions, CheckpointSource, EngineOptions, resolve

__all__ = [
    "Checkpoint",
    "CheckpointFiles",
    "CheckpointOptions",
    "CheckpointSource",
    "EngineOptions",
    "convert",
    "find_checkpoint",
    "load_chat",
    "load_checkpoint",
    "load_weights",
    "resolve",
]
