"""Reproduces the paper's tables: every step in a folder, continued if it was cut off."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from cst_bench.errors import UserError
from cst_bench.files import write_json, write_text
from cst_bench.numbers import number
from cst_bench.progress import Progress, Silent
from cst_bench.reporting import StoredRun, read_run
from cst_bench.reporting.leaderboard.markdown import markdown_templates
from cst_bench.reporting.published_values import other_models, published_table
from cst_bench.reporting.score_cells import ScoreTable
from cst_bench.reproduce.ingredients import ingredients, with_data_of
from cst_bench.reproduce.paper_tables import RunKey, flags_in, make_tables
from cst_bench.reproduce.steps import BASE, Reproduction, Step, load_reproduction, steps
from cst_bench.reproduce.workers import run_steps
from cst_bench.statistics.intervals import Interval
from cst_bench.statistics.paired import Difference
from cst_bench.statistics.two_way import MIN_SEEDS
from cst_bench.tuning.training import PACKAGES
from cst_bench.workfolder import locked, open_work_folder, package_versions

SCHEMA_VERSION = 2
TABLES_SCHEMA = 3
MANIFEST = "reproduce.json"


@dataclass(frozen=True)
class ReproduceOptions:
    """Options of a reproduction, named as on the command line."""

    name: str = "tiny"
    out: Path | None = None
    models: Path | None = None
    """File with models to use instead of the reproduction's."""
    seeds: tuple[int, ...] = ()
    limit: int | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    """Task, or source of rows → local data."""
    data_dir: Path | None = None
    """Folder with the local data of tasks and rows, by name."""
    workers: int = 1
    """Number of steps to run at the same time."""
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Verb → further arguments of its steps."""


@dataclass(frozen=True)
class ReproduceResult:
    """The folder of a reproduction and its tables."""

    folder: Path
    tables: Sequence[ScoreTable]
    flags: Mapping[str, str]
    """Flags of the tables, and their meanings."""
    was_finished: bool


def reproduce(options: ReproduceOptions, progress: Progress | None = None) -> ReproduceResult:
    """Run the whole chain, or what is left of it, and write `report.md` and `tables.json`.

    Raises:
        UserError: an option is wrong, or the folder holds a reproduction with other settings.
        StepFailed: a step failed with an error of its own.
        Interrupted: a step was interrupted; the same call continues.
        KeyboardInterrupt: a signal came, and has stopped the steps; the same call continues.
    """
    progress = progress or Silent()
    plan = load_reproduction(options.name, options.models)
    if options.seeds:
        if len(set(options.seeds)) < len(options.seeds):
            raise UserError(f"--seed: {', '.join(map(str, options.seeds))}: give each seed once")
        plan = plan.model_copy(update={"seeds": list(options.seeds)})
    data = with_data_of(plan, options.data, options.data_dir)
    folder = options.out or Path("runs") / f"reproduce-{plan.name}"
    settings = {
        "reproduction": plan.model_dump(mode="json"),
        "limit": options.limit,
        "data": data,
        "options": {verb: list(arguments) for verb, arguments in options.options.items()},
        "sha256": ingredients(plan, data),
        "packages": package_versions(PACKAGES),
    }
    with locked(folder):
        manifest = open_work_folder(
            folder, MANIFEST, settings, kind="a reproduction", schema=SCHEMA_VERSION, state={"seconds": {}}
        )
        todo = list(steps(plan, folder, limit=options.limit, data=data, options=options.options))
        left = [step for step in todo if not step.makes.is_file()]
        with progress.stage(plan.title, len(todo)) as count:

            def done(step: Step, seconds: float) -> None:
                count(1)
                if seconds:
                    progress.note(f"{step.name}: {seconds:.0f} s")
                    manifest["seconds"][step.name] = round(seconds, 1)
                    write_json(folder / MANIFEST, manifest)

            run_steps(todo, folder / "logs", workers=options.workers, done=done)
        runs = _runs(plan, folder)
        tables = make_tables(plan, runs)
        flags = flags_in(tables, runs)
        _write(folder, plan, tables, flags, options.limit)
    return ReproduceResult(folder, tables, flags, not left)


def _runs(plan: Reproduction, folder: Path) -> dict[RunKey, list[StoredRun]]:
    """Read the runs of a reproduction."""
    runs: dict[RunKey, list[StoredRun]] = {}
    for model in plan.models:
        for set_name, data in plan.sets.items():
            runs[model, set_name, BASE] = [read_run(folder / "runs" / model / f"{set_name}-{BASE}")]
            for variant in data.variants:
                runs[model, set_name, variant] = [
                    read_run(folder / "runs" / model / f"{set_name}-{variant}-{seed}") for seed in plan.seeds
                ]
    return runs


def _write(
    folder: Path, plan: Reproduction, tables: Sequence[ScoreTable], flags: Mapping[str, str], limit: int | None
) -> None:
    write_json(folder / "tables.json", {"schema": TABLES_SCHEMA, "tables": [table_as_json(table) for table in tables]})
    cards = {
        (model, task): json.loads((folder / "pairs" / model / task / "critique.json").read_text(encoding="utf-8"))
        for model in plan.models
        for task in dict.fromkeys(task for data in plan.sets.values() for task in data.pairs if task in plan.critiques)
    }
    write_text(folder / "report.md", report_text(plan, tables, flags, cards, limit))


def report_text(
    plan: Reproduction,
    tables: Sequence[ScoreTable],
    flags: Mapping[str, str],
    cards: Mapping[tuple[str, str], Any],
    limit: int | None,
) -> str:
    """Return the report of a reproduction; `cards` are (model, task) → the content of its `critique.json`."""
    environment = markdown_templates()
    environment.filters["passes"] = _passes
    text = environment.get_template("reproduce.md.j2").render(
        plan=plan,
        tables=tables,
        has_published=any(table.has_published for table in tables),
        elsewhere={table.title: _published_elsewhere(plan, table) for table in tables},
        cards=cards,
        flags=flags,
        limit=limit,
        min_seeds=MIN_SEEDS,
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _published_elsewhere(plan: Reproduction, table: ScoreTable) -> list[tuple[str, list[str]]]:
    """Return title and cells of the published models whose base is not reproduced here."""
    bases = {model.checkpoint for model in plan.models.values()}
    published = next((form.published for form in plan.tables if form.title == table.title), None)
    rows = [] if published is None else other_models(published_table(published), bases)
    return [
        (
            base if method is None else f"+ {method}",
            [number(values.get(column.title), 1, 1 if column.percent else 2) for column in table.columns],
        )
        for base, method, values in rows
    ]


def _passes(copies: float) -> str:
    return "each row once a pass" if copies == 1 else f"each row {copies:g} times a pass"


def table_as_json(table: ScoreTable) -> dict[str, JsonValue]:
    """Return a table as `tables.json` has it: scores are shares, undefined values None."""
    return {
        "title": table.title,
        "columns": [column.title for column in table.columns],
        "rows": [
            {
                "title": row.title,
                "runs": row.runs,
                "scores": [row.cells[column.key].score for column in table.columns],
                "intervals": [_ends(row.cells[column.key].interval) for column in table.columns],
                "ranges": [_ends(row.cells[column.key].seed_range) for column in table.columns],
                "differences": [_difference(row.cells[column.key].difference) for column in table.columns],
                "seeds": [
                    {
                        "seed": seed.seed,
                        "model": seed.label,
                        "scores": [seed.cells[column.key].score for column in table.columns],
                        "intervals": [_ends(seed.cells[column.key].interval) for column in table.columns],
                    }
                    for seed in row.seeds
                ],
                "published": [row.cells[column.key].published for column in table.columns],
                "flags": [list(row.cells[column.key].flags) for column in table.columns],
            }
            for row in table.rows
        ],
    }


def _difference(difference: Difference | None) -> dict[str, JsonValue] | None:
    """Return the paired difference to the base."""
    if difference is None:
        return None
    return {
        "difference": difference.difference,
        "interval": _ends(difference.interval),
        "p": difference.p,
        "n": difference.n,
        "test": difference.test,
    }


def _ends(interval: Interval | None) -> list[JsonValue] | None:
    return None if interval is None else list(interval)
