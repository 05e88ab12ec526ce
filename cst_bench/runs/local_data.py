"""Local data of a run's tasks: one path a task, or one folder that holds the data of all by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import SUFFIXES


def local_data(given: Mapping[str, Path], folder: Path | None, names: Mapping[str, Sequence[str]]) -> dict[str, Path]:
    """Return task → local data; tasks without any use their own source.

    Args:
        given: Task → path, which goes before the folder.
        folder: Folder with a file or folder for each task, by one of its names.
        names: Task → names of its data.

    Raises:
        UserError: a path is for another task; the folder is not one, has two files for a task, or none for any.
    """
    for task in given:
        if task not in names:
            raise UserError(f"--data {task}=…: no such task in this run: {did_you_mean(task, names)}")
    if folder is None:
        return dict(given)
    if not folder.is_dir():
        raise UserError(f"--data-dir {folder}: is not a folder")
    found = {task: path for task, known in names.items() if (path := _find(folder, task, known)) is not None}
    if not found:
        wanted = ", ".join(name for known in names.values() for name in known)
        raise UserError(f"--data-dir {folder}: has no data for any task of this run: it may hold {wanted}")
    return {**found, **given}


def _find(folder: Path, task: str, names: Sequence[str]) -> Path | None:
    paths = [folder / f"{name}{suffix}" for name in names for suffix in ("", *SUFFIXES)]
    found = [path for path in paths if path.exists()]
    if len(found) > 1:
        raise UserError(
            f"--data-dir {folder}: has {found[0].name} and {found[1].name} for {task}: choose with --data {task}=PATH"
        )
    return found[0] if found else None
