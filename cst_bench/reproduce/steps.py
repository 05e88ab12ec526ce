"""The schema of a reproduction file, and the steps that it comes down to.

Every step is a command of our own that continues if it was cut off, so that the chain does, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cst_bench import content
from cst_bench.content import Content
from cst_bench.errors import UserError, did_you_mean
from cst_bench.reporting.published_values import published_tables
from cst_bench.runs.suite import load_suite

FOLDER = "training/reproductions"
BASE = "base"


class ReproducedModel(Content):
    """A base model and the recipe that trains it."""

    title: str
    checkpoint: str
    recipe: str
    """Name or path of a recipe."""


class Variant(Content):
    """A way to train: which configurations the rows are of, and how often each row is seen."""

    title: str
    method: Literal["cst", "dpo"]
    copies: Annotated[float, Field(gt=0)] = 1.0
    """DPO with 2 copies takes as many optimizer steps as CST, which has two rows for each pair."""


class ExtraRows(Content):
    """Training rows that are taken as they are, for every variant, less those that the models are measured on."""

    source: str
    """A file or a hub data set."""
    task: str
    """The compliance task whose test prompts are left out."""


class DataSet(Content):
    """Which tasks' pairs a set of models is trained on, and what those models are evaluated on."""

    title: str
    pairs: list[str] = Field(min_length=1)
    """Compliance tasks."""
    rows: list[ExtraRows] = Field(default_factory=list)
    variants: list[str] = Field(min_length=1)
    suite: str | None = None
    tasks: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _something_to_run(self) -> DataSet:
        if (self.suite is None) == (not self.tasks):
            raise ValueError("give either suite or tasks")
        return self


class TableForm(Content):
    """A table in the paper's form: rows are base and variants, columns scores."""

    title: str
    set: str
    columns: list[str] = Field(min_length=1)
    """Configurations, `Avg.`, or titles of capabilities."""
    average: bool = True
    """Whether a last column has the mean of the others."""
    percent: bool = False
    published: str | None = None
    """The table in reports/published.yaml whose values stand beside, for models by their hub id."""


class Reproduction(Content):
    """Models, data, variants, seeds, and the tables that come out."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    version: Annotated[int, Field(ge=1)]
    title: str
    description: str
    source: str
    tuned: str
    """What was chosen by looking at results, and at which."""
    models: dict[str, ReproducedModel] = Field(min_length=1)
    critiques: dict[str, str]
    """Task → critique file: how its pairs are made."""
    variants: dict[str, Variant] = Field(min_length=1)
    sets: dict[str, DataSet] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    tables: list[TableForm] = Field(min_length=1)
    changelog: dict[int, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names(self) -> Reproduction:
        for name, data in self.sets.items():
            for variant in data.variants:
                if variant not in self.variants:
                    raise ValueError(f"sets.{name}: no such variant: {did_you_mean(variant, self.variants)}")
            for task in data.pairs:
                if task not in self.critiques:
                    raise ValueError(f"sets.{name}: no critique for task {task}")
        for table in self.tables:
            if table.published is not None and table.published not in (
                known := [published.name for published in published_tables()]
            ):
                raise ValueError(f"tables: {table.title}: nothing published: {did_you_mean(table.published, known)}")
            if table.set not in self.sets:
                raise ValueError(f"tables: {table.title}: no such set: {did_you_mean(table.set, self.sets)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: give each once")
        if BASE in self.variants:
            raise ValueError("a variant can't be called base")
        return self


@dataclass(frozen=True)
class Step:
    """One command, the folder or file that it makes, and the steps that must be done before it."""

    name: str
    command: tuple[str, ...]
    makes: Path
    after: tuple[str, ...] = ()


def load_reproduction(name: str, models: Path | None = None) -> Reproduction:
    """A reproduction by name or path, with the models of a file of one's own in place of its own (`--models`).

    The file of models maps each model's name to title, checkpoint and recipe.

    Raises:
        UserError: unknown name, a fault in a file, or a model that the reproduction doesn't have.
    """
    found = content.load(content.find(FOLDER, name, "reproduction"), Reproduction)
    if models is None:
        return found
    own = content.load(models, _Models).models
    for given in own:
        if given not in found.models:
            raise UserError(f"{models}: {found.name} has no model {given!r}: {did_you_mean(given, found.models)}")
    return found.model_copy(update={"models": {**found.models, **own}})


class _Models(Content):
    models: dict[str, ReproducedModel] = Field(min_length=1)


def steps(
    plan: Reproduction,
    folder: Path,
    *,
    limit: int | None,
    data: Mapping[str, str],
    options: Mapping[str, Sequence[str]],
) -> Iterator[Step]:
    """All steps, each after those it needs.

    Args:
        plan: What to reproduce.
        folder: Where everything goes.
        limit: Only the first so many prompts and documents, to try the chain.
        data: Task, or source of extra rows → a local file or folder in its place.
        options: Further arguments of a verb (`data critique`, `train`, `run`), such as a judge's model.
    """
    few = () if limit is None else ("--limit", str(limit))
    for name, model in plan.models.items():
        yield from _pairs(plan, folder, name, model, data, (*few, *options.get("data critique", ())))
        for set_name, of in plan.sets.items():
            what = ("--suite", of.suite) if of.suite else tuple(x for task in of.tasks for x in ("--task", task))
            running = (*what, *few, *_local(of, data), *options.get("run", ()))
            base = folder / "runs" / name / f"{set_name}-{BASE}"
            yield Step(
                f"run {name} {set_name} base",
                ("run", model.checkpoint, *running, "--out", str(base)),
                base / "scores.json",
            )
            for variant in of.variants:
                mixed = folder / "rows" / name / f"{set_name}-{variant}.jsonl"
                yield _mix(plan, folder, name, set_name, variant, mixed, data)
                for seed in plan.seeds:
                    trained = folder / "models" / name / f"{set_name}-{variant}-{seed}"
                    yield Step(
                        f"train {name} {set_name} {variant} {seed}",
                        (
                            *("train", model.recipe, "--base", model.checkpoint, "--data", str(mixed)),
                            *("--seed", str(seed), "--out", str(trained), *options.get("train", ())),
                        ),
                        trained / "training.json",
                        (f"rows {name} {set_name} {variant}",),
                    )
                    run = folder / "runs" / name / f"{set_name}-{variant}-{seed}"
                    yield Step(
                        f"run {name} {set_name} {variant} {seed}",
                        ("run", str(trained), *running, "--out", str(run)),
                        run / "scores.json",
                        (f"train {name} {set_name} {variant} {seed}",),
                    )


def _local(of: DataSet, data: Mapping[str, str]) -> tuple[str, ...]:
    """`--data` of a run: what is given for the tasks that it has."""
    suite = None if of.suite is None else load_suite(of.suite)
    known = {*of.tasks, *(() if suite is None else (*suite.compliance, *suite.capabilities))}
    return tuple(part for name, path in data.items() if name in known for part in ("--data", f"{name}={path}"))


def _pairs(
    plan: Reproduction,
    folder: Path,
    name: str,
    model: ReproducedModel,
    data: Mapping[str, str],
    options: tuple[str, ...],
) -> Iterator[Step]:
    for task in dict.fromkeys(task for of in plan.sets.values() for task in of.pairs):
        local = ("--data", data[task]) if task in data else ()
        pairs = folder / "pairs" / name / task
        yield Step(
            f"pairs {name} {task}",
            (
                *("data", "critique", model.checkpoint, "--task", task, "--critique", plan.critiques[task]),
                *("--out", str(pairs), *local, *options),
            ),
            pairs / "README.md",
        )
        for method in dict.fromkeys(variant.method for variant in plan.variants.values()):
            flipped = folder / "rows" / name / f"{task}-{method}.jsonl"
            yield Step(
                f"flip {name} {task} {method}",
                ("data", "flip", str(pairs / "pairs.jsonl"), "--task", task, "--method", method, "--out", str(flipped)),
                flipped,
                (f"pairs {name} {task}",),
            )


def _mix(
    plan: Reproduction, folder: Path, name: str, set_name: str, variant: str, mixed: Path, data: Mapping[str, str]
) -> Step:
    of, how = plan.sets[set_name], plan.variants[variant]
    sources = [f"{folder / 'rows' / name / f'{task}-{how.method}.jsonl'}={how.copies:g}" for task in of.pairs]
    held_out: list[str] = []
    for rows in of.rows:
        source = data.get(rows.source, rows.source)
        sources.append(f"{source}=1")  # both flips are in it already
        held_out += ["--without-test", f"{source}={rows.task}"]
    return Step(
        f"rows {name} {set_name} {variant}",
        ("data", "mix", *sources, *held_out, "--out", str(mixed)),
        mixed,
        tuple(f"flip {name} {task} {how.method}" for task in of.pairs),
    )
