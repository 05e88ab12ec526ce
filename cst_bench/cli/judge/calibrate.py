"""`cst-bench judge calibrate`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import (
    column_option,
    json_option,
    judge_options,
    labelled_by_option,
    out_folder_option,
    seed_option,
    value_option,
)

if TYPE_CHECKING:
    from cst_bench.judging import JudgeOptions

EPILOG = """\b
Examples:
  cst-bench judge calibrate refusal_rules                     on the labels that come with the project
  cst-bench judge calibrate harmlessness --judge-model openai/gpt-4o --labels mine.csv --labelled-by human
  cst-bench judge calibrate ./my-judge --labels generations_hermes_CST.md --labels generations_hermes_DPO.md

JUDGE is a name (`cst-bench judge list`), a file, or a folder from `cst-bench judge train`. Labels are jsonl, json, csv,
tsv, parquet, or a Markdown table; a row has prompt, response, behaviour, and optionally labelled_by. Runs that are
started in this folder find the card in calibrations/, by the judge's hash."""


@click.command(epilog=EPILOG)
@click.argument("judge", metavar="JUDGE")
@click.option(
    "--labels",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    show_default="those that come with the project",
    metavar="FILE",
    help="File with labelled responses; repeatable.",
)
@judge_options
@labelled_by_option()
@column_option
@value_option
@click.option("--split", show_default="all but train", metavar="SPLIT", help="Split of the labelled responses to use.")
@click.option(
    "--min-judge-f1", type=click.FloatRange(0, 1), metavar="F1", help="Exit with status 1 if macro F1 is below F1."
)
@seed_option("the bootstrap")
@out_folder_option("Folder for the card and the report.", "calibrations/JUDGE-MODEL-LABELS")
@click.option("--show-text", is_flag=True, help="Show the text of responses that were judged wrongly in the report.")
@json_option("the card as JSON")
def command(
    *,
    judge: str,
    files: tuple[Path, ...],
    judge_options: JudgeOptions,
    labelled_by: str | None,
    columns: Mapping[str, str],
    values: Mapping[str, str],
    split: str | None,
    min_judge_f1: float | None,
    seed: int,
    out: Path | None,
    show_text: bool,
    as_json: bool,
) -> int:
    """Measure JUDGE against labelled responses; write a calibration card and a report."""
    from cst_bench.calibration.calibration import calibrate, trained_on
    from cst_bench.calibration.calibration_report import calibration_table, write_calibration
    from cst_bench.calibration.labels import join, read_labels, shipped_labels
    from cst_bench.cli.console import ConsoleProgress, make_console, print_line, quiet_libraries
    from cst_bench.files import slug
    from cst_bench.judging import find_judge, load_judge
    from cst_bench.judging.card import OWN

    quiet_libraries()
    path = find_judge(judge)
    loaded = load_judge(str(path), options=judge_options)
    fields = sorted(loaded.fields)
    sets = [
        read_labels(file, columns=columns, values=values, by=labelled_by, split=split, fields=fields)
        for file in files or shipped_labels(loaded.name, loaded.behaviours, loaded.fields)
    ]
    labels = join(sets, leave_out=() if split else ("train",))
    with ConsoleProgress().stage(f"{loaded.name}: verdicts", len(labels.rows)) as count:
        card = calibrate(loaded, labels, trained_on=trained_on(path), seed=seed, count=count)
    folder = out or OWN / "-".join(map(slug, filter(None, (loaded.name, judge_options.model, labels.name))))
    write_calibration(folder, card, labels if show_text else None)
    if as_json:
        click.echo(json.dumps(card, indent=2, ensure_ascii=False))
    else:
        make_console().print(calibration_table(card))
        print_line(f"Report: {folder / 'report.md'}")
    macro_f1 = card["macro_f1"]["value"]
    return int(min_judge_f1 is not None and (macro_f1 is None or macro_f1 < min_judge_f1))
