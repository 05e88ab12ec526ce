"""Judges beside each other on label sets: every judge on every set, with what is known of other judges there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from cst_bench.calibration.card_making import estimates_by_prompt, make_calibration
from cst_bench.calibration.held_out import held_out_verdicts
from cst_bench.calibration.label_sets import FOLDER, LabelSetFile, find_label_set, load_labels
from cst_bench.calibration.labels import Labelled, LabelSet
from cst_bench.calibration.slices import Pairs, slice_metrics
from cst_bench.calibration.training_card import trained_on
from cst_bench.content import names
from cst_bench.errors import UserError
from cst_bench.judging import Judge, JudgeOptions, find_judge, load_judge
from cst_bench.judging.card import SliceMetrics
from cst_bench.judging.find import MODEL_KINDS, read_judge_file
from cst_bench.progress import Progress, Silent
from cst_bench.record import Record, RecordFile
from cst_bench.statistics.intervals import UNDEFINED, Estimate

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class JudgeBenchOptions:
    """Options of a comparison of judges, named as on the command line."""

    judges: tuple[str, ...]
    """Judges, each a name or a file, with `=MODEL` for one that asks a model."""
    labels: tuple[str | Path, ...] = ()
    """Names of label sets, or files with labelled responses; all label sets if empty."""
    data: Mapping[str, Path] = field(default_factory=dict)
    """Label set → a local copy."""
    judge_options: JudgeOptions = field(default_factory=JudgeOptions)
    """Endpoint and connections of the judges that ask a model."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column → its name in the files, where it is not one of the usual names."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Label of the files → behaviour."""
    labelled_by: str | None = None
    """Who labelled, for files without such a column."""
    seed: int = 0
    """Bootstrap seed."""
    out: Path | None = None
    """Folder for `bench.json` and `report.md`; nothing is written if None."""


class BenchRow(Record):
    """A judge on a label set. Intervals are 95 %, clustered by prompt; undefined values are null."""

    judge: str
    """Name of the judge, with the model that it asks."""
    source: Literal["judged", "held out", "released", "people", "published"]
    """Where the verdicts come from: this comparison; trainings that had left the responses out; a column of the label
    set; the set's annotators, one against another; or figures that were published without verdicts."""
    n: int | None = None
    """Scored responses."""
    unscored: int = 0
    f1: dict[str, Estimate] = Field(default_factory=dict)
    """Behaviour → F1."""
    macro_f1: Estimate = UNDEFINED
    accuracy: Estimate = UNDEFINED
    """Share of verdicts that are the label."""
    degrees: dict[str, SliceMetrics] = Field(default_factory=dict)
    """Full compliance, partial refusal, full refusal → metrics there."""
    seconds_per_1000: float | None = None
    """Seconds for 1,000 responses."""
    cost_per_1000: float | None = None
    """US dollars for 1,000 responses; null if the judge asks no model, or its price is not known."""
    note: str | None = None
    """Why there are no figures, or where published ones come from."""


class BenchLabels(Record):
    """A label set and the judges on it."""

    name: str
    sha256: str
    """SHA-256 of prompts, responses and labels."""
    n: int
    title: str
    description: str
    """Meaning of a label; empty for a file."""
    source: str
    """Publication; empty for a file."""
    licence: str
    """Terms of the data; empty for a file."""
    by: tuple[str, ...]
    """Who labelled."""
    behaviours: tuple[str, ...]
    rows: tuple[BenchRow, ...]


class JudgeBench(RecordFile):
    """Judges beside each other on label sets."""

    FILE_NAME: ClassVar[str] = "bench.json"
    WRITTEN_BY: ClassVar[str] = "`cst-bench judge bench` writes one"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    sets: tuple[BenchLabels, ...]
    seed: int

    def to_frame(self) -> pandas.DataFrame:
        """Return a row for each judge on each label set."""
        import pandas

        return pandas.DataFrame(
            {
                "labels": labels.name,
                "judge": row.judge,
                "source": row.source,
                "n": row.n,
                "unscored": row.unscored,
                **{f"f1_{name}": row.f1[name].value for name in row.f1},
                **_spread("macro_f1", row.macro_f1),
                **_spread("accuracy", row.accuracy),
                "seconds_per_1000": row.seconds_per_1000,
                "cost_per_1000": row.cost_per_1000,
            }
            for labels in self.sets
            for row in labels.rows
        )

    def _repr_markdown_(self) -> str:
        from cst_bench.calibration.calibration_report import bench_markdown

        return bench_markdown(self)


def _spread(name: str, estimate: Estimate) -> dict[str, float | None]:
    low, high = estimate.interval or (None, None)
    return {name: estimate.value, f"{name}_low": low, f"{name}_high": high}


def judge_bench(options: JudgeBenchOptions, progress: Progress | None = None) -> JudgeBench:
    """Measure judges on label sets, and write the comparison if a folder is given.

    Raises:
        UserError: an unknown judge or label set, data that cannot be read, or a model for a judge that asks none.
        JudgeUnavailable: some verdicts are missing; the others are cached.
    """
    from cst_bench.calibration.calibration_report import write_bench

    if not options.judges:
        raise UserError("no judge to measure: name at least one; `cst-bench judge list` lists them")
    judges = [_load(name, options.judge_options) for name in options.judges]
    fields = sorted({name for _, judge in judges for name in judge.fields})
    sets = load_labels(
        options.labels or names(FOLDER),
        options.data,
        columns=options.columns,
        values=options.values,
        by=options.labelled_by,
        fields=fields,
    )
    measured = JudgeBench(
        sets=tuple(_measure(labels, judges, options.seed, progress or Silent()) for labels in sets),
        seed=options.seed,
    )
    if options.out is not None:
        write_bench(options.out, measured)
    return measured


def _load(name: str, options: JudgeOptions) -> tuple[Path, Judge]:
    """Load a judge given as NAME or NAME=MODEL."""
    name, _, model = name.partition("=")
    path = find_judge(name)
    if model:
        options = replace(options, model=model)
    elif read_judge_file(path).kind not in MODEL_KINDS:
        options = JudgeOptions()
    return path, load_judge(str(path), options=options)


def _measure(labels: LabelSet, judges: Sequence[tuple[Path, Judge]], seed: int, progress: Progress) -> BenchLabels:
    preset = find_label_set(labels.name) if labels.name in names(FOLDER) else None
    behaviours = tuple(sorted({row.behaviour for row in labels.rows}))
    rows = [_judged(path, judge, labels, seed, progress) for path, judge in judges]
    rows += _released(labels, behaviours, seed)
    rows += _people(labels, behaviours, seed)
    rows += [] if preset is None else _published(preset)
    return BenchLabels(
        name=labels.name,
        sha256=labels.sha256,
        n=len(labels.rows),
        title=labels.name if preset is None else preset.title,
        description="" if preset is None else preset.description,
        source="" if preset is None else preset.source,
        licence="" if preset is None else preset.licence,
        by=tuple(labels.by),
        behaviours=behaviours,
        rows=tuple(rows),
    )


def _judged(path: Path, judge: Judge, labels: LabelSet, seed: int, progress: Progress) -> BenchRow:
    model = judge.details.get("model")
    name = f"{judge.name} ({model})" if isinstance(model, str) else judge.name
    try:
        with progress.stage(f"{judge.name} on {labels.name}: verdicts", len(labels.rows)) as count:
            held_out = held_out_verdicts(judge, path)
            card = make_calibration(judge, labels, seen=trained_on(path), held_out=held_out, seed=seed, count=count)
    except UserError as error:  # labels of other behaviours, or responses that it was trained on
        return BenchRow(judge=name, source="judged", note=str(error))
    calls = card.spent.calls if card.spent else 0
    cost = card.spent.cost_usd if card.spent else None
    left_out = len(labels.rows) - card.labels.n
    return BenchRow(
        judge=name,
        source="held out" if held_out else "judged",
        n=card.n,
        unscored=sum(card.unscored.values()),
        f1={behaviour: metrics.f1 for behaviour, metrics in card.behaviours.items()},
        macro_f1=card.macro_f1,
        accuracy=card.agreement,
        degrees=card.slices.get("degree", {}),
        seconds_per_1000=round(1000 * card.seconds / card.labels.n, 2),
        cost_per_1000=None if cost is None or not calls else round(1000 * cost / calls, 4),
        note=f"{left_out} responses that it was trained on are left out." if left_out else None,
    )


def _released(labels: LabelSet, behaviours: Sequence[str], seed: int) -> Iterator[BenchRow]:
    """Measure the verdicts of other judges that come with the labels."""
    for judge in sorted({judge for row in labels.rows for judge in row.verdicts}):
        given = [(row, row.verdicts[judge]) for row in labels.rows if judge in row.verdicts]
        scored = [(row, verdict) for row, verdict in given if verdict is not None]
        yield _measured(judge, "released", scored, len(scored), behaviours, seed, unscored=len(given) - len(scored))


def _people(labels: LabelSet, behaviours: Sequence[str], seed: int) -> Iterator[BenchRow]:
    """Measure annotators against each other: each pair both ways, so that macro F1 is that of a person as the judge."""
    several = [row for row in labels.rows if len(row.annotations) > 1]
    pairs: list[tuple[Labelled, str]] = [
        (replace(row, behaviour=label), other) for row in several for label, other in permutations(row.annotations, 2)
    ]
    if pairs:
        yield _measured("annotators", "people", pairs, len(several), behaviours, seed)


def _measured(
    judge: str,
    source: Literal["released", "people"],
    scored: Pairs,
    n: int,
    behaviours: Sequence[str],
    seed: int,
    *,
    unscored: int = 0,
) -> BenchRow:
    estimates = estimates_by_prompt(scored, behaviours, seed)
    return BenchRow(
        judge=judge,
        source=source,
        n=n,
        unscored=unscored,
        f1={name: estimates[f"{name}/f1"] for name in behaviours},
        macro_f1=estimates["macro_f1"],
        accuracy=estimates["agreement"],
        degrees=slice_metrics(scored, behaviours).get("degree", {}) if source == "released" else {},
    )


def _published(preset: LabelSetFile) -> Iterator[BenchRow]:
    for result in preset.published:
        value = Estimate(result.value, None)
        yield BenchRow(
            judge=result.judge,
            source="published",
            macro_f1=value if result.metric == "macro F1" else UNDEFINED,
            accuracy=value if result.metric == "accuracy" else UNDEFINED,
            note=result.source,
        )
