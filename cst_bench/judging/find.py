"""Finds a judge by name or path and makes it, whatever its kind."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from cst_bench import content
from cst_bench.errors import UserError, did_you_mean
from cst_bench.judging.judge import Judge, JudgeOptions

FOLDER = "judges"
KINDS = {
    "rules": "cst_bench.judging.rules",
    "llm": "cst_bench.judging.llm",
    "classifier": "cst_bench.judging.trained.trained_judge",
    "guard": "cst_bench.judging.guard.guard_judge",
    "panel": "cst_bench.judging.panel",
}
"""Each kind's module has `SCHEMA`, the content of its files, and `make(file, path, options)`. Imported when used."""


def find_judge(name: str, beside: Path | None = None) -> Path:
    """The file of a judge by name or path; a path is tried relative to the file that names it (`beside`), too.

    Raises:
        UserError: no such judge.
    """
    if beside is not None and name.endswith((".yaml", ".yml")) and (beside.parent / name).is_file():
        return (beside.parent / name).resolve()
    if Path(name, "judge.yaml").is_file():  # a folder that `cst-bench judge train` wrote
        return Path(name, "judge.yaml").resolve()
    return content.find(FOLDER, name, "judge")


def judge_name(path: Path) -> str:
    """What to call a judge file so that `find_judge` finds it again: a name of the project's own, or the path."""
    return path.stem if path.parent == content.content_root() / FOLDER else str(path)


def load_judge(name: str, beside: Path | None = None, options: JudgeOptions | None = None) -> Judge:
    """A judge by name or path, ready to be asked.

    Raises:
        UserError: unknown name, a fault in the file, or something that the judge needs is missing (a key, a package).
    """
    path = find_judge(name, beside)
    module = import_module(KINDS[_kind(path)])
    judge: Judge = module.make(content.load(path, module.SCHEMA), path, options or JudgeOptions())
    return judge


def describe(path: Path) -> dict[str, Any]:
    """What a judge file says of itself, without making the judge: no key or checkpoint is needed."""
    module = import_module(KINDS[_kind(path)])
    file = content.load(path, module.SCHEMA)
    return {
        "name": file.name,
        "kind": file.kind,
        "version": file.version,
        "behaviours": list(file.behaviours),
        "model": getattr(file, "model", None),
        "description": file.description,
    }


def _kind(path: Path) -> str:
    """What the file says it is; a file that can't be read or doesn't say is left for the schema of rules to explain."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError, RecursionError):
        return "rules"
    kind = data.get("kind", "rules") if isinstance(data, dict) else "rules"
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{path}: kind: {kind!r} is no kind of judge: {did_you_mean(str(kind), KINDS)}")
    return kind
