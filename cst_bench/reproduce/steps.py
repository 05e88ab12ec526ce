"""The schema of a reproduction file, and the steps that it consists of.

Every step is a cst-bench command that continues after an interruption, so the chain does, too.
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
    """Name in tables."""
    checkpoint: str
    """Base model: folder, Hub id, or `tiny`."""
    recipe: str
    """Name or path of a recipe."""


class Variant(Content):
    """A way to train: the configurations of the rows, and how often each row is used."""

    title: str
    """Name in tables, such as `+ CST`."""
    method: Literal["cst", "dpo"]
    """Configurations of the rows: all (cst), or the first (dpo)."""
    copies: Annotated[float, Field(gt=0)] = 1.0
    """Times that each row is used; DPO with 2 takes as many optimizer steps as CST, which has two rows per pair."""


class ExtraRows(Content):
    """Training rows used as they are, for every variant, without those that the models are measured on."""

    source: str
    """A file or a data set on the Hub."""
    task: str
    """Compliance task whose held-out prompts are left out."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Share of the rows to use, at random, the same for every variant and seed."""


class DataSet(Content):
    """The tasks whose pairs a set of models is trained on, and what the models are evaluated on."""

    title: str
    """Name in the report."""
    pairs: list[str] = Field(min_length=1)
    """Compliance tasks."""
    rows: list[ExtraRows] = Field(default_factory=list)
    """Rows from elsewhere."""
    variants: list[str] = Field(min_length=1)
    """Variants that are trained on this data."""
    suite: str | None = None
    """Suite that the models are evaluated on."""
    tasks: list[str] = Field(default_factory=list)
    """Tasks that they are evaluated on, instead of a suite."""
    judges: list[str] = Field(default_factory=list)
    """Judges of the runs, instead of the tasks' own."""

    @model_validator(mode="after")
    def _something_to_run(self) -> DataSet:
        if (self.suite is None) == (not self.tasks):
            raise ValueError("give either suite or tasks")
        return self


class TableForm(Content):
    """A table in the paper's form: rows are base and variants, columns scores."""

    title: str
    """Heading."""
    set: str
    """Data set whose models are in the table."""
    columns: list[str] = Field(min_length=1)
    """Configurations, `Avg.`, or titles of capabilities."""
    average: bool = True
    """Add a last column with the mean of the others."""
    percent: bool = False
    """Show scores in %."""
    published: str | None = None
    """Table in reports/published.yaml whose values are shown beside, for models by their Hub id."""


class Reproduction(Content):
    """Models, data, variants, seeds, and the tables that come out."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$")
    """Name for `cst-bench reproduce`; part of the output folder's name."""
    version: Annotated[int, Field(ge=1)]
    """Version; increased by every change that changes results."""
    title: str
    """Heading of the report."""
    description: str
    """Sentence on what is reproduced."""
    source: str
    """Where the results to reproduce were published."""
    tuned: str
    """Choices made by looking at results, and at which results."""
    models: dict[str, ReproducedModel] = Field(min_length=1)
    """Key → base model."""
    critiques: dict[str, str] = Field(default_factory=dict)
    """Task → critique file: how its pairs are made."""
    released: dict[str, str] = Field(default_factory=dict)
    """Task → file or Hub data set of released pairs or rows, used instead of pairs by self-critique."""
    sample: Annotated[int, Field(ge=1)] | None = None
    """Number of random pairs of each task to train on, the same for every variant and seed."""
    variants: dict[str, Variant] = Field(min_length=1)
    """Key → way to train."""
    sets: dict[str, DataSet] = Field(min_length=1)
    """Key → data to train on."""
    seeds: list[int] = Field(min_length=1)
    """Random seeds; every variant is trained once with each."""
    reference: bool = True
    """Answer each prompt with no system prompt, too."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type that the models are evaluated in."""
    documents: dict[str, int] = Field(default_factory=dict)
    """Capability → number of random documents of each (sub)task."""
    tables: list[TableForm] = Field(min_length=1)
    """Tables of the report."""
    changelog: dict[int, str] = Field(default_factory=dict)
    """Version → what changed."""

    @model_validator(mode="after")
    def _names(self) -> Reproduction:
        for name, data in self.sets.items():
            for variant in data.variants:
                if variant not in self.variants:
                    raise ValueError(f"sets.{name}: no such variant: {did_you_mean(variant, self.variants)}")
            for task in data.pairs:
                if (task in self.critiques) == (task in self.released):
                    raise ValueError(f"sets.{name}: give either a critique or released pairs for task {task}")
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
    """A command, the file that it makes, and the steps that it needs."""

    name: str
    command: tuple[str, ...]
    makes: Path
    after: tuple[str, ...] = ()


def load_reproduction(name: str, models: Path | None = None) -> Reproduction:
    """Load a reproduction by name or path, with models replaced by those of a file (`--models`).

    The file maps the names of models to title, checkpoint and recipe.

    Raises:
        UserError: the name is unknown, a file is invalid, or it has a model that the reproduction does not have.
    """
    plan = content.load(content.find(FOLDER, name, "reproduction"), Reproduction)
    if models is None:
        return plan
    replaced = content.load(models, _Models).models
    for model in replaced:
        if model not in plan.models:
            raise UserError(f"{models}: {plan.name} has no model {model!r}: {did_you_mean(model, plan.models)}")
    return plan.model_copy(update={"models": {**plan.models, **replaced}})


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
    """Yield all steps, each after those it needs.

    Args:
        plan: The reproduction.
        folder: Folder of the reproduction.
        limit: Limit to the first N prompts and documents, to try the chain.
        data: Task, or source of extra rows → local file or folder.
        options: Verb (`data critique`, `train`, `run`) → further arguments, such as a judge's model.
    """
    few = () if limit is None else ("--limit", str(limit))
    for name, model in plan.models.items():
        yield from _pairs(plan, folder, name, model, data, (*few, *options.get("data critique", ())))
        for set_name, data_set in plan.sets.items():
            evaluated = tuple(part for task in data_set.tasks for part in ("--task", task))
            if data_set.suite:
                evaluated = ("--suite", data_set.suite)
            judges = tuple(part for judge in data_set.judges for part in ("--judge", judge))
            running = (
                *evaluated,
                *few,
                *_local(data_set, data),
                *_documents(plan, data_set),
                *judges,
                *(() if plan.reference else ("--no-reference",)),
                *(() if plan.dtype == "auto" else ("--dtype", plan.dtype)),
                *options.get("run", ()),
            )
            base = folder / "runs" / name / f"{set_name}-{BASE}"
            yield Step(
                f"run {name} {set_name} base",
                ("run", model.checkpoint, *running, "--out", str(base)),
                base / "scores.json",
            )
            for variant in data_set.variants:
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


def evaluated_tasks(data_set: DataSet) -> list[str]:
    """Return the compliance tasks and capabilities that a set's models are evaluated on."""
    suite = None if data_set.suite is None else load_suite(data_set.suite)
    return [*data_set.tasks, *([] if suite is None else [*suite.compliance, *suite.capabilities])]


def _documents(plan: Reproduction, data_set: DataSet) -> tuple[str, ...]:
    """Return the `--documents` arguments of a run for its capabilities."""
    known = evaluated_tasks(data_set)
    counts = {task: count for task, count in plan.documents.items() if task in known}
    return tuple(part for task, count in counts.items() for part in ("--documents", f"{task}={count}"))


def _local(data_set: DataSet, data: Mapping[str, str]) -> tuple[str, ...]:
    """Return the `--data` arguments of a run for its tasks."""
    known = evaluated_tasks(data_set)
    return tuple(part for name, path in data.items() if name in known for part in ("--data", f"{name}={path}"))


def _pairs(
    plan: Reproduction,
    folder: Path,
    name: str,
    model: ReproducedModel,
    data: Mapping[str, str],
    options: tuple[str, ...],
) -> Iterator[Step]:
    for task in dict.fromkeys(task for data_set in plan.sets.values() for task in data_set.pairs):
        released = plan.released.get(task)
        pairs = folder / "pairs" / name / task
        source = str(pairs / "pairs.jsonl")
        made: tuple[str, ...] = (f"pairs {name} {task}",)
        if released is not None:
            source, made = data.get(released, released), ()
        else:
            local = ("--data", data[task]) if task in data else ()
            yield Step(
                f"pairs {name} {task}",
                (
                    *("data", "critique", model.checkpoint, "--task", task, "--critique", plan.critiques[task]),
                    *("--out", str(pairs), *local, *options),
                ),
                pairs / "README.md",
            )
        sample = () if plan.sample is None else ("--sample", str(plan.sample))
        for method in dict.fromkeys(variant.method for variant in plan.variants.values()):
            flipped = folder / "rows" / name / f"{task}-{method}.jsonl"
            yield Step(
                f"flip {name} {task} {method}",
                ("data", "flip", source, "--task", task, "--method", method, *sample, "--out", str(flipped)),
                flipped,
                made,
            )


def _mix(
    plan: Reproduction, folder: Path, name: str, set_name: str, variant: str, mixed: Path, data: Mapping[str, str]
) -> Step:
    data_set, training = plan.sets[set_name], plan.variants[variant]
    sources = [
        f"{folder / 'rows' / name / f'{task}-{training.method}.jsonl'}={training.copies:g}" for task in data_set.pairs
    ]
    held_out: list[str] = []
    for rows in data_set.rows:
        source = data.get(rows.source, rows.source)
        sources.append(f"{source}={rows.weight:g}")  # both flips are in it already
        held_out += ["--without-held-out", f"{source}={rows.task}"]
    return Step(
        f"rows {name} {set_name} {variant}",
        ("data", "mix", *sources, *held_out, "--out", str(mixed)),
        mixed,
        tuple(f"flip {name} {task} {training.method}" for task in data_set.pairs),
    )
