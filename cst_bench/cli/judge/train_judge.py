"""`cst-bench judge train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cst_bench.cli.shared_options import assignments
from cst_bench.errors import UserError

if TYPE_CHECKING:
    from cst_bench.calibration.labels import LabelSet

EPILOG = """\b
Examples:
  cst-bench judge train labelled.jsonl --out my-judge
  cst-bench judge train labelled.csv more.parquet --by human --value 1=harmless --value 0=uncensored --out my-judge
  cst-bench judge train configurable-system-prompt-multitask.json --task harmful_behaviors --out my-judge
  cst-bench run ./my-model --task harmful_behaviors --judge my-judge/judge.yaml

LABELS has rows with prompt, response, behaviour, and who labelled (by); or pairs (system, prompt, chosen, rejected),
which --task labels by what their system prompts ask for. The card says how well the judge does on prompts that it has
not seen; whether it can be believed is told by `cst-bench judge calibrate` on labels of other responses."""


@click.command(epilog=EPILOG)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="LABELS...")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Folder of the judge."
)
@click.option("--name", metavar="NAME", help="What the judge is called.  [default: the folder's name]")
@click.option("--task", metavar="TASK", help="Compliance task that pairs are of (name or file).")
@click.option("--by", metavar="WHO", help="Who labelled, where no column says so.")
@click.option("--column", "columns", multiple=True, metavar="NAME=COLUMN", help="What the file calls it; repeatable.")
@click.option("--value", "values", multiple=True, metavar="VALUE=BEHAVIOUR", help="What a label means; repeatable.")
@click.option(
    "--split", default="train", show_default=True, metavar="NAME", help="Rows to take of a file that has splits."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of folds and altered copies.")
@click.option(
    "--penalty",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    metavar="C",
    help="scikit-learn's C: higher is less regularised.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON in place of the table.")
def command(**values: Any) -> None:
    """Train a local judge on labelled responses: no key, no GPU, thousands of responses a second."""
    from cst_bench.calibration.fitting import FitOptions
    from cst_bench.calibration.judge_training import TrainOptions, train
    from cst_bench.calibration.labels import join
    from cst_bench.cli.console import ConsoleProgress, make_console, quiet_libraries

    quiet_libraries()
    labels = join([_read(file, values) for file in values["files"]])
    out = values["out"]
    options = TrainOptions(
        name=values["name"] or out.resolve().name, fit=FitOptions(seed=values["seed"], penalty=values["penalty"])
    )
    ConsoleProgress(make_console(stderr=True)).note(f"training on {len(labels.rows)} labelled responses")
    card = train(labels, out, options)
    if values["as_json"]:
        click.echo(json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False))
        return
    _show(card, out)


def _read(file: Path, values: dict[str, Any]) -> LabelSet:
    from cst_bench.calibration.labelled_pairs import pair_file, read_pairs
    from cst_bench.calibration.labels import read_labels

    if pair_file(file):
        if values["task"] is None:
            raise UserError(
                f"{file} holds pairs: say with --task which task's system prompts tell what each response was made for"
            )
        return read_pairs(file, values["task"])
    return read_labels(
        file,
        columns=assignments("--column", values["columns"]),
        values=assignments("--value", values["values"]),
        by=values["by"],
        split=values["split"],
    )


def _show(card: dict[str, Any], out: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    from cst_bench.cli.console import make_console

    trained, checked = card["trained_on"], card["cross_validation"]
    value, interval = checked["macro_f1"]["value"], checked["macro_f1"]["interval"]
    doubted = trained["contradicted"]
    shares = ", ".join(f"{name} {share:.0%}" for name, share in trained["prevalence"].items())
    table = Table(title=f"Judge {escape(card['judge']['name'])}", show_header=False, title_justify="left")
    table.add_row("responses", f"{trained['n']} to {trained['prompts']} prompts: {escape(shares)}")
    table.add_row("labelled by", escape(", ".join(trained["by"])))
    if doubted["labelled"]:
        number = sum(doubted["labelled"].values())
        table.add_row(
            "labels not believed",
            f"{number} that decline all the same: {doubted['learnt_as_declining']} learnt as "
            f"{escape(doubted['declining'])}, {doubted['left_out']} left out",
        )
    spread = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    table.add_row("macro F1", f"{value:.3f}{spread}, on prompts it had not seen" if value is not None else "undefined")
    table.add_row("speed", f"{card['per_second']:.0f} responses a second")
    console = make_console()
    console.print(table)
    console.print(f"Judge: {escape(str(out / 'judge.yaml'))}", soft_wrap=True)
