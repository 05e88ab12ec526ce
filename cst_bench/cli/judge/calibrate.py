"""`cst-bench judge calibrate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import (
    column_option,
    json_option,
    judge_options,
    label_data_option,
    labelled_by_option,
    labels_option,
    out_folder_option,
    refuse_nan,
    seed_option,
    value_option,
)

if TYPE_CHECKING:
    from cst_bench.judging import JudgeOptions

EPILOG = """\b
Examples:
  cst-bench judge calibrate refusal_rules                     on the labels that come with the project
  cst-bench judge calibrate harmlessness --judge-model openai/gpt-4o --labels mine.csv --labelled-by human
  cst-bench judge calibrate refusal_rules --labels xstest     a label set by people, fetched when it is used
  cst-bench judge calibrate ./my-judge --labels generations_hermes_CST.md --labels generations_hermes_DPO.md

JUDGE is a name (`cst-bench judge list`), a file, or a folder from `cst-bench judge train`. Labels are jsonl, json, csv,
tsv, parquet, or a Markdown table; a row has prompt, response, behaviour, and optionally labelled_by. Runs that are
started in this folder find the card in calibrations/, by the judge's hash."""


@click.command(epilog=EPILOG)
@click.argument("judge", metavar="JUDGE")
@labels_option
@label_data_option
@judge_options
@labelled_by_option()
@column_option
@value_option
@click.option("--split", show_default="all but train", metavar="SPLIT", help="Split of the labelled responses to use.")
@click.option(
    "--min-judge-f1",
    type=click.FloatRange(0, 1),
    callback=refuse_nan,
    metavar="F1",
    help="Exit with status 1 unless the card shows a macro F1 of F1 or more, as runs require it.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=1,
    metavar="K",
    help="Ask the judge K times, and report its agreement with itself (test-retest).",
)
@seed_option("the bootstrap")
@out_folder_option("Folder for the card and the report.", "calibrations/JUDGE-MODEL-LABELS")
@click.option("--show-text", is_flag=True, help="Show the text of responses that were judged wrongly in the report.")
@json_option("the card as JSON")
def command(
    *,
    judge: str,
    files: tuple[str, ...],
    data: Mapping[str, Path],
    judge_options: JudgeOptions,
    labelled_by: str | None,
    columns: Mapping[str, str],
    values: Mapping[str, str],
    split: str | None,
    min_judge_f1: float | None,
    repeat: int,
    seed: int,
    out: Path | None,
    show_text: bool,
    as_json: bool,
) -> int:
    """Measure JUDGE against labelled responses; write a calibration card and a report."""
    from cst_bench.calibration import CalibrateOptions, calibrate
    from cst_bench.calibration.calibration_report import calibration_table
    from cst_bench.cli.console import ConsoleProgress, make_console, print_json, print_line, quiet_libraries
    from cst_bench.judging.card import why_uncalibrated

    quiet_libraries()
    options = CalibrateOptions(
        judge=judge,
        labels=files,
        data=data,
        judge_options=judge_options,
        labelled_by=labelled_by,
        columns=columns,
        values=values,
        split=split,
        repeat=repeat,
        seed=seed,
        out=out,
        show_text=show_text,
    )
    progress = ConsoleProgress()
    result = calibrate(options, progress)
    if as_json:
        print_json(result.card.as_json())
    else:
        make_console().print(calibration_table(result.card))
        print_line(f"Report: {result.folder / 'report.md'}")
    reasons = () if min_judge_f1 is None else why_uncalibrated(result.card.summary(), min_judge_f1)
    if reasons:
        progress.note(f"not calibrated: {'; '.join(reasons)}")
    return int(bool(reasons))
