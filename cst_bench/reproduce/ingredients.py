"""Ingredients of a reproduction besides its plan, by hash: a chain continued with others would mix results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cst_bench import content
from cst_bench.capabilities.capability_task import FOLDER as CAPABILITIES
from cst_bench.capabilities.capability_task import load_capability
from cst_bench.checkpoint.options import resolve
from cst_bench.compliance.compliance_task import FOLDER as COMPLIANCE
from cst_bench.compliance.compliance_task import load_task
from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import file_digest, folder_digest
from cst_bench.preferences.self_critique import FOLDER as CRITIQUES
from cst_bench.reproduce.steps import DataSet, Reproduction, evaluated_tasks
from cst_bench.runs.local_data import local_data
from cst_bench.runs.suite import FOLDER as SUITES
from cst_bench.tuning.recipe import FOLDER as RECIPES


def ingredients(plan: Reproduction, data: Mapping[str, str]) -> dict[str, str]:
    """Return the SHA-256 of every recipe, critique, suite and task file, of local data and local checkpoints.

    Raises:
        UserError: a file is missing, or `data` names something that the reproduction does not read.
    """
    known = {task for data_set in plan.sets.values() for task in tasks_of(data_set)}
    known |= {rows.source for data_set in plan.sets.values() for rows in data_set.rows} | {*plan.released.values()}
    for name in data:
        if name not in known:
            raise UserError(f"--data {name}: {plan.name} reads no such data: {did_you_mean(name, sorted(known))}")
    local = {f"data {name}": _digest(Path(path).expanduser(), f"--data {name}") for name, path in data.items()}
    return {**dict(_files(plan)), **local}


def with_data_of(plan: Reproduction, given: Mapping[str, str], folder: Path | None) -> dict[str, str]:
    """Return task or source of rows → local data: what is given by name, else what a folder holds.

    The folder has a task's data as `run --data-dir` finds it, extra rows by the name of their task, and released pairs
    by the last part of their source's name.

    Raises:
        UserError: the folder is none, has two files for one of them, or nothing that is read.
    """
    if folder is None:
        return dict(given)
    names: dict[str, Sequence[str]] = {}
    for data_set in plan.sets.values():
        for task in tasks_of(data_set):
            is_capability = task in content.names(CAPABILITIES)
            others = load_capability(task)[0].local_names if is_capability else load_task(task)[0].data.local_names
            names[task] = [task, *others]
        names |= {rows.source: [rows.task] for rows in data_set.rows}
    names |= {source: [source.rpartition("/")[2]] for source in plan.released.values()}
    found = local_data({}, folder, names)
    return {**{name: str(path) for name, path in found.items()}, **given}


def tasks_of(data_set: DataSet) -> list[str]:
    """Return the compliance tasks and capabilities that a set's models are trained or measured on."""
    return [*data_set.pairs, *evaluated_tasks(data_set)]


def _files(plan: Reproduction) -> Iterator[tuple[str, str]]:
    for model in plan.models.values():
        yield f"recipe {model.recipe}", file_digest([content.find(RECIPES, model.recipe, "recipe")])
        source = resolve(model.checkpoint)
        if source.kind == "local":
            yield f"checkpoint {model.checkpoint}", _digest(Path(source.name), "checkpoint")
    for critique in plan.critiques.values():
        yield f"critique {critique}", file_digest([content.find(CRITIQUES, critique, "critique")])
    for data_set in plan.sets.values():
        if data_set.suite is not None:
            yield f"suite {data_set.suite}", file_digest([content.find(SUITES, data_set.suite, "suite")])
        for task in tasks_of(data_set):
            folder = CAPABILITIES if task in content.names(CAPABILITIES) else COMPLIANCE
            yield f"task {task}", file_digest([content.find(folder, task, "task")])


def _digest(path: Path, what: str) -> str:
    """Return the SHA-256 of a file, or of all files in a folder with their names."""
    if path.is_file():
        return file_digest([path])
    if not path.is_dir():
        raise UserError(f"{what}: no such file or folder: {path}")
    return folder_digest(path)
