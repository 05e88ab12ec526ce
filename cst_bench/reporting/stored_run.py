"""Finished runs as reports read them: `run.json`, `scores.json` and `outcomes.json` of a folder, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cst_bench.compliance.compliance_task import REFERENCE
from cst_bench.errors import UserError
from cst_bench.reporting.schema import fault

_FILES = ("run.json", "scores.json", "outcomes.json")
_SCHEMAS = {"run.json": 2, "scores.json": 1, "outcomes.json": 1}
METHODS = {"dpo": "DPO", "cst": "CST"}


@dataclass(frozen=True)
class StoredRun:
    """A finished run."""

    folder: Path
    manifest: Mapping[str, Any]
    """Of run.json."""
    scores: Mapping[str, Any]
    """Of scores.json."""
    outcomes: Mapping[str, Any]
    """Of outcomes.json."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decided the results."""
        settings: Mapping[str, Any] = self.manifest["settings"]
        return settings

    @property
    def checkpoint(self) -> Mapping[str, Any]:
        """What names the weights."""
        found: Mapping[str, Any] = self.scores["checkpoint"]
        return found

    @property
    def label(self) -> str:
        """What the run calls its checkpoint."""
        return str(self.checkpoint["label"])

    @property
    def training(self) -> Mapping[str, Any] | None:
        """How `cst-bench train` made the checkpoint, if it did."""
        return self.checkpoint.get("training")

    @property
    def method(self) -> str | None:
        """DPO or CST, `adapter` of another make; None for a whole model that we didn't train."""
        if self.training is not None:
            return METHODS.get(str(self.training["method"]), str(self.training["method"]))
        return "adapter" if self.checkpoint.get("kind") == "adapter" else None

    @property
    def base_sha256(self) -> str:
        """Of the weights that it was trained on, or its own: runs with the same belong together."""
        if self.training is not None:
            return str(self.training["base_sha256"])
        of = self.checkpoint.get("weights_sha256") or self.checkpoint.get("sha256") or f"label {self.label}"
        return str(of)

    @property
    def base(self) -> str:
        """What the checkpoint says that its base is called; its own label if it has none."""
        if self.training is not None:
            return str(self.training["base"])
        return str(self.checkpoint.get("base") or self.label)

    def configurations(self, task: str) -> Mapping[str, str]:
        """Configuration → the behaviour that it asks for."""
        found: Mapping[str, str] = self.settings["compliance"][task]["configurations"]
        return found

    def complied(self, task: str, configuration: str) -> dict[str, bool | None]:
        """Prompt id → whether the response complied, None if unscored; `joint`: under every configuration."""
        behaviours = self.outcomes["compliance"].get(task, {})
        asked = self.configurations(task)
        if configuration != "joint":
            wanted = asked[configuration]
            return {
                prompt: None if behaviour is None else behaviour == wanted
                for prompt, behaviour in behaviours.get(configuration, {}).items()
            }
        arms = [self.complied(task, name) for name in asked]
        common = set.intersection(*map(set, arms)) if arms else set()
        return {prompt: _all([arm[prompt] for arm in arms]) for prompt in sorted(common)}

    def documents(self, task: str) -> Mapping[str, float]:
        """Document → its score in the task's metric; empty if the task has no result."""
        found = self.outcomes["capabilities"].get(task)
        return {} if found is None else found["scores"]

    def prompts(self, task: str) -> frozenset[str]:
        """All prompt ids of a compliance task, of every configuration."""
        arms = self.outcomes["compliance"].get(task, {})
        return frozenset(prompt for name, arm in arms.items() if name != REFERENCE for prompt in arm)


def _all(values: Sequence[bool | None]) -> bool | None:
    return None if None in values else all(values)


def read_run(folder: Path) -> StoredRun:
    """One finished run.

    Raises:
        UserError: the folder is no run, the run isn't finished, or its files are of another version or unreadable.
    """
    if not (folder / "run.json").is_file():
        raise UserError(f"{folder} is no run folder: it has no run.json; `cst-bench run` makes one")
    manifest = _read(folder / "run.json")
    if manifest.get("status", {}).get("run") != "finished":
        raise UserError(f"{folder}: this run isn't finished: run the command that began it again")
    scores, outcomes = (_read(folder / name) for name in _FILES[1:])
    compliance, capabilities = (manifest["settings"][part].keys() for part in ("compliance", "capabilities"))
    of_one_run = (
        scores["compliance"].keys() == scores["judges"].keys() == compliance
        and scores["capabilities"].keys() == capabilities
        and outcomes["compliance"].keys() <= compliance
        and outcomes["capabilities"].keys() <= capabilities
    )
    if not of_one_run:
        raise UserError(f"{folder}: its files tell of different tasks: they were not written by one run")
    return StoredRun(folder, manifest, scores, outcomes)


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The run folders among some paths and in folders below them, each once, in the order of the paths, then by name.

    Raises:
        UserError: a path is no folder, or holds no run.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path}: no such folder: give folders of runs, or a folder that holds some")
        below = [path] if (path / "run.json").is_file() else sorted(file.parent for file in path.rglob("run.json"))
        if not below:
            raise UserError(f"{path} holds no run: `cst-bench run` makes one")
        for folder in below:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def read_runs(paths: Sequence[Path]) -> tuple[list[StoredRun], list[str]]:
    """All finished runs among some paths, and a remark for each that is left out because it isn't finished.

    Raises:
        UserError: as `find_runs` and `read_run`; a run that is named itself and isn't finished; none is finished.
    """
    runs, remarks = [], []
    named = {path.resolve() for path in paths}
    for folder in find_runs(paths):
        if folder.resolve() not in named and not is_finished(folder):
            remarks.append(f"{folder} is left out: it isn't finished.")
            continue
        runs.append(read_run(folder))
    if not runs:
        raise UserError(f"no finished run in {', '.join(map(str, paths))}: run the commands that began them again")
    return runs, remarks


def is_finished(folder: Path) -> bool:
    """Whether a run folder's manifest says so."""
    return bool(_read(folder / "run.json").get("status", {}).get("run") == "finished")


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} has no {path.name}: it was made by an older cst-bench; "
            f"`cst-bench judge {path.parent}` writes it"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} can't be read: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict) or "schema" not in value:
        raise UserError(f"{path} is not a file that cst-bench wrote")
    wanted = _SCHEMAS[path.name]
    if value["schema"] != wanted:
        raise UserError(f"{path} has the schema {value['schema']!r}, and this cst-bench reads {wanted}")
    wrong = fault(path.name, value)
    if wrong is not None:
        raise UserError(f"{path} is damaged: {wrong}")
    return value
