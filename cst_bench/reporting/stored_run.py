"""Finished runs as reports read them: `run.json`, `scores.json` and `outcomes.json` of a folder, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.compliance.compliance_task import REFERENCE
from cst_bench.errors import UserError
from cst_bench.record import (
    CheckpointIdentity,
    ConfigurationLabels,
    Manifest,
    Outcomes,
    RunSettings,
    Scores,
    TrainingIdentity,
)
from cst_bench.reporting.run_check import read_manifest, require_intact, run_folders

if TYPE_CHECKING:
    import pandas

JOINT = "joint"
METHODS = {"dpo": "DPO", "cst": "CST"}


@dataclass(frozen=True)
class StoredRun:
    """A run and its results."""

    folder: Path
    manifest: Manifest
    scores: Scores
    outcomes: Outcomes
    receipt: str | None = None
    """Digest of its receipt; None for a run that has none, as those of earlier versions."""

    @property
    def settings(self) -> RunSettings:
        """Return what decided the results."""
        return self.manifest.settings

    @property
    def checkpoint(self) -> CheckpointIdentity:
        """Return what identifies the weights."""
        return self.scores.checkpoint

    @property
    def label(self) -> str:
        """Return the name of the checkpoint."""
        return self.checkpoint.label

    @property
    def training(self) -> TrainingIdentity | None:
        """Return how `cst-bench train` made the checkpoint, if it did."""
        return self.checkpoint.training

    @property
    def method(self) -> str | None:
        """Return DPO or CST; `adapter` for an adapter trained elsewhere, None for a whole model trained elsewhere."""
        if self.training is not None:
            return METHODS.get(self.training.method, self.training.method)
        return "adapter" if self.checkpoint.kind == "adapter" else None

    @property
    def base_sha256(self) -> str:
        """Return the SHA-256 of the weights it was trained on, or its own: runs with the same one belong together."""
        if self.training is not None:
            return self.training.base_sha256
        return self.checkpoint.weights_sha256 or self.checkpoint.sha256 or f"label {self.label}"

    @property
    def base(self) -> str:
        """Return the label of the checkpoint's base; its own label if it has none."""
        if self.training is not None:
            return self.training.base
        return self.checkpoint.base or self.label

    def configurations(self, task: str) -> Mapping[str, str]:
        """Return configuration → the behaviour that it asks for."""
        return self.settings.compliance[task].configurations

    def complied(self, task: str, configuration: str) -> dict[str, float | None]:
        """Return prompt id → share of its responses that complied, None if unscored; `joint`: of their combinations."""
        asked = self.configurations(task)
        if configuration != JOINT:
            wanted = asked[configuration]
            return {
                prompt: share_of([behaviour == wanted for behaviour in behaviours if behaviour is not None])
                for prompt, behaviours in self.behaviours(task, configuration).items()
            }
        by_configuration = [self.complied(task, name) for name in asked]
        common = set.intersection(*map(set, by_configuration)) if by_configuration else set()
        return {prompt: _product([complied[prompt] for complied in by_configuration]) for prompt in sorted(common)}

    def behaviours(self, task: str, configuration: str) -> dict[str, tuple[str | None, ...]]:
        """Return prompt id → behaviours of its responses, None if unscored."""
        behaviours = self.outcomes.compliance.get(task, {}).get(configuration, {})
        return {prompt: value if isinstance(value, tuple) else (value,) for prompt, value in behaviours.items()}

    def labelled(self, task: str, configuration: str) -> ConfigurationLabels:
        """Return what people said of responses; `joint`: of prompts whose responses are all labelled."""
        by_configuration = self.outcomes.labels.get(task, {})
        none = ConfigurationLabels(shown={})
        if configuration != JOINT:
            return by_configuration.get(configuration, none)
        parts = [by_configuration.get(name, none) for name in self.configurations(task)]
        prompts = set.intersection(*(set(part.shown) for part in parts))
        drawn = set.intersection(*(set(part.drawn_from) for part in parts))
        return ConfigurationLabels(
            shown={prompt: _all([part.shown[prompt] for part in parts]) for prompt in sorted(prompts)},
            drawn_from={prompt: " ".join(part.drawn_from[prompt] for part in parts) for prompt in sorted(drawn)},
        )

    def documents(self, task: str) -> Mapping[str, float]:
        """Return document → its score in the task's metric; empty if the task has no result."""
        documents = self.outcomes.capabilities.get(task)
        return {} if documents is None else documents.scores

    def prompts(self, task: str) -> frozenset[str]:
        """Return all prompt ids of a compliance task, of every configuration."""
        by_configuration = self.outcomes.compliance.get(task, {})
        return frozenset(prompt for name, ids in by_configuration.items() if name != REFERENCE for prompt in ids)

    def to_frame(self) -> pandas.DataFrame:
        """Return the scores, one row per score; scores and intervals are shares in 0 to 1."""
        from cst_bench.reporting.frames import run_frame

        return run_frame(self)

    def outcomes_frame(self) -> pandas.DataFrame:
        """Return one row per response: task, configuration, prompt id, behaviour, and whether it complied."""
        from cst_bench.reporting.frames import outcomes_frame

        return outcomes_frame(self)

    def documents_frame(self) -> pandas.DataFrame:
        """Return one row per document of the capability tasks, with its score in the task's metric."""
        from cst_bench.reporting.frames import documents_frame

        return documents_frame(self)

    def _repr_markdown_(self) -> str:
        from cst_bench.reporting.notebook import run_table

        return run_table(self)


def _all(values: Sequence[bool | None]) -> bool | None:
    """Return whether all values are True; None if one is unknown and none is False."""
    return False if False in values else None if None in values else True


def share_of(values: Sequence[bool]) -> float | None:
    """Return the share of True; None without values."""
    return sum(values) / len(values) if values else None


def _product(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.prod(known) if len(known) == len(values) else None


def read_run(folder: Path) -> StoredRun:
    """Read a finished run.

    All files of a run with a receipt are compared with it, so that no score is read that others may have changed.

    Raises:
        UserError: the folder is not a run, the run is not finished, or its files are of another version, damaged, or
            not those that it was finished with.
    """
    manifest = read_manifest(folder)
    if manifest.status.run != "finished":
        raise UserError(f"{folder}: this run is not finished: repeat the command that began it")
    receipt = require_intact(folder)
    scores, outcomes = Scores.read(folder), Outcomes.read(folder)
    compliance, capabilities = manifest.settings.compliance.keys(), manifest.settings.capabilities.keys()
    of_one_run = (
        scores.compliance.keys() == scores.judges.keys() == compliance
        and scores.capabilities.keys() == capabilities
        and outcomes.compliance.keys() <= compliance
        and outcomes.capabilities.keys() <= capabilities
    )
    if not of_one_run:
        raise UserError(f"{folder}: its files have different tasks: they were not written by one run")
    return StoredRun(folder, manifest, scores, outcomes, None if receipt is None else receipt.sha256)


def load_run(folder: Path | str) -> StoredRun:
    """Read a finished run from its folder.

    Raises:
        UserError: as `read_run`.
    """
    return read_run(Path(folder))


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Find the run folders at or below paths, each once, in the order of the paths, then by name.

    Raises:
        UserError: a path is not a folder, or has no run.
    """
    folders: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path}: no such folder: give folders of runs, or a folder that has some")
        below = [path] if (path / Manifest.FILE_NAME).is_file() else run_folders(path)
        if not below:
            raise UserError(f"{path} has no run: `cst-bench run` makes one")
        for folder in below:
            folders.setdefault(folder.resolve(), folder)
    return list(folders.values())


def read_runs(paths: Sequence[Path]) -> tuple[list[StoredRun], list[str]]:
    """Read all finished runs at or below paths; the second value notes each that was left out, and why.

    Left out are unfinished and damaged runs, unless a path names them.

    Raises:
        UserError: as `find_runs`; a path is itself an unfinished or damaged run; no run is finished.
    """
    runs, notes = [], []
    named = {path.resolve() for path in paths}
    for folder in find_runs(paths):
        if folder.resolve() in named:
            runs.append(read_run(folder))
            continue
        try:
            if read_manifest(folder).status.run != "finished":
                notes.append(f"{folder} is left out: it is not finished.")
            else:
                runs.append(read_run(folder))
        except UserError as error:
            notes.append(f"{folder} is left out: {error}")
    if not runs:
        reasons = "".join(f" {note}" for note in notes)
        raise UserError(
            f"no finished run in {', '.join(map(str, paths))}: repeat the commands that began them.{reasons}"
        )
    return runs, notes
