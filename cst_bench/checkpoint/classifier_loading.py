"""Sequence classifiers: checkpoints that label a text and have no chat template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cst_bench.checkpoint.checkpoint_files import CheckpointFiles
from cst_bench.checkpoint.inspection import context_length
from cst_bench.checkpoint.loading import check_loaded, explained, placement
from cst_bench.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass
class Classifier:
    """A loaded classifier."""

    model: PreTrainedModel
    """A sequence-classification model in eval mode."""
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    """Names of the outputs in the config, in order."""
    max_length: int
    """Most tokens of an input."""


def load_classifier(files: CheckpointFiles) -> Classifier:
    """Load the tokenizer and the model onto its device.

    Raises:
        UserError: the checkpoint could not be loaded, is an adapter, or is not a single-label classifier.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    options = files.options
    if files.adapter is not None:
        raise UserError(f"{files.adapter}: adapters of classifiers are not supported: merge it into its base first")
    if files.gguf is not None:
        raise UserError(f"{files.path}: classifiers are read from safetensors, not from GGUF files")
    device, dtype = placement(options)
    with explained(files.folder, options):
        config = AutoConfig.from_pretrained(files.folder)
        tokenizer = AutoTokenizer.from_pretrained(files.folder)
        labels = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    if len(labels) < 2 or config.problem_type in ("multi_label_classification", "regression"):
        kind = f"problem type {config.problem_type}" if config.problem_type else "no problem type"
        raise UserError(
            f"{files.folder}: not a single-label classifier: its config has {kind} and the labels {', '.join(labels)}"
        )
    with explained(files.folder, options):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            files.folder,
            dtype=dtype,
            device_map={"": device},
            use_safetensors=True,
            output_loading_info=True,
        )
    check_loaded(files.folder, info["missing_keys"])
    model.eval()
    return Classifier(model, tokenizer, labels, _max_length(model, tokenizer))


def _max_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the number of positions, without those before the first where they are counted as in RoBERTa."""
    offsets = [
        module.padding_idx + 1
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    return min(context_length(model.config, tokenizer) - max(offsets, default=0), int(tokenizer.model_max_length))
