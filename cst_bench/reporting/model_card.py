"""Scores in a model card's metadata (`model-index`), by huggingface_hub's own classes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import JsonValue

from cst_bench.content import parse_yaml
from cst_bench.errors import UserError
from cst_bench.files import write_text
from cst_bench.record import SHORT
from cst_bench.reporting.score_cells import Cell, Column, cell_of, columns_of
from cst_bench.reporting.stored_run import StoredRun

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_BLOCK = re.compile(r"\A(\ufeff?---[ \t]*\r?\n)(.*?)(^---[ \t]*(?:\r?\n|\Z))", re.DOTALL | re.MULTILINE)
SOURCE = "cst-bench"


def update_model_card(path: Path, run: StoredRun) -> None:
    """Write a run's scores into the `model-index` of a README.md, which is created if it does not exist.

    Earlier results of cst-bench are replaced; results of others, all other metadata and the text stay as they are.

    Raises:
        UserError: the run has no score, or the file's metadata can't be read; the file is left unchanged.
    """
    from huggingface_hub.repocard_data import eval_results_to_model_index

    results = list(_results(run))
    if not results:
        raise UserError(f"{run.folder} has no score to put into {path}")
    text = _read(path)
    metadata, before, after = _split(path, text)
    index = metadata.get("model-index") or []
    if not isinstance(index, list) or not all(isinstance(model, dict) for model in index):
        raise UserError(f"{path}: its model-index must be a list of models: correct or remove it")
    name = str(index[0].get("name", run.label)) if index else run.label
    ours = eval_results_to_model_index(name, results)[0]["results"]
    results_before = (index[0].get("results") or []) if index else []
    if not isinstance(results_before, list):
        raise UserError(f"{path}: the results of its model-index must be a list: correct or remove it")
    others = [result for result in results_before if not _is_ours(result)]
    index = [{**(index[0] if index else {"name": name}), "results": [*others, *ours]}, *index[1:]]
    written = yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True)
    if "\r\n" in text:
        written = written.replace("\n", "\r\n")
    updated = f"{before}{written}{after}"
    if _metadata(updated) != {**metadata, "model-index": index}:
        raise UserError(f"{path}: can't add to its metadata in this layout: put each key on its own line")
    write_text(path, updated)


def _read(path: Path) -> str:
    """Read a file with its line ends; return the empty string if there is no file."""
    if not path.exists():
        return ""
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read as UTF-8 text: {error}") from None


def _metadata(text: str) -> Any:
    block = _BLOCK.match(text)
    try:
        return None if block is None else parse_yaml("the metadata", block[2])
    except UserError:
        return None


def _split(path: Path, text: str) -> tuple[dict[str, Any], str, str]:
    """Return the metadata, the text before its model-index, and the text after it."""
    block = _BLOCK.match(text)
    if block is None:
        line = "---\r\n" if "\r\n" in text else "---\n"
        return {}, line, f"{line}{text}"
    metadata = parse_yaml(f"{path}: metadata", block[2]) or {}
    if not isinstance(metadata, dict):
        raise UserError(f"{path}: its metadata must be keys and values, not {type(metadata).__name__}")
    lines = block[2].splitlines(keepends=True)
    first = next((at for at, line in enumerate(lines) if re.match(r"""["']?model-index["']?\s*:""", line)), len(lines))
    last = next((at for at in range(first + 1, len(lines)) if re.match(r"[^\s#-]", lines[at])), len(lines))
    while last > first and re.match(r"#|\s*$", lines[last - 1]):  # what follows the index stays
        last -= 1
    head, tail = "".join(lines[:first]), "".join(lines[last:])
    if head and not head.endswith("\n"):
        head += "\n"
    return metadata, f"{block[1]}{head}", f"{tail}{block[3]}{text[block.end() :]}"


def _is_ours(result: Any) -> bool:
    return isinstance(result, dict) and (result.get("source") or {}).get("name") == SOURCE


def _results(run: StoredRun) -> Iterator[EvalResult]:
    """Yield a result for each configuration and capability; interval, n and judge are arguments of its metric."""
    from huggingface_hub import EvalResult

    for column in columns_of([run]):
        cell = cell_of(run, column)
        if cell is None or cell.score is None or column.task is None:
            continue
        compliance = run.settings.compliance.get(column.task)
        title = run.settings.capabilities[column.task].title if compliance is None else compliance.title
        metric = run.scores.capabilities[column.task].metric if compliance is None else "compliance"
        yield EvalResult(
            task_type="text-generation",
            task_name=title,
            dataset_type=column.task if compliance is None else compliance.data,
            dataset_name=title,
            dataset_config=column.task,  # results are grouped by data set, and two tasks may share one
            dataset_split=None if compliance is None else run.settings.split,
            metric_type=str(metric),
            metric_name=column.title,
            metric_value=round(cell.score, 4),
            metric_args=_args(run, column, cell),
            source_name=SOURCE,
            source_url="https://arxiv.org/abs/2404.00495",
        )


def _args(run: StoredRun, column: Column, cell: Cell) -> dict[str, JsonValue]:
    args: dict[str, JsonValue] = {"n": cell.n}
    if run.receipt is not None:
        args["receipt"] = run.receipt[:SHORT]
    if cell.interval is not None:
        args["interval_95"] = [round(end, 4) for end in cell.interval]
    if column.kind == "capability":
        return args
    judge = run.scores.judges[str(column.task)]
    args |= {"unscored": cell.unscored, "judge": judge.model or judge.name}
    if judge.calibration is not None and judge.calibration.macro_f1 is not None:
        args["judge_macro_f1"] = round(judge.calibration.macro_f1, 4)
    if cell.corrected is not None:
        args["corrected"] = round(cell.corrected, 4)
    return args
