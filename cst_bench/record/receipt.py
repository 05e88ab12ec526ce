"""`receipt.json`: SHA-256 of every file that the numbers of a finished run come from, chained in the order of the work.

Each stage holds the digest of the one before it, so that the last digest stands for all. A receipt shows damage and
mix-ups; who can write the folder can also write another receipt, unless it is signed (`receipt.json.sig`).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, Field, ValidationError

from cst_bench.errors import UserError
from cst_bench.files import digest
from cst_bench.record.manifest import Manifest
from cst_bench.record.outcomes import Outcomes
from cst_bench.record.record_file import Record, RecordFile
from cst_bench.record.scores import Scores

StageName = Literal["run", "responses", "verdicts", "labels", "outcomes", "scores", "report"]
STAGES: tuple[StageName, ...] = get_args(StageName)
"""The stages of a run, each computed from those before it."""
LABEL_FILES = ("labels.jsonl", "label_strata.json")
"""Files of the labels, which a run need not have."""
SHORT = 16
"""Hex digits of a receipt's digest that reports show."""


def _inside(name: str) -> str:
    """Check that a name is that of a file in the folder, written in one way only."""
    path = PurePosixPath(name)
    if path.is_absolute() or str(path) != name or ".." in path.parts or "\\" in name or not name.isprintable():
        raise ValueError("must be the name of a file in the run folder")
    return name


FileName = Annotated[str, AfterValidator(_inside)]


class FileHash(Record):
    """Identity of a file's content."""

    sha256: str
    """SHA-256 of the content."""
    bytes: int
    """Size."""


class Stage(Record):
    """A stage of the work."""

    name: StageName
    """`run`: settings. `responses`: what the checkpoint gave. `verdicts`: what the judges said of it. `labels`: what
    people said. `outcomes`, `scores` and `report` follow from those."""
    files: dict[FileName, FileHash]
    """File, relative to the run folder → its hash."""
    responses: dict[FileName, str] = Field(default_factory=dict)
    """Inspect log → SHA-256 of its responses alone: verdicts are written into the same file, and can be made again
    while the responses are intact."""
    sha256: str
    """SHA-256 of this stage and of the digest of the one before it."""


class Receipt(RecordFile):
    """The content of `receipt.json`."""

    FILE_NAME: ClassVar[str] = "receipt.json"
    WRITTEN_BY: ClassVar[str] = "`cst-bench judge {folder}` writes it again from the other files"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of this format."""
    cst_bench: str
    """Version of cst-bench that wrote the receipt."""
    stages: tuple[Stage, ...]
    """Stages in order."""

    @property
    def sha256(self) -> str:
        """Return the digest of the last stage, which stands for all."""
        return self.stages[-1].sha256

    @property
    def files(self) -> dict[str, tuple[StageName, FileHash]]:
        """Return every file with its stage and hash."""
        return {name: (stage.name, known) for stage in self.stages for name, known in stage.files.items()}

    @property
    def responses(self) -> dict[str, str]:
        """Return Inspect log → SHA-256 of its responses."""
        return {name: known for stage in self.stages for name, known in stage.responses.items()}

    @classmethod
    def make(
        cls, version: str, files: Mapping[StageName, Mapping[str, FileHash]], responses: Mapping[str, str]
    ) -> Receipt:
        """Chain the hashes of files into a receipt.

        Args:
            version: Version of cst-bench.
            files: Stage → file, relative to the run folder → its hash.
            responses: Inspect log → SHA-256 of its responses.

        Raises:
            UserError: a file is not in the run folder.
        """
        before = digest({"schema": cls.schema_number(), "cst_bench": version})
        stages = []
        for name in STAGES:
            own = responses if name == "responses" else {}
            hashes = dict(sorted(files.get(name, {}).items()))
            try:
                stage = Stage(name=name, files=hashes, responses=dict(sorted(own.items())), sha256="")
            except ValidationError as error:
                place = ".".join(map(str, error.errors()[0]["loc"]))
                raise UserError(f"a run's files must be in its folder, and be no device or odd name: {place}") from None
            before = digest({**stage.as_json(), "sha256": before})
            stages.append(stage.model_copy(update={"sha256": before}))
        return cls(cst_bench=version, stages=tuple(stages))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the receipt of a folder.

        Raises:
            UserError: it is missing, of another schema version, damaged, or not exactly as it was written.
        """
        receipt = super().read(folder)
        path = folder / cls.FILE_NAME
        files = {stage.name: stage.files for stage in receipt.stages}
        chained = cls.make(receipt.cst_bench, files, receipt.responses)
        if receipt != chained or path.read_bytes() != chained.text().encode():
            raise UserError(f"{path} was changed since it was written: {cls.WRITTEN_BY.format(folder=folder)}")
        return receipt


def stage_files(manifest: Manifest) -> dict[StageName, tuple[str, ...]]:
    """Return the files that the numbers of a finished run come from, by stage, without those of labels."""
    status, settings = manifest.status, manifest.settings
    measured = [name for name in settings.capabilities if not _unavailable(manifest, name)]
    divergences = () if settings.divergence is None else settings.divergence.tasks
    return {
        "run": (Manifest.FILE_NAME,),
        "responses": (
            *(f"capabilities/{name}{suffix}" for name in measured for suffix in (".json", ".samples.jsonl")),
            *(f"divergence/{name}.jsonl" for name in divergences),
        ),
        "verdicts": tuple(log for part in status.compliance.values() for log in part.logs),
        "outcomes": (Outcomes.FILE_NAME,),
        "scores": (Scores.FILE_NAME,),
        "report": ("report.md",),
    }


def _unavailable(manifest: Manifest, task: str) -> bool:
    part = manifest.status.capabilities.get(task)
    return part is not None and part.state == "unavailable"


def hash_file(folder: Path, name: str) -> FileHash | str:
    """Return the hash of a file in a folder, which may be another user's; or what is wrong with it: "is missing"."""
    path = folder / name
    try:
        if not path.resolve(strict=True).is_relative_to(folder.resolve()):
            return "is a link that leads out of the run folder"
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for who writes into it
            return "is no regular file"
        with path.open("rb") as file:
            total = hashlib.file_digest(file, "sha256").hexdigest()
            return FileHash(sha256=total, bytes=os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        return "is missing"
    except (OSError, RuntimeError, ValueError) as error:  # of links in a circle, of a name with half a character
        return f"could not be read ({error})"
