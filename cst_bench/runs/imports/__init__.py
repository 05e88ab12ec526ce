"""Read responses from the logs of other tools, so that a judge measured here can score them.

A file is recognized by its suffix and its first keys; `--format` names the tool instead. What is read from which field
is in `docs/evaluate.md`. Text in a log is data: nothing of it is interpreted, and messages do not repeat it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from cst_bench.errors import UserError
from cst_bench.runs.imports import garak_report, inspect_log, lm_eval_samples, promptfoo_results, pyrit_memory
from cst_bench.runs.imports.imported import (
    COLUMNS,
    SYSTEM,
    Document,
    ImportedLog,
    ImportedResponse,
    read_document,
)

__all__ = ["COLUMNS", "FORMATS", "SYSTEM", "TABLE", "ImportedLog", "ImportedResponse", "read_log"]

TABLE = "table"
"""Format of a file with a row for each response, which is no log."""


class _Reader(NamedTuple):
    """How to recognize and read the files of a tool."""

    kind: str
    fits: Callable[[Document], bool]
    read: Callable[[Document], ImportedLog]


_READERS: Mapping[str, _Reader] = {
    "inspect": _Reader(inspect_log.KIND, inspect_log.fits, lambda document: inspect_log.read(document.path)),
    "lm-eval": _Reader(lm_eval_samples.KIND, lm_eval_samples.fits, lm_eval_samples.read),
    "promptfoo": _Reader(promptfoo_results.KIND, promptfoo_results.fits, promptfoo_results.read),
    "garak": _Reader(garak_report.KIND, garak_report.fits, garak_report.read),
    "pyrit": _Reader(pyrit_memory.KIND, pyrit_memory.fits, pyrit_memory.read),
}
FORMATS = (*_READERS, TABLE)
"""Values of `--format`."""


def read_log(path: Path, name: str | None = None) -> ImportedLog | None:
    """Read the log of another tool; None for a file that is a table of responses.

    Args:
        path: File.
        name: One of `FORMATS`; None to recognize it.

    Raises:
        UserError: the file can't be read, is damaged, is not of the named format, or has no responses.
    """
    if name == TABLE or not path.is_file():
        return None
    log = _read(path, name)
    if log is not None and not log.responses:
        raise UserError(f"{path}: {log.kind} without a response: {' '.join(log.notes) or 'nothing to score'}")
    return log


def _read(path: Path, name: str | None) -> ImportedLog | None:
    suffix = path.suffix.lower()
    if suffix == inspect_log.SUFFIX:
        if name not in (None, "inspect"):
            raise UserError(f"{path}: {inspect_log.SUFFIX} is a format of Inspect's, not of {name}")
        return inspect_log.read(path)
    if suffix == ".csv" and name in (None, "promptfoo") and promptfoo_results.fits_csv(path):
        return promptfoo_results.read_csv(path)
    if suffix not in (".json", ".jsonl", ".csv"):
        if name is not None:
            raise UserError(f"{path}: a log of {name} ends in .json or .jsonl, not in {suffix or 'nothing'}")
        return None
    document = read_document(path, first_row=True)
    fitting = [key for key, reader in _READERS.items() if reader.fits(document)]
    if name is not None and name not in fitting:
        instead = f"it looks like {_READERS[fitting[0]].kind}" if fitting else "its keys are others"
        raise UserError(f"{path}: not {_READERS[name].kind}: {instead}; leave out --format to have it recognized")
    if name is None and len(fitting) != 1:
        return None
    return _READERS[name or fitting[0]].read(read_document(path))
