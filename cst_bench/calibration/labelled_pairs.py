"""Preference pairs as labelled responses: each is labelled by what it was made for.

A pair's system prompt asks for a behaviour, its chosen response is made to show it, and its rejected one to show the
other. Nobody has read them: some show neither, and training looks for those.
"""

from __future__ import annotations

from pathlib import Path

from cst_bench.calibration.labels import FROM_PAIR, Labelled, LabelSet
from cst_bench.compliance.compliance_task import ComplianceTask, load_task
from cst_bench.errors import UserError
from cst_bench.files import digest, read_rows, text_column
from cst_bench.judging import Case

COLUMNS = ("system", "prompt", "chosen", "rejected")


def read_pairs(path: Path, task: str) -> LabelSet:
    """The responses of a file of pairs (`system`, `prompt`, `chosen`, `rejected`), labelled by construction.

    Rows whose system prompt is none of the task's configurations are passed over: a file may hold several tasks. A
    pair and its flip hold the same two responses, which are taken once.

    Args:
        path: jsonl, json, csv, tsv or parquet, such as the released pairs of Gallego 2024.
        task: A compliance task of two configurations (name or file), whose system prompts say who asks for what.

    Raises:
        UserError: a column is missing, the task hasn't two behaviours, no row is of it, or a response is labelled
            both ways.
    """
    spec, _ = load_task(task)
    behaviours = _two_behaviours(spec)
    found: dict[str, Labelled] = {}
    for number, row in enumerate(read_rows(path), 1):
        system, prompt, chosen, rejected = (text_column(row, column) for column in COLUMNS)
        configuration = spec.configuration_of(system)
        if configuration is None:
            continue
        wanted = spec.asked[configuration]
        other = next(behaviour for behaviour in behaviours if behaviour != wanted)
        for response, behaviour in ((chosen, wanted), (rejected, other)):
            one = Labelled(f"{number}-{behaviour}", Case(prompt, response), behaviour, FROM_PAIR)
            first = found.setdefault(one.key, one)
            if first.behaviour != behaviour:
                raise UserError(
                    f"{row.where}: the response {one.id} is the one of {first.id}, which is {first.behaviour}"
                )
    if not found:
        raise UserError(f"{path}: no row has a system prompt of task {spec.name}: name the task that it is for")
    rows = list(found.values())
    sha256 = digest([[row.case.prompt, row.case.response, row.behaviour, row.by] for row in rows])
    return LabelSet(path.stem, rows, sha256)


def pair_file(path: Path) -> bool:
    """Whether a file holds pairs, and not labelled responses: by the columns of its first row."""
    if path.suffix.lower() in (".md", ".markdown"):
        return False
    first = read_rows(path)[0].values
    return "chosen" in first and "rejected" in first


def _two_behaviours(spec: ComplianceTask) -> list[str]:
    behaviours = list(dict.fromkeys(spec.asked.values()))
    if len(behaviours) != 2:
        raise UserError(
            f"task {spec.name} has the behaviours {', '.join(behaviours)}: pairs say which is which only of two"
        )
    return behaviours
