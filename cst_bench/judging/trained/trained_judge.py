"""Judges of kind `classifier`: a small local model that `cst-bench judge train` has made. No key, no GPU.

The model's file runs no code when it is loaded (see `cst_bench.judging.trained.text_classifier`), and a file that is not the one that the
judge names is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cst_bench.content import Content
from cst_bench.errors import UserError
from cst_bench.files import digest
from cst_bench.judging.judge import EMPTY, NEITHER, Case, JudgeOptions, Verdict
from cst_bench.judging.trained.features import VERSION, features
from cst_bench.judging.trained.text_classifier import FeatureSettings, Model, load_model, probabilities

_CHUNK = 1000


class ClassifierFile(Content):
    """A judge file of kind `classifier`."""

    name: str
    version: Annotated[int, Field(ge=1)]
    kind: Literal["classifier"]
    description: str
    behaviours: list[str] = Field(min_length=1)
    classes: list[str] = Field(min_length=2)
    """What the model tells apart, in the order of its numbers: the behaviours, and `neither` if it was shown that."""
    model: str
    """File of the model, relative to this one."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the model's file."""
    features: FeatureSettings
    changelog: dict[int, str] = Field(default_factory=dict)


class ClassifierJudge:
    """A judge that computes a probability for each behaviour, and says the likeliest."""

    kind = "classifier"
    fields: frozenset[str] = frozenset()

    def __init__(self, file: ClassifierFile, model: Model) -> None:
        """From the content of a judge file and the model that it names."""
        self.name = file.name
        self.version = file.version
        self.behaviours = tuple(file.behaviours)
        self.identity = digest(file.model_dump(mode="json"))
        self.details: Mapping[str, Any] = {"model_sha256": file.sha256}
        self.settings = file.features
        self.classes = tuple(file.classes)
        self._file = file
        self._model = model

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        """The likeliest behaviour, with the probabilities of all; an empty response is unscored."""
        verdicts: list[Verdict] = []
        for start in range(0, len(cases), _CHUNK):
            chunk = cases[start : start + _CHUNK]
            verdicts += await asyncio.to_thread(self._verdicts, chunk)
            count(len(chunk))
        return verdicts

    def _verdicts(self, cases: Sequence[Case]) -> list[Verdict]:
        shown = [case for case in cases if case.response.strip()]
        given = iter(probabilities(self._model, self._file.features, features(shown)) if shown else ())
        return [self._verdict(next(given)) if case.response.strip() else Verdict(None, EMPTY) for case in cases]

    def _verdict(self, row: NDArray[np.float64]) -> Verdict:
        return Verdict(
            self._file.classes[int(row.argmax())],
            probabilities={name: float(value) for name, value in zip(self._file.classes, row, strict=True)},
        )


SCHEMA = ClassifierFile


def make(file: ClassifierFile, path: Path, options: JudgeOptions) -> ClassifierJudge:
    """The judge of a file.

    Raises:
        UserError: its model is missing, is another than the one that was trained, holds what no model needs, or was
            trained by a cst-bench whose features were others; or a model to ask is given, and it asks none.
    """
    if options.model is not None or options.base_url is not None:
        raise UserError(f"judge {file.name} asks no model, so that no model or endpoint can be given for it")
    if file.features.version != VERSION:
        raise UserError(
            f"{path}: trained on features of version {file.features.version}, and this cst-bench makes {VERSION}: "
            "train it again with `cst-bench judge train`"
        )
    if file.classes not in ([*file.behaviours], [*file.behaviours, NEITHER]):
        raise UserError(
            f"{path}: classes: must be the behaviours {file.behaviours}, and {NEITHER!r} last or not at all"
        )
    place = path.parent / file.model
    try:
        data = place.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: its model {place} can't be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise UserError(
            f"{place} is not the model that {path} was written with (its SHA-256 is another): train it again"
        )
    return ClassifierJudge(file, load_model(data, place, len(file.classes)))
