"""Preference pairs as labelled responses: each is labelled by construction.

A pair's system prompt asks for a behaviour; its chosen response is made to show it, and its rejected one to show the
other. Nobody has read them: some show neither, and training looks for those.
"""

from __future__ import annotations

from pathlib import Path

from cst_bench.calibration.labels import FROM_PAIR, Labelled, LabelSet
from cst_bench.compliance.compliance_task import ComplianceTask, load_task
from cst_bench.errors import UserError
from cst_bench.files import read_rows, text_column
from cst_bench.judging import Case

COLUMNS = ("system", "prompt", "chosen", "rejected")


def read_pairs(path: Path, task: str) -> LabelSet:
    """Read the responses of a file of pairs (`system`, `prompt`, `chosen`, `rejected`), labelled by construction.

    Rows whose system prompt belongs to no configuration of the task are skipped: a file may have several tasks. A pair
    and its flip have the same two responses, which are used once.

    Args:
        path: jsonl, json, csv, tsv or parquet, such as the released pairs of Gallego 2024.
        task: A compliance task of two configurations (name or file), whose system prompts tell what is asked for.

    Raises:
        UserError: a column is missing, the task does not have two behaviours, no row belongs to it, or a response has
            both labels.
    """
    spec, _ = load_task(task)
    behaviours = _two_behaviours(spec)
    labelled: dict[str, Labelled] = {}
    for number, row in enumerate(read_rows(path), 1):
        system, prompt, chosen, rejected = (text_column(row, column) for column in COLUMNS)
        configuration = spec.configuration_of(system)
        if configuration is None:
            continue
        wanted = spec.asked[configuration]
        other = next(behaviour for behaviour in behaviours if behaviour != wanted)
        for response, behaviour in ((chosen, wanted), (rejected, other)):
            item = Labelled(f"{number}-{behaviour}", Case(prompt, response), behaviour, FROM_PAIR)
            first = labelled.setdefault(item.key, item)
            if first.behaviour != behaviour:
                raise UserError(
                    f"{row.where}: response {item.id} is the same as {first.id}, which is labelled {first.behaviour}"
                )
    if not labelled:
        raise UserError(f"{path}: no row has a system prompt of task {spec.name}: give the right one with --task")
    return LabelSet.of(path.stem, list(labelled.values()))


def pair_file(path: Path) -> bool:
    """Return whether a file has pairs, and not labelled responses, by the columns of its first row."""
    if path.suffix.lower() in (".md", ".markdown"):
        return False
    first = read_rows(path)[0].values
    return "chosen" in first and "rejected" in first


def _two_behaviours(spec: ComplianceTask) -> list[str]:
    behaviours = list(dict.fromkeys(spec.asked.values()))
    if len(behaviours) != 2:
        raise UserError(f"task {spec.name} has the behaviours {', '.join(behaviours)}: pairs can label two only")
    return behaviours
