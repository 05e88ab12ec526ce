"""Loads a sequence classifier: a checkpoint that gives a text a label, and has no chat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cst_bench.checkpoint.files import CheckpointFiles
from cst_bench.checkpoint.loading import _context_length, _explained, _require_all, placement
from cst_bench.errors import UserError


@dataclass
class Classifier:
    """A classifier, loaded once."""

    model: Any
    """A `transformers` model for sequence classification, in eval mode."""
    tokenizer: Any
    """A `transformers` tokenizer."""
    labels: tuple[str, ...]
    """The config's names of the outputs, in their order."""
    max_length: int
    """The most tokens that an input may have."""


def load_classifier(files: CheckpointFiles) -> Classifier:
    """The tokenizer and the model, on its device.

    Raises:
        UserError: the checkpoint can't be loaded, is an adapter, or doesn't give one label of several.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    options = files.options
    if files.adapter is not None:
        raise UserError(f"{files.adapter}: adapters of classifiers can't be loaded: merge it into its base first")
    device, dtype = placement(options)
    with _explained(files.folder, options):
        config = AutoConfig.from_pretrained(files.folder)
        tokenizer = AutoTokenizer.from_pretrained(files.folder)
        labels = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    if len(labels) < 2 or config.problem_type in ("multi_label_classification", "regression"):
        raise UserError(f"{files.folder}: must give one label of several; it has {', '.join(labels)}, {_said(config)}")
    with _explained(files.folder, options):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            files.folder,
            dtype=dtype,
            device_map={"": device},
            use_safetensors=True,
            output_loading_info=True,
        )
    _require_all(files.folder, info["missing_keys"])
    model.eval()
    return Classifier(model, tokenizer, labels, _max_length(model, tokenizer))


def _said(config: Any) -> str:
    return f"and its config says {config.problem_type}" if config.problem_type else "and its config says no more"


def _max_length(model: Any, tokenizer: Any) -> int:
    """The model's positions, less those before the first where positions are counted as in RoBERTa."""
    offsets = [
        module.padding_idx + 1
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    return min(_context_length(model, tokenizer) - max(offsets, default=0), int(tokenizer.model_max_length))
