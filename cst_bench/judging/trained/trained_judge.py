"""Judges of kind `classifier`: a small local model that `cst-bench judge train` fits. It needs no key and no GPU.

The model's file runs no code when it is loaded (see `cst_bench.judging.trained.text_classifier`), and a file other than
the one that the judge names is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from cst_bench.errors import UserError
from cst_bench.files import digest
from cst_bench.judging.judge import RESERVED, Case, JudgeFile, JudgeOptions, Verdict, judge_in_chunks
from cst_bench.judging.trained.features import FEATURES_VERSION, extract_features
from cst_bench.judging.trained.text_classifier import (
    FeatureSettings,
    TextClassifier,
    class_probabilities,
    load_text_classifier,
)

_CHUNK = 1000


class ClassifierFile(JudgeFile):
    """Judge file of kind `classifier`."""

    kind: Literal["classifier"]
    """A text classifier made by `cst-bench judge train`."""
    behaviours: list[str] = Field(min_length=1)
    """Behaviours that the classifier knows."""
    classes: list[str] = Field(min_length=2)
    """Classes of the model, in the order of its outputs: the behaviours, then `incapable` and `neither` if it was
    trained on them."""
    model: str
    """Model file, relative to this file."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the model file."""
    features: FeatureSettings
    """Features that it was trained on."""


class ClassifierJudge:
    """Judge that returns the most probable behaviour, by a text classifier."""

    kind = "classifier"
    fields: frozenset[str] = frozenset()

    def __init__(self, file: ClassifierFile, classifier: TextClassifier) -> None:
        """Create the judge from the content of its file and the classifier that it names."""
        self.name = file.name
        self.version = file.version
        self.behaviours = tuple(file.behaviours)
        self.reserved = file.reserved(file.classes)
        self.identity = digest(file.deciding())
        self.details: Mapping[str, JsonValue] = {"model_sha256": file.sha256}
        self.settings = file.features
        self.classes = tuple(file.classes)
        self._classifier = classifier

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        """Return the most probable behaviours, with all probabilities."""
        return await judge_in_chunks(self._verdicts, cases, _CHUNK, count)

    def _verdicts(self, cases: Sequence[Case]) -> list[Verdict]:
        rows = class_probabilities(self._classifier, self.settings, extract_features(cases))
        return [self._verdict(row) for row in rows]

    def _verdict(self, row: NDArray[np.float64]) -> Verdict:
        return Verdict(
            self.classes[int(row.argmax())],
            probabilities={name: float(value) for name, value in zip(self.classes, row, strict=True)},
        )


FILE_MODEL = ClassifierFile


def make(file: ClassifierFile, path: Path, options: JudgeOptions) -> ClassifierJudge:
    """Return the judge that a file defines.

    Raises:
        UserError: its model is missing, is not the one it was written with, holds types that no model needs, or was
            trained on features of another version; or the options name a model to ask.
    """
    options.require_no_model(file.name)
    if file.features.version != FEATURES_VERSION:
        raise UserError(
            f"{path}: trained on features of version {file.features.version}, and this cst-bench makes version "
            f"{FEATURES_VERSION}: train it again with `cst-bench judge train`"
        )
    known, others = file.classes[: len(file.behaviours)], file.classes[len(file.behaviours) :]
    if known != file.behaviours or not set(others) <= set(RESERVED):
        raise UserError(
            f"{path}: classes: must be the behaviours {file.behaviours}, and after them at most {', '.join(RESERVED)}"
        )
    model = path.parent / file.model
    try:
        data = model.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: its model {model} could not be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise UserError(
            f"{model} is not the model that {path} was written with (its SHA-256 differs): train the judge again"
        )
    return ClassifierJudge(file, load_text_classifier(data, model, len(file.classes)))
