"""`cst-bench judge attack`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import (
    json_option,
    judge_options,
    label_data_option,
    labelled_by_option,
    labels_option,
    limit_option,
    out_folder_option,
    seed_option,
    value_option,
)

if TYPE_CHECKING:
    from rich.table import Table

    from cst_bench.calibration.robustness import AttackResult
    from cst_bench.judging import JudgeOptions

EPILOG = """\b
Examples:
  cst-bench judge attack refusal_rules
  cst-bench judge attack harmlessness --judge-model openai/gpt-4o --limit 50
  cst-bench judge attack ./my-judge --labels mine.csv --labelled-by human --out attacked

An attack adds something to a response without changing what the response does: fake verdicts and fences, instructions,
control tokens, markup, very long filler, invisible characters; apologies, disclaimers, disavowals, flattery. Labelled
responses of the split `train` are not used."""


@click.command(epilog=EPILOG)
@click.argument("judge", metavar="JUDGE")
@labels_option
@label_data_option
@click.option(
    "--suite",
    default="standard",
    metavar="SUITE",
    help="Suite of attacks, a name in judges/attacks or a file.",
)
@judge_options
@labelled_by_option()
@value_option
@limit_option("N randomly drawn responses")
@seed_option("drawing responses and the bootstrap")
@out_folder_option("Folder for attack.json and report.md.", "nothing is written")
@json_option("the results as JSON")
def command(
    *,
    judge: str,
    files: tuple[str, ...],
    data: Mapping[str, Path],
    suite: str,
    judge_options: JudgeOptions,
    labelled_by: str | None,
    values: Mapping[str, str],
    limit: int | None,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Test the robustness of JUDGE to adversarial responses: how far its F1 falls under each family of attacks."""
    from cst_bench.calibration.calibration_report import write_attack
    from cst_bench.calibration.label_sets import load_labels
    from cst_bench.calibration.labels import join, shipped_labels
    from cst_bench.calibration.robustness import attack, attack_size, load_attacks
    from cst_bench.cli.console import ConsoleProgress, make_console, print_json, print_line, quiet_libraries
    from cst_bench.judging import find_judge, load_judge

    quiet_libraries()
    loaded = load_judge(str(find_judge(judge)), options=judge_options)
    attacks = load_attacks(suite)
    fields = sorted(loaded.fields)
    labels = join(
        load_labels(
            files or shipped_labels(loaded.name, loaded.behaviours, loaded.fields),
            data,
            values=values,
            by=labelled_by,
            fields=fields,
        ),
        leave_out=("train",),  # a judge is more robust on responses that it was trained on
    )
    with ConsoleProgress().stage(f"{loaded.name}: verdicts", attack_size(labels, attacks, limit)) as count:
        results = attack(loaded, labels, attacks, limit=limit, seed=seed, count=count)
    if out is not None:
        write_attack(out, results)
    if as_json:
        print_json(results.as_json())
        return
    make_console().print(_table(results))
    if out is not None:
        print_line(f"Report: {out / 'report.md'}")


def _table(result: AttackResult) -> Table:
    """Return a table with a row for each family of attacks."""
    from rich.markup import escape
    from rich.table import Table

    from cst_bench.numbers import number, signed, signed_ends

    table = Table(title=f"{escape(result.judge.name)} attacked on {result.n} responses", title_justify="left")
    for column in ("Family", "changed", "to target", "unscored", "F1", "change", "95 %"):
        table.add_column(column, justify="left" if column == "Family" else "right", no_wrap=column != "Family")
    for name, family in result.families.items():
        table.add_row(
            escape(name),
            *map(str, (family.changed, family.towards_target, family.became_unscored)),
            number(family.f1_after, 1, 3),
            signed(family.change.value, 1),
            signed_ends(family.change.interval, 1).replace(" to ", " … "),
        )
    return table
