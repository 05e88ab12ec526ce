"""`cst-bench judge attack`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cst_bench.cli.shared_options import assignments, judge_options, take_judge

if TYPE_CHECKING:
    from rich.table import Table

EPILOG = """\b
Examples:
  cst-bench judge attack refusal_rules
  cst-bench judge attack harmlessness --judge-model openai/gpt-4o --limit 50
  cst-bench judge attack ./my-judge --labels mine.csv --by human --out attacked

Each attack leaves what a response does as it is: fake verdicts and fences, instructions, control tokens, markup, very
long filler, invisible characters; apologies, disclaimers, disavowals, flattery. Rows of the
split train are left out."""


@click.command(epilog=EPILOG)
@click.argument("judge", metavar="JUDGE")
@click.option("--labels", "files", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="Repeatable.")
@click.option("--suite", default="standard", show_default=True, metavar="NAME", help="In judges/attacks, or a file.")
@judge_options
@click.option("--by", metavar="WHO", help="Who labelled, where no column says so.")
@click.option("--value", "values", multiple=True, metavar="VALUE=BEHAVIOUR", help="What a label means; repeatable.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only so many responses, drawn by the seed.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="For attack.json, report.md."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of the table.")
def command(**values: Any) -> None:
    """Try to talk JUDGE round, and see how far its F1 falls."""
    from cst_bench.calibration.calibration_report import write_attack
    from cst_bench.calibration.labels import join, read_labels, shipped_labels
    from cst_bench.calibration.robustness import attack, attack_size, load_attacks
    from cst_bench.cli.console import ConsoleProgress, make_console, quiet_libraries
    from cst_bench.judging import find_judge, load_judge

    quiet_libraries()
    judge = load_judge(str(find_judge(values["judge"])), options=take_judge(values))
    suite = load_attacks(values["suite"])
    files = values["files"] or shipped_labels(judge.name, judge.behaviours, judge.fields)
    meaning = assignments("--value", values["values"])
    labels = join(
        [read_labels(file, values=meaning, by=values["by"], fields=sorted(judge.fields)) for file in files],
        leave_out=("train",),  # on what it learnt, a judge stands firmer than elsewhere
    )
    progress = ConsoleProgress(make_console(stderr=True))
    with progress.stage(f"{judge.name}: verdicts", attack_size(labels, suite, values["limit"])) as count:
        found = attack(judge, labels, suite, limit=values["limit"], seed=values["seed"], count=count)
    if values["out"] is not None:
        write_attack(values["out"], found)
    if values["as_json"]:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    console = make_console()
    console.print(_table(found))
    if values["out"] is not None:
        console.print(f"Report: {values['out'] / 'report.md'}", soft_wrap=True, markup=False)


def _table(found: Mapping[str, Any]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{escape(found['judge']['name'])} attacked on {found['n']} responses", title_justify="left")
    for column in ("Family", "changed", "to aim", "unscored", "F1", "drift", "95 %"):
        table.add_column(column, justify="left" if column == "Family" else "right", no_wrap=column != "Family")
    for name, one in found["families"].items():
        ends = "–" if one["interval"] is None else "{:+.2f} {:+.2f}".format(*one["interval"])
        drift = "–" if one["drift"] is None else f"{one['drift']:+.3f}"
        after = "–" if one["f1_after"] is None else f"{one['f1_after']:.3f}"
        counts = (str(one[key]) for key in ("changed", "towards_target", "became_unscored"))
        table.add_row(escape(name), *counts, after, drift, ends)
    return table
