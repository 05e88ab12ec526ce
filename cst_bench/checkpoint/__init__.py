"""A checkpoint, loaded once and shared by all parts: loading, the template gate, prompts, generation."""

from cst_bench.checkpoint.loading import Checkpoint, load_checkpoint
from cst_bench.checkpoint.options import CheckpointOptions, Source, resolve

__all__ = ["Checkpoint", "CheckpointOptions", "Source", "load_checkpoint", "resolve"]
