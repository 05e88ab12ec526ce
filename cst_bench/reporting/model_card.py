"""Scores in a model card's metadata (`model-index`), by huggingface_hub's own classes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cst_bench.errors import UserError
from cst_bench.files import write_text
from cst_bench.reporting.leaderboard.board import Cell, Column
from cst_bench.reporting.leaderboard.build import cell_of, columns_of
from cst_bench.reporting.stored_run import StoredRun

_BLOCK = re.compile(r"\A(\ufeff?---[ \t]*\r?\n)(.*?)(^---[ \t]*(?:\r?\n|\Z))", re.DOTALL | re.MULTILINE)
SOURCE = "cst-bench"


def update_model_card(path: Path, run: StoredRun) -> None:
    """Writes a run's scores into a README.md's `model-index`, or makes the file.

    Our own results of before are replaced, those of others and all other metadata and text stay as they are.

    Raises:
        UserError: the run has no score, or the file's metadata can't be read; the file stays as it is.
    """
    from huggingface_hub.repocard_data import eval_results_to_model_index

    results = list(_results(run))
    if not results:
        raise UserError(f"{run.folder} has no score to put into {path}")
    text = _read(path)
    metadata, before, after = _split(path, text)
    known = metadata.get("model-index") or []
    if not isinstance(known, list) or not all(isinstance(one, dict) for one in known):
        raise UserError(f"{path}: its model-index must be a list of models: correct it, or take it out")
    name = str(known[0].get("name", run.label)) if known else run.label
    ours = eval_results_to_model_index(name, results)[0]["results"]
    results_before = (known[0].get("results") or []) if known else []
    if not isinstance(results_before, list):
        raise UserError(f"{path}: the results of its model-index must be a list: correct it, or take it out")
    others = [one for one in results_before if not _is_ours(one)]
    index = [{**(known[0] if known else {"name": name}), "results": [*others, *ours]}, *known[1:]]
    written = yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True)
    if "\r\n" in text:
        written = written.replace("\n", "\r\n")
    made = f"{before}{written}{after}"
    if _metadata(made) != {**metadata, "model-index": index}:
        raise UserError(f"{path}: can't add to its metadata as it is written: put each key on a line of its own")
    write_text(path, made)


def _read(path: Path) -> str:
    """As it is, line ends included; empty if there is no file."""
    if not path.exists():
        return ""
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as UTF-8 text: {error}") from None


def _metadata(text: str) -> Any:
    found = _BLOCK.match(text)
    try:
        return None if found is None else yaml.safe_load(found[2])
    except yaml.YAMLError:
        return None


def _split(path: Path, text: str) -> tuple[dict[str, Any], str, str]:
    """The metadata, what stands before its model-index, and what stands behind."""
    found = _BLOCK.match(text)
    if found is None:
        line = "---\r\n" if "\r\n" in text else "---\n"
        return {}, line, f"{line}{text}"
    try:
        metadata = yaml.safe_load(found[2]) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: its metadata is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(metadata, dict):
        raise UserError(f"{path}: its metadata must be keys and values, not {type(metadata).__name__}")
    lines = found[2].splitlines(keepends=True)
    first = next((at for at, line in enumerate(lines) if re.match(r"""["']?model-index["']?\s*:""", line)), len(lines))
    last = next((at for at in range(first + 1, len(lines)) if re.match(r"[^\s#-]", lines[at])), len(lines))
    while last > first and re.match(r"#|\s*$", lines[last - 1]):  # what stands behind the index stays
        last -= 1
    head, tail = "".join(lines[:first]), "".join(lines[last:])
    if head and not head.endswith("\n"):
        head += "\n"
    return metadata, f"{found[1]}{head}", f"{tail}{found[3]}{text[found.end() :]}"


def _is_ours(result: Any) -> bool:
    return isinstance(result, dict) and (result.get("source") or {}).get("name") == SOURCE


def _results(run: StoredRun) -> Iterator[Any]:
    """One result for each configuration and capability; the interval, n and judge are in the metric's args."""
    from huggingface_hub import EvalResult

    for column in columns_of([run]):
        cell = cell_of(run, column)
        if cell is None or cell.score is None or column.task is None:
            continue
        compliance = column.kind != "capability"
        settings = run.settings["compliance" if compliance else "capabilities"][column.task]
        yield EvalResult(
            task_type="text-generation",
            task_name=str(settings["title"]),
            dataset_type=str(settings.get("data", column.task)),
            dataset_name=str(settings["title"]),
            dataset_config=column.task,  # results are grouped by data set, and two tasks may share one
            dataset_split=str(run.settings["split"]) if compliance else None,
            metric_type="compliance" if compliance else str(run.scores["capabilities"][column.task]["metric"]),
            metric_name=column.title,
            metric_value=round(cell.score, 4),
            metric_args=_args(run, column, cell),
            source_name=SOURCE,
            source_url="https://arxiv.org/abs/2404.00495",
        )


def _args(run: StoredRun, column: Column, cell: Cell) -> dict[str, Any]:
    args: dict[str, Any] = {"n": cell.n}
    if cell.interval is not None:
        args["interval_95"] = [round(end, 4) for end in cell.interval]
    if column.kind == "capability":
        return args
    judge = run.scores["judges"][column.task]
    args |= {"unscored": cell.unscored, "judge": str(judge.get("model") or judge["name"])}
    if judge["calibration"] is not None:
        args["judge_macro_f1"] = round(judge["calibration"]["macro_f1"], 4)
    if cell.corrected is not None:
        args["corrected"] = round(cell.corrected, 4)
    return args
