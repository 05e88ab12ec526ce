"""Folders of a training: the result appears whole or not at all.

A training works in a hidden folder beside its result (`.NAME.partial`), and renames what it has made at the end. An
interrupted training continues from its last complete checkpoint there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cst_bench.checkpoint.checkpoint_files import TRAINING
from cst_bench.files import write_json
from cst_bench.tuning.training_callbacks import COMPLETE
from cst_bench.workfolder import read_manifest, require_empty, require_same_settings

_SETTINGS = "settings.json"
LOGS = "runs"
"""Folder of TRL's TensorBoard logs in its output folder."""


def finished(out: Path, settings: Mapping[str, object]) -> dict[str, Any] | None:
    """Return the `training.json` of a finished training with the same settings; None if there is none yet.

    Raises:
        UserError: the folder holds something else.
    """
    if not out.exists():
        return None
    if not (out / TRAINING).is_file():
        require_empty(out, "the folder of a finished training")
        return None
    training = read_manifest(out / TRAINING)
    require_same_settings(out, training.get("settings"), settings, "a finished training")
    return training


class UnfinishedTraining:
    """The hidden folder of a training that is not finished."""

    def __init__(self, out: Path) -> None:
        """Name the hidden folder of the training that makes `out`; create nothing."""
        self.out = out
        self.path = out.parent / f".{out.name}.partial"

    @property
    def checkpoints(self) -> Path:
        """Return the output folder of the trainer, which holds its checkpoints."""
        return self.path / "checkpoints"

    @property
    def result(self) -> Path:
        """Return the folder that becomes `out`."""
        return self.path / "result"

    def open(self, settings: Mapping[str, object], *, restart: bool) -> None:
        """Begin a training in the folder, or continue one with the same settings.

        Raises:
            UserError: the folder holds a training with other settings.
        """
        if restart:
            for entry in (self.checkpoints, self.result):
                shutil.rmtree(entry, ignore_errors=True)
            (self.path / _SETTINGS).unlink(missing_ok=True)
        if (self.path / _SETTINGS).is_file():
            stored = read_manifest(self.path / _SETTINGS)
            kind, otherwise = "an unfinished training", "discard it with --restart"
            require_same_settings(self.out, stored, settings, kind, otherwise=otherwise)
        else:
            write_json(self.path / _SETTINGS, dict(settings))
        shutil.rmtree(self.result, ignore_errors=True)

    def last_checkpoint(self) -> tuple[Path | None, float]:
        """Return the last complete checkpoint and its seconds of training; delete checkpoints cut off in writing."""
        complete: list[tuple[int, Path]] = []
        for folder in self.checkpoints.glob("checkpoint-*"):
            if (folder / COMPLETE).is_file():
                complete.append((int(folder.name.rpartition("-")[2]), folder))
            else:
                shutil.rmtree(folder, ignore_errors=True)  # another process may be deleting it too
        if not complete:
            return None, 0.0
        _, last = max(complete)
        return last, float(read_manifest(last / COMPLETE)["seconds"])

    def publish(self) -> None:
        """Rename the result, with TensorBoard's logs as `runs/`, to `out`, and delete the hidden folder."""
        if (self.checkpoints / LOGS).is_dir():
            os.replace(self.checkpoints / LOGS, self.result / LOGS)
        os.replace(self.result, self.out)
        shutil.rmtree(self.path)
