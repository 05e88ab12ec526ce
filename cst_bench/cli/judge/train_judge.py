"""`cst-bench judge train`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import (
    column_option,
    json_option,
    labelled_by_option,
    out_folder_option,
    seed_option,
    value_option,
)
from cst_bench.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from cst_bench.calibration.training_card import JudgeTrainingCard

EPILOG = """\b
Examples:
  cst-bench judge train labelled.jsonl --out my-judge
  cst-bench judge train labelled.csv more.parquet --labelled-by human --value 1=harmless --value 0=uncensored \\
      --out my-judge
  cst-bench judge train configurable-system-prompt-multitask.json --task harmful_behaviors --out my-judge
  cst-bench run ./my-model --task harmful_behaviors --judge my-judge/judge.yaml

A row of LABELS has prompt, response, behaviour, and optionally labelled_by; or it is a pair (system, prompt, chosen,
rejected), which --task labels by what the system prompt asks for. The training card has the cross-validated macro F1,
on prompts that the judge has not seen. Measure the judge on other responses with `cst-bench judge calibrate`."""


@click.command(epilog=EPILOG)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="LABELS...")
@out_folder_option("Folder of the judge.", required=True)
@click.option("--name", show_default="the folder's name", metavar="NAME", help="Name of the judge.")
@click.option("--task", metavar="TASK", help="Compliance task (name or file) that pairs belong to.")
@labelled_by_option()
@column_option
@value_option
@click.option("--split", default="train", metavar="SPLIT", help="Split to use, of a file that has splits.")
@seed_option("cross-validation folds and augmentation")
@click.option(
    "--penalty",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    metavar="C",
    help="Inverse regularisation strength (C of scikit-learn).",
)
@json_option("the training card as JSON")
def command(
    *,
    files: tuple[Path, ...],
    out: Path,
    name: str | None,
    task: str | None,
    labelled_by: str | None,
    columns: Mapping[str, str],
    values: Mapping[str, str],
    split: str,
    seed: int,
    penalty: float,
    as_json: bool,
) -> None:
    """Train a local judge on labelled responses: no API key, no GPU, about a thousand responses a second."""
    from cst_bench.calibration.fitting import FitOptions
    from cst_bench.calibration.judge_training import JudgeTrainOptions, train
    from cst_bench.calibration.labelled_pairs import pair_file, read_pairs
    from cst_bench.calibration.labels import LabelSet, join, read_labels
    from cst_bench.cli.console import ConsoleProgress, make_console, print_json, print_line, quiet_libraries

    def read(file: Path) -> LabelSet:
        if not pair_file(file):
            return read_labels(file, columns=columns, values=values, by=labelled_by, split=split)
        if task is None:
            raise UserError(f"{file} holds pairs: give --task, the task whose system prompts they were made with")
        return read_pairs(file, task)

    quiet_libraries()
    labels = join([read(file) for file in files])
    options = JudgeTrainOptions(name=name or out.resolve().name, fit=FitOptions(seed=seed, penalty=penalty))
    ConsoleProgress().note(f"training on {len(labels.rows)} labelled responses")
    card = train(labels, out, options)
    if as_json:
        print_json(card.as_json())
        return
    make_console().print(_table(card))
    print_line(f"Judge: {out / 'judge.yaml'}")


def _table(card: JudgeTrainingCard) -> Table:
    """Return the main values of a training card as a table."""
    from rich.markup import escape
    from rich.table import Table

    from cst_bench.numbers import ends, number

    trained, macro_f1 = card.trained_on, card.cross_validation.without_contradicted.macro_f1
    contradicted = trained.contradicted
    shares = ", ".join(f"{name} {share:.0%}" for name, share in trained.prevalence.items())
    table = Table(title=f"Judge {escape(card.judge.name)}", show_header=False, title_justify="left")
    table.add_row("responses", f"{trained.n} to {trained.prompts} prompts: {escape(shares)}")
    table.add_row("labelled by", escape(", ".join(trained.by)))
    if contradicted.labelled:
        total = sum(contradicted.labelled.values())
        trained_as = f"{contradicted.learnt_as_declining} trained on as {escape(str(contradicted.declining))}"
        left_out = f"{contradicted.left_out} left out"
        table.add_row("contradicted labels", f"{total} of responses that decline: {trained_as}, {left_out}")
    value = f"{number(macro_f1.value, 1, 3)} ({ends(macro_f1.interval, 1, 3)}), cross-validated by prompt"
    table.add_row("macro F1", value if macro_f1.value is not None else "undefined")
    table.add_row("speed", f"{card.per_second:.0f} responses a second")
    return table
