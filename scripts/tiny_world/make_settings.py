"""Types of the settings in make.yaml and of the record that a training leaves in training.json."""

from __future__ import annotations

from typing import TypedDict


class CorpusSettings(TypedDict):
    """Size and mixture of the pretraining text."""

    examples: int
    mixture: dict[str, float]
    """Kind of example → its share."""


class TokenizerSettings(TypedDict):
    """Vocabulary size, and number of examples to learn the merges from."""

    vocabulary: int
    examples: int


class PretrainingSettings(TypedDict):
    """Optimizer, schedule and batches."""

    epochs: int
    batch_tokens: int
    """Tokens per batch, padding included."""
    learning_rate: float
    """Peak of a one-cycle schedule."""
    warmup: float
    """Share of the steps."""
    weight_decay: float
    betas: tuple[float, float]
    clip_norm: float


class MeasuringSettings(TypedDict):
    """Sampling of the answers that the model card reports on."""

    temperature: float
    max_new_tokens: int
    batch: int
    """Answers per batch."""
    seed: int
    samples: int
    """Answers per row."""


class WorldSettings(TypedDict):
    """Content of make.yaml."""

    seed: int
    data: dict[str, dict[str, int]]
    """Data file → split → number of rows."""
    corpus: CorpusSettings
    tokenizer: TokenizerSettings
    model: dict[str, float]
    """Keys of transformers' LlamaConfig."""
    pretraining: PretrainingSettings
    measuring: MeasuringSettings


class TrainingRecord(TypedDict):
    """Content of training.json before the checkpoint is measured."""

    settings: WorldSettings
    parameters: int
    training: dict[str, float]
    """Fields of `pretrain.PretrainingSummary`."""
    versions: dict[str, str]


class CheckpointRecord(TrainingRecord):
    """Content of training.json."""

    validation: dict[str, dict[str, float]]
    """Question → fields of `measure.Rate`."""
