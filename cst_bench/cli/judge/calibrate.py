"""`cst-bench judge calibrate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cst_bench.cli.shared_options import assignments, judge_options, take_judge

EPILOG = """\b
Examples:
  cst-bench judge calibrate refusal_rules                     on the labels that come with the project
  cst-bench judge calibrate harmlessness --judge-model openai/gpt-4o --labels mine.csv --by human
  cst-bench judge calibrate ./my-judge/judge.yaml --labels generations_hermes_CST.md --labels generations_hermes_DPO.md

LABELS has rows with prompt, response, behaviour, and who labelled (by): jsonl, json, csv, tsv, parquet, or a Markdown
table. Runs find the card by the judge's hash, in calibrations/ of the folder that they are started in."""


@click.command(epilog=EPILOG)
@click.argument("judge", metavar="JUDGE")
@click.option(
    "--labels",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Labelled responses; repeatable.  [default: those that come with the project]",
)
@judge_options
@click.option("--by", metavar="WHO", help="Who labelled, where no column says so.")
@click.option("--column", "columns", multiple=True, metavar="NAME=COLUMN", help="What the file calls it; repeatable.")
@click.option("--value", "values", multiple=True, metavar="VALUE=BEHAVIOUR", help="What a label means; repeatable.")
@click.option("--split", metavar="NAME", help="Only rows of this split.  [default: all but train]")
@click.option(
    "--min-judge-f1", type=click.FloatRange(0, 1), metavar="F1", help="Exit status 1 if macro F1 is below it."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstrap.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="[default: calibrations/JUDGE-MODEL-LABELS]",
)
@click.option("--show-text", is_flag=True, help="Put the texts of disagreements into the report.")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON in place of the table.")
def command(**values: Any) -> int:
    """Measure JUDGE against labelled responses, and write a calibration card and a report."""
    from cst_bench.calibration.calibration import calibrate, trained_on
    from cst_bench.calibration.calibration_report import calibration_table, write_calibration
    from cst_bench.calibration.labels import join, read_labels, shipped_labels
    from cst_bench.cli.console import ConsoleProgress, make_console, quiet_libraries
    from cst_bench.files import slug
    from cst_bench.judging import find_judge, load_judge
    from cst_bench.judging.card import OWN

    quiet_libraries()
    path = find_judge(values["judge"])
    options = take_judge(values)
    judge = load_judge(str(path), options=options)
    files = values["files"] or shipped_labels(judge.name, judge.behaviours, judge.fields)
    labels = join(
        [
            read_labels(
                file,
                columns=assignments("--column", values["columns"]),
                values=assignments("--value", values["values"]),
                by=values["by"],
                split=values["split"],
                fields=sorted(judge.fields),
            )
            for file in files
        ],
        leave_out=() if values["split"] else ("train",),
    )
    progress = ConsoleProgress(make_console(stderr=True))
    with progress.stage(f"{judge.name}: verdicts", len(labels.rows)) as count:
        card = calibrate(judge, labels, trained_on=trained_on(path), seed=values["seed"], count=count)
    folder = values["out"] or OWN / "-".join(map(slug, filter(None, (judge.name, options.model, labels.name))))
    write_calibration(folder, card, labels if values["show_text"] else None)
    if values["as_json"]:
        click.echo(json.dumps(card, indent=2, ensure_ascii=False))
    else:
        console = make_console()
        console.print(calibration_table(card))
        console.print(f"Report: {folder / 'report.md'}", soft_wrap=True, markup=False)
    reached = card["macro_f1"]["value"]
    return int(values["min_judge_f1"] is not None and (reached is None or reached < values["min_judge_f1"]))
