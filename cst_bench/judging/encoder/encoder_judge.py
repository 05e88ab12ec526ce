"""The judge of kind `encoder`: the more probable of two behaviours, in the names that a task has for them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, JsonValue, model_validator

from cst_bench.errors import UserError
from cst_bench.files import digest
from cst_bench.judging.judge import Case, JudgeFile, JudgeOptions, Verdict, judge_in_chunks
from cst_bench.judging.trained.features import FEATURES_VERSION

if TYPE_CHECKING:
    from cst_bench.judging.encoder.text_encoder import TextEncoder

_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_CHUNK = 256


class EncoderFile(JudgeFile):
    """Judge file of kind `encoder`."""

    kind: Literal["encoder"]
    """A text encoder with its weights."""
    behaviours: list[str] = Field(min_length=2, max_length=2)
    """The two behaviours; the model gives the log odds of the second."""
    other_names: list[list[str]] = Field(default_factory=list)
    """Other names of the two behaviours, in the same order, for tasks that have these names."""
    model: str
    """Folder with `config.json`, `model.safetensors` and `tokenizer.json`, relative to this file."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 over the contents of these three files, in this order."""
    features: int
    """Version of the cues that it was trained with."""

    @model_validator(mode="after")
    def _pairs(self) -> EncoderFile:
        if any(len(names) != 2 for names in self.other_names):
            raise ValueError("other_names: give two names each, in the order of behaviours")
        return self


class EncoderJudge:
    """Judge that returns the more probable of two behaviours, by a text encoder."""

    kind = "encoder"
    fields: frozenset[str] = frozenset()

    def __init__(self, file: EncoderFile, folder: Path, names: Sequence[str] | None = None) -> None:
        """Create the judge from the content of its file and the model's folder.

        Args:
            file: Content of its file.
            folder: Folder of the model, which is loaded when the first response is judged.
            names: Names of the behaviours; the file's `behaviours` if None.
        """
        self.name = file.name
        self.version = file.version
        self.behaviours = tuple(names or file.behaviours)
        self.reserved = file.reserved(())
        self.identity = digest(file.deciding(("other_names", "changelog", "description")))
        self.details: Mapping[str, JsonValue] = {"model_sha256": file.sha256}
        self._file = file
        self._folder = folder
        self._encoder: TextEncoder | None = None

    def renamed(self, behaviours: Collection[str]) -> EncoderJudge | None:
        """Return the same judge with other names for its behaviours; None if it does not know them."""
        for names in (self._file.behaviours, *self._file.other_names):
            if set(behaviours) <= set(names):
                return EncoderJudge(self._file, self._folder, None if names == self._file.behaviours else names)
        return None

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        """Return the more probable behaviours, with both probabilities."""
        return await judge_in_chunks(self._verdicts, cases, _CHUNK, count)

    def _verdicts(self, cases: Sequence[Case]) -> list[Verdict]:
        from cst_bench.judging.encoder.text_encoder import load_text_encoder

        if self._encoder is None:
            self._encoder = load_text_encoder(self._folder)
        return [self.verdict(float(value)) for value in self._encoder.log_odds(cases)]

    def verdict(self, log_odds: float) -> Verdict:
        """Return the verdict for log odds of the second behaviour."""
        second = 1 / (1 + math.exp(-max(-700.0, log_odds)))
        first_name, second_name = self.behaviours
        probabilities = {first_name: 1 - second, second_name: second}
        return Verdict(second_name if log_odds >= 0 else first_name, probabilities=probabilities)


FILE_MODEL = EncoderFile


def model_digest(folder: Path) -> str:
    """Return the SHA-256 over the files of a model.

    Raises:
        OSError: one cannot be read.
    """
    total = hashlib.sha256()
    for name in _FILES:
        total.update((folder / name).read_bytes())
    return total.hexdigest()


def make(file: EncoderFile, path: Path, options: JudgeOptions) -> EncoderJudge:
    """Return the judge that a file defines.

    Raises:
        UserError: its model is missing, is not the one it was written with, or was trained with cues of another
            version; or the options name a model to ask.
    """
    options.require_no_model(file.name)
    if file.features != FEATURES_VERSION:
        raise UserError(
            f"{path}: trained with cues of version {file.features}, and this cst-bench makes version {FEATURES_VERSION}"
        )
    folder = path.parent / file.model
    try:
        found = model_digest(folder)
    except OSError as error:
        raise UserError(f"{path}: its model {folder} could not be read: {error.strerror} ({error.filename})") from None
    if found != file.sha256:
        raise UserError(f"{folder} is not the model that {path} was written with: its SHA-256 is {found}")
    return EncoderJudge(file, folder)
