"""Calibration of a judge: options, and the card with its folder."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.calibration.card_making import JudgedLabels, judge_labels, make_card
from cst_bench.calibration.drift import CalibrationVerdicts
from cst_bench.calibration.held_out import held_out_verdicts
from cst_bench.calibration.label_sets import load_labels
from cst_bench.calibration.labels import join, shipped_labels
from cst_bench.calibration.training_card import trained_on
from cst_bench.files import prompt_hash, slug, user_cache_folder
from cst_bench.judging import JudgeOptions, ask, find_judge, load_judge
from cst_bench.judging.cache import AnswerCache
from cst_bench.judging.card import OWN, CalibrationCard
from cst_bench.progress import Progress, Silent
from cst_bench.statistics.agreement import Agreement, agreement
from cst_bench.statistics.classification import OVERALL, PER_BEHAVIOUR
from cst_bench.statistics.intervals import Estimate

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class CalibrateOptions:
    """Options of a calibration, named as on the command line."""

    judge: str
    """Name of a judge, or path of its file."""
    labels: tuple[str | Path, ...] = ()
    """Files with labelled responses, or names of label sets; those that come with the project for this judge if
    empty."""
    data: Mapping[str, Path] = field(default_factory=dict)
    """Label set → a local copy, a file or a folder; a set without one is fetched."""
    judge_options: JudgeOptions = field(default_factory=JudgeOptions)
    labelled_by: str | None = None
    """Who labelled, for files without such a column."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column → its name in the files, where it is not one of the usual names."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Label of the files → behaviour."""
    split: str | None = None
    """Split of the labelled responses to use; all but `train` if None."""
    repeat: int = 1
    """Times to ask the judge; from 2 on, the card has its agreement with itself."""
    seed: int = 0
    """Bootstrap seed."""
    out: Path | None = None
    """Folder for card and report; `calibrations/JUDGE-MODEL-LABELS` if None."""
    show_text: bool = False
    """Show the text of wrongly judged responses in the report."""


@dataclass(frozen=True)
class CalibrationResult:
    """A card, and the folder that it was written into."""

    card: CalibrationCard
    folder: Path

    def to_frame(self) -> pandas.DataFrame:
        """Return the metrics, one row for each behaviour and for all of them, with their 95 % intervals."""
        import pandas

        rows = [
            {"behaviour": name, **_estimate(metric, getattr(metrics, metric))}
            for name, metrics in self.card.behaviours.items()
            for metric in PER_BEHAVIOUR
        ]
        rows += [{"behaviour": "all", **_estimate(metric, getattr(self.card, metric))} for metric in OVERALL]
        return pandas.DataFrame(rows)

    def _repr_markdown_(self) -> str:
        from cst_bench.calibration.calibration_report import calibration_markdown

        return calibration_markdown(self.card)


def _estimate(metric: str, estimate: Estimate) -> dict[str, object]:
    low, high = estimate.interval or (None, None)
    return {"metric": metric, "value": estimate.value, "low": low, "high": high}


def calibrate(options: CalibrateOptions, progress: Progress | None = None) -> CalibrationResult:
    """Measure a judge against labelled responses, and write a calibration card and a report.

    Raises:
        UserError: an option is wrong, or as `make_calibration`.
        JudgeUnavailable: some verdicts are missing; the others are cached.
    """
    from cst_bench.calibration.calibration_report import write_calibration

    path = find_judge(options.judge)
    judge = load_judge(str(path), options=options.judge_options)
    sets = load_labels(
        options.labels or shipped_labels(judge.name, judge.behaviours, judge.fields),
        options.data,
        columns=options.columns,
        values=options.values,
        by=options.labelled_by,
        split=options.split,
        fields=sorted(judge.fields),
    )
    labels = join(sets, leave_out=() if options.split else ("train",))
    progress = progress or Silent()
    with progress.stage(f"{judge.name}: verdicts", len(labels.rows)) as count:
        judged = judge_labels(
            judge,
            labels,
            seen=trained_on(path),
            held_out=held_out_verdicts(judge, path),
            seed=options.seed,
            count=count,
        )
    card = make_card(
        judge, judged.labels, judged.verdicts, seconds=judged.seconds, seed=options.seed, panel=judged.panel
    )
    if options.repeat > 1:
        card = card.model_copy(update={"retest": _retest(path, judged, options, progress)})
    left_out = len(labels.rows) - card.labels.n
    if left_out:
        progress.note(
            f"{left_out} of {len(labels.rows)} responses are left out: {judge.name} was trained on them, and no "
            "training had left out their prompt and model"
        )
    names = filter(None, (judge.name, options.judge_options.model, labels.name))
    folder = options.out or OWN / "-".join(map(slug, names))
    CalibrationVerdicts.of(judged.labels, judged.verdicts).write(folder)
    write_calibration(folder, card, labels if options.show_text else None)
    return CalibrationResult(card, folder)


def _retest(path: Path, first: JudgedLabels, options: CalibrateOptions, progress: Progress) -> Agreement:
    """Ask the judge the same again, each time with a cache of its own, and return its agreement with itself."""
    cache = options.judge_options.cache or user_cache_folder()
    with closing(AnswerCache(cache)) as first_cache:
        secret = first_cache.secret()
    rows = first.labels.rows
    columns = [[verdict.behaviour for verdict in first.verdicts]]
    for time in range(2, options.repeat + 1):
        folder = cache / f"repeat-{time}"
        with closing(AnswerCache(folder)) as own_cache:
            own_cache.set_secret(secret)
        again = load_judge(str(path), options=replace(options.judge_options, cache=folder))
        with progress.stage(f"{again.name}: verdicts, time {time} of {options.repeat}", len(rows)) as count:
            columns.append([verdict.behaviour for verdict in ask(again, [row.case for row in rows], count)])
    names = [f"time {time}" for time in range(1, options.repeat + 1)]
    return agreement(names, columns, [prompt_hash(row.case.prompt) for row in rows], seed=options.seed)
