"""Starter files: a task, a judge and a recipe that work as they are, to change into ones of your own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from cst_bench.content import content_root
from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import write_text

FOLDERS: Mapping[str, str] = {
    "task": "tasks/starter",
    "judge": "judges/starter",
    "recipe": "training/starter",
}
"""Kind → content folder with its files. All are called `starter`, which is replaced by the user's name for them."""
_TEMPLATE_NAME = "starter"


def write_starter(kind: str, name: str, folder: Path) -> list[Path]:
    """Write a starter file `NAME.yaml` into a folder, and its data file if it needs one.

    Args:
        kind: `task`, `judge` or `recipe`.
        name: Name of the task, judge or recipe: lower-case letters, digits and underscores.
        folder: Created if it does not exist.

    Returns:
        The files, the YAML file first.

    Raises:
        UserError: unknown kind, a name with other characters or one that YAML reads as something else (`on`, `2024`),
            or a file of that name exists.
    """
    if kind not in FOLDERS:
        raise UserError(f"unknown kind of file {kind!r}: {did_you_mean(kind, FOLDERS)}")
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise UserError(f"{name!r} cannot be a name: use lower-case letters, digits and underscores")
    if yaml.safe_load(name) != name:
        raise UserError(f"{name!r} cannot be a name: YAML reads it as {yaml.safe_load(name)!r}; choose another")
    sources = sorted((content_root() / FOLDERS[kind]).iterdir(), key=lambda path: path.suffix != ".yaml")
    targets = [folder / f"{name}{source.suffix}" for source in sources]
    for target in targets:
        if target.exists():
            raise UserError(
                f"{target} exists and is not overwritten: choose another name, or another folder with --out"
            )
    for source, target in zip(sources, targets):
        write_text(target, source.read_text(encoding="utf-8").replace(_TEMPLATE_NAME, name))
    return targets
