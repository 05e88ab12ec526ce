"""Where a training works and where its result goes: the result's folder is there whole or not at all.

A training works in a hidden folder beside the one that it is to make (`.NAME.partial`), and renames what it has made
when all is done. A training that was cut off is continued from its last whole checkpoint there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cst_bench.checkpoint.files import TRAINING
from cst_bench.errors import UserError
from cst_bench.files import write_json
from cst_bench.runs.run_folder import differences
from cst_bench.tuning.training_callbacks import MARK

_SETTINGS = "settings.json"
LOGS = "runs"
"""Where TRL's TensorBoard writer puts its files, in its own output folder."""


def finished(out: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a finished training of the same settings wrote into the folder; None if it isn't there yet.

    Raises:
        UserError: the folder holds something else.
    """
    if out.is_dir() and not any(out.iterdir()):
        return None
    if not out.exists():
        return None
    if not (out / TRAINING).is_file():
        raise UserError(f"{out} holds files and is no trained checkpoint: give another folder with --out")
    result = _read(out / TRAINING)
    _require_same(out, result.get("settings"), settings, "a finished training")
    return result


class WorkFolder:
    """The hidden folder of a training that isn't finished."""

    def __init__(self, out: Path) -> None:
        """Of the training that is to make `out`."""
        self.out = out
        self.path = out.parent / f".{out.name}.partial"

    @property
    def checkpoints(self) -> Path:
        """Where the trainer keeps its own checkpoints."""
        return self.path / "checkpoints"

    @property
    def result(self) -> Path:
        """What `out` will be."""
        return self.path / "result"

    def open(self, settings: Mapping[str, Any], *, restart: bool) -> None:
        """Makes the folder, or takes up one of the same settings.

        Raises:
            UserError: it holds a training with other settings.
        """
        if restart:
            for entry in (self.checkpoints, self.result):
                shutil.rmtree(entry, ignore_errors=True)
            (self.path / _SETTINGS).unlink(missing_ok=True)
        if (self.path / _SETTINGS).is_file():
            found = _read(self.path / _SETTINGS)
            _require_same(self.out, found, settings, "an unfinished training", "or throw it away with --restart")
        else:
            write_json(self.path / _SETTINGS, dict(settings))
        shutil.rmtree(self.result, ignore_errors=True)

    def last(self) -> tuple[Path | None, float]:
        """The last whole checkpoint and the seconds that led to it. One that was cut off is deleted."""
        found: list[tuple[int, Path]] = []
        for folder in self.checkpoints.glob("checkpoint-*"):
            if (folder / MARK).is_file():
                found.append((int(folder.name.rpartition("-")[2]), folder))
            else:
                shutil.rmtree(folder, ignore_errors=True)  # another process may be at it, too
        if not found:
            return None, 0.0
        _, last = max(found)
        return last, float(_read(last / MARK)["seconds"])

    def finish(self) -> None:
        """Makes the result `out`, in one step, and clears up. What TensorBoard reads goes along, as `runs/`."""
        if (self.checkpoints / LOGS).is_dir():
            os.replace(self.checkpoints / LOGS, self.result / LOGS)
        os.replace(self.result, self.out)
        shutil.rmtree(self.path)


def _require_same(
    out: Path, found: Any, wanted: Mapping[str, Any], what: str, also: str = "or delete this one"
) -> None:
    if found != json.loads(json.dumps(wanted)):
        differing = ", ".join(differences(found, dict(wanted)))
        raise UserError(f"{out}: there is {what} with other settings ({differing}): give another --out, {also}")


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a file that cst-bench wrote: give another folder with --out")
    return value
