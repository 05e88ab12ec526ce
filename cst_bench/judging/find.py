"""Find a judge by name or path, and load it, whatever its kind."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from cst_bench import content
from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import read_text
from cst_bench.judging.judge import Judge, JudgeFile, JudgeOptions

FOLDER = "judges"
KINDS = {
    "rules": "cst_bench.judging.rules",
    "llm": "cst_bench.judging.llm",
    "classifier": "cst_bench.judging.trained",
    "guard": "cst_bench.judging.guard",
    "panel": "cst_bench.judging.panel",
    "cascade": "cst_bench.judging.cascade",
    "encoder": "cst_bench.judging.encoder",
}
"""Kind → module, which has the names of `JudgeKind`. Imported when used."""
MODEL_KINDS = ("llm", "guard", "panel", "cascade")
"""Kinds that take a model and an endpoint, or whose members do: making one may need a key or a checkpoint."""


class JudgeKind(Protocol):
    """Names in the module of a kind of judge."""

    FILE_MODEL: type[JudgeFile]
    """Content of its judge files."""

    def make(self, file: JudgeFile, path: Path, options: JudgeOptions) -> Judge:
        """Return the judge that a file defines; `file` is a `FILE_MODEL`, read from `path`."""
        ...


def find_judge(name: str, beside: Path | None = None) -> Path:
    """Return the file of a judge, given its name or path; a path may be relative to `beside`, the file that names it.

    Raises:
        UserError: no such judge.
    """
    if beside is not None and name.endswith((".yaml", ".yml")) and (beside.parent / name).is_file():
        return (beside.parent / name).resolve()
    if Path(name, "judge.yaml").is_file():  # a folder that `cst-bench judge train` wrote
        return Path(name, "judge.yaml").resolve()
    return content.find(FOLDER, name, "judge")


def judge_name(path: Path) -> str:
    """Return the name by which `find_judge` finds a judge file: the name of a shipped judge, else the path."""
    return path.stem if path.parent == content.content_root() / FOLDER else str(path)


def load_judge(name: str, beside: Path | None = None, options: JudgeOptions | None = None) -> Judge:
    """Load a judge by name or path.

    Raises:
        UserError: unknown name, a fault in the file, or something that the judge needs is missing (a key, a package).
    """
    path = find_judge(name, beside)
    kind = _kind(path)
    return kind.make(content.load(path, kind.FILE_MODEL), path, options or JudgeOptions())


def read_judge_file(path: Path) -> JudgeFile:
    """Read a judge file without making the judge, which would need its key or checkpoint.

    Raises:
        UserError: a fault in the file.
    """
    return content.load(path, _kind(path).FILE_MODEL)


def _kind(path: Path) -> JudgeKind:
    """Return the kind that a file names, or `rules`, whose errors explain an unreadable file or one without a kind."""
    try:
        data = content.parse_yaml(str(path), read_text(path))
    except UserError:
        data = None
    kind = data.get("kind", "rules") if isinstance(data, dict) else "rules"
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{path}: kind: {kind!r} is not a kind of judge: {did_you_mean(str(kind), KINDS)}")
    return cast(JudgeKind, import_module(KINDS[kind]))
