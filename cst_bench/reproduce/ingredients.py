"""What a reproduction is made of besides its plan, by hash: a chain that goes on with other ones would mix results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cst_bench import content
from cst_bench.capabilities.capability_task import FOLDER as CAPABILITIES
from cst_bench.checkpoint.options import resolve
from cst_bench.compliance.compliance_task import FOLDER as COMPLIANCE
from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import digest, file_digest
from cst_bench.preferences.self_critique import FOLDER as CRITIQUES
from cst_bench.reproduce.steps import DataSet, Reproduction
from cst_bench.runs.suite import FOLDER as SUITES
from cst_bench.runs.suite import load_suite
from cst_bench.tuning.recipe import FOLDER as RECIPES


def ingredients(plan: Reproduction, data: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of every recipe, critique, suite and task file, of local data and local checkpoints.

    Raises:
        UserError: a file is missing, or `data` is for something that the reproduction doesn't read.
    """
    known = {task for of in plan.sets.values() for task in tasks_of(of)}
    known |= {rows.source for of in plan.sets.values() for rows in of.rows}
    for name in data:
        if name not in known:
            raise UserError(f"--data {name}: {plan.name} reads no such thing: {did_you_mean(name, sorted(known))}")
    found = {f"data {name}": _digest(Path(path).expanduser(), f"--data {name}") for name, path in data.items()}
    return {**dict(_files(plan)), **found}


def tasks_of(of: DataSet) -> list[str]:
    """Compliance tasks and capabilities that a set's models are trained or measured on."""
    suite = None if of.suite is None else load_suite(of.suite)
    return [*of.pairs, *of.tasks, *([] if suite is None else [*suite.compliance, *suite.capabilities])]


def _files(plan: Reproduction) -> Iterator[tuple[str, str]]:
    for model in plan.models.values():
        yield f"recipe {model.recipe}", file_digest([content.find(RECIPES, model.recipe, "recipe")])
        source = resolve(model.checkpoint)
        if source.kind == "local":
            yield f"checkpoint {model.checkpoint}", _digest(Path(source.name), "checkpoint")
    for critique in plan.critiques.values():
        yield f"critique {critique}", file_digest([content.find(CRITIQUES, critique, "critique")])
    for of in plan.sets.values():
        if of.suite is not None:
            yield f"suite {of.suite}", file_digest([content.find(SUITES, of.suite, "suite")])
        for task in tasks_of(of):
            folder = CAPABILITIES if task in content.names(CAPABILITIES) else COMPLIANCE
            yield f"task {task}", file_digest([content.find(folder, task, "task")])


def _digest(path: Path, what: str) -> str:
    """Of a file, or of all files in a folder and their names."""
    if path.is_file():
        return file_digest([path])
    if not path.is_dir():
        raise UserError(f"{what}: no such file or folder: {path}")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest([[str(file.relative_to(path)), file_digest([file])] for file in files])
