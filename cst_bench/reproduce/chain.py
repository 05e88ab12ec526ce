"""Reproduces the paper's tables: every step in a folder, continued if it was cut off."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cst_bench.content import content_root
from cst_bench.errors import UserError
from cst_bench.files import write_json, write_text
from cst_bench.progress import Progress, Silent
from cst_bench.reporting.run_markdown import markdown_environment
from cst_bench.reproduce.ingredients import ingredients
from cst_bench.reproduce.paper_tables import ReproducedTable, Scores, footnotes, make_tables
from cst_bench.reproduce.steps import BASE, Reproduction, Step, load_reproduction, steps
from cst_bench.reproduce.workers import run_steps
from cst_bench.tuning.training import PACKAGES
from cst_bench.workfolder import locked, open_work_folder, package_versions

SCHEMA = 1
MANIFEST = "reproduce.json"


@dataclass(frozen=True)
class ReproduceOptions:
    """What the user asks for. The names are those of the command line."""

    name: str = "tiny"
    out: Path | None = None
    models: Path | None = None
    """A file with models in place of the reproduction's own."""
    seeds: tuple[int, ...] = ()
    limit: int | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    """Local data for a task or a source of rows."""
    workers: int = 1
    """Steps at a time."""
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Further arguments of a verb."""


@dataclass(frozen=True)
class ReproduceResult:
    """Where the report is and what it says."""

    folder: Path
    tables: Sequence[ReproducedTable]
    was_finished: bool


def reproduce(options: ReproduceOptions, progress: Progress | None = None) -> ReproduceResult:
    """Runs the whole chain, or what is left of it, and writes `report.md` and `tables.json`.

    Raises:
        UserError: something in the options is wrong, or the folder holds a reproduction with other settings.
        StepFailed: a step failed with an error of its own.
        Interrupted: a step was cut off; the same call continues.
    """
    progress = progress or Silent()
    plan = load_reproduction(options.name, options.models)
    if options.seeds:
        if len(set(options.seeds)) < len(options.seeds):
            raise UserError(f"--seed: {', '.join(map(str, options.seeds))}: give each seed once")
        plan = plan.model_copy(update={"seeds": list(options.seeds)})
    folder = options.out or Path("runs") / f"reproduce-{plan.name}"
    settings = {
        "reproduction": plan.model_dump(mode="json"),
        "limit": options.limit,
        "data": dict(options.data),
        "options": {verb: list(arguments) for verb, arguments in options.options.items()},
        "sha256": ingredients(plan, options.data),
        "packages": package_versions(PACKAGES),
    }
    with locked(folder):
        manifest = open_work_folder(
            folder, MANIFEST, settings, kind="a reproduction", schema=SCHEMA, state={"seconds": {}}
        )
        todo = list(steps(plan, folder, limit=options.limit, data=options.data, options=options.options))
        left = [step for step in todo if not step.makes.is_file()]
        with progress.stage(plan.title, len(todo)) as count:

            def done(step: Step, seconds: float) -> None:
                count(1)
                if seconds:
                    progress.note(f"{step.name}: {seconds:.0f} s")
                    manifest["seconds"][step.name] = round(seconds, 1)
                    write_json(folder / MANIFEST, manifest)

            run_steps(todo, folder / "logs", workers=options.workers, done=done)
        tables = make_tables(plan, _scores(plan, folder))
        _write(folder, plan, tables, manifest)
    return ReproduceResult(folder, tables, not left)


def _scores(plan: Reproduction, folder: Path) -> dict[tuple[str, str, str], list[Scores]]:
    def read(*names: str) -> Scores:
        found: Scores = json.loads((folder / "runs").joinpath(*names, "scores.json").read_text(encoding="utf-8"))
        return found

    scores: dict[tuple[str, str, str], list[Scores]] = {}
    for model in plan.models:
        for set_name, data in plan.sets.items():
            scores[model, set_name, BASE] = [read(model, f"{set_name}-{BASE}")]
            for variant in data.variants:
                scores[model, set_name, variant] = [read(model, f"{set_name}-{variant}-{seed}") for seed in plan.seeds]
    return scores


def _write(folder: Path, plan: Reproduction, tables: Sequence[ReproducedTable], manifest: Mapping[str, Any]) -> None:
    write_json(folder / "tables.json", {"schema": SCHEMA, "tables": [_as_json(table) for table in tables]})
    cards = {
        (model, task): json.loads((folder / "pairs" / model / task / "critique.json").read_text(encoding="utf-8"))
        for model in plan.models
        for task in dict.fromkeys(task for data in plan.sets.values() for task in data.pairs)
    }
    template = markdown_environment(content_root() / "reports" / "templates").get_template("reproduce.md.j2")
    limit = manifest["settings"]["limit"]
    text = template.render(plan=plan, tables=tables, cards=cards, flags=footnotes(tables), limit=limit)
    write_text(folder / "report.md", text)


def _as_json(table: ReproducedTable) -> dict[str, Any]:
    return {
        "title": table.title,
        "columns": list(table.columns),
        "rows": [
            {
                "model": row.model,
                "variant": row.variant,
                "runs": row.runs,
                "scores": [cell.score for cell in row.cells],
                "intervals": [None if cell.interval is None else list(cell.interval) for cell in row.cells],
                "published": [cell.published for cell in row.cells],
                "flags": [list(cell.flags) for cell in row.cells],
            }
            for row in table.rows
        ],
    }
