"""`cst-bench judge label`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import seed_option

if TYPE_CHECKING:
    from rich.console import Console

EPILOG = """\b
Examples:
  cst-bench judge label runs/my-run --plan --width 0.05     how many responses to label
  cst-bench judge label runs/my-run --n 100                 label them here; q stops, the same command continues
  cst-bench judge label runs/my-run --n 100 --export todo.jsonl
  cst-bench judge label runs/my-run --import done.jsonl --labeller anna
  cst-bench judge label runs/my-run --n 30 --labeller bo    a second labeller on a part of the same responses

Responses come in random order, without the judge's verdict and the configuration. Of a judged run they are drawn at
random from each class of verdict, most where they narrow the interval most. Of two labellers or more the majority
counts, and without one the response is unsure. Afterwards, `cst-bench judge RUN` corrects the scores by the labels."""


@click.command(epilog=EPILOG)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--n", type=click.IntRange(min=1), show_default="all", metavar="N", help="Number of responses to label.")
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="Label only this task of the run; repeatable.")
@click.option(
    "--labeller", metavar="NAME", show_default="no name", help="Who labels; kept with each label, one name a person."
)
@seed_option("the draw and the order of responses")
@click.option("--plan", is_flag=True, help="Only print how many responses to label for an interval of --width.")
@click.option(
    "--width",
    type=click.FloatRange(0.005, 0.5),
    default=0.05,
    metavar="SHARE",
    help="Target half-width of the 95 % interval, for --plan.",
)
@click.option(
    "--export",
    "export_to",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the responses to label into FILE (jsonl) instead of asking here.",
)
@click.option(
    "--import",
    "import_from",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Read labels from an exported file whose `behaviour` column has been filled in.",
)
def command(
    *,
    run: Path,
    n: int | None,
    tasks: tuple[str, ...],
    labeller: str | None,
    seed: int,
    plan: bool,
    width: float,
    export_to: Path | None,
    import_from: Path | None,
) -> None:
    """Label some of the responses of RUN by hand, to correct its scores for judge error."""
    from cst_bench.cli.console import make_console, print_line
    from cst_bench.cli.judge.label_screen import ask, plan_table
    from cst_bench.runs.label_file import answered
    from cst_bench.runs.label_strata import plan_drawn, plan_width
    from cst_bench.runs.labelling import choose, export, import_labels

    console = make_console()
    if plan:
        console.print(plan_table(plan_width(run, width, tasks=tasks)))
        return
    correct = f"`cst-bench judge {run}` corrects the scores by them"
    if import_from is not None:
        print_line(f"{import_labels(run, import_from, labeller)} labels imported; {correct}")
        _print_agreement(run, console)
        return
    chosen = choose(run, tasks=tasks, n=n, seed=seed)
    plans = plan_drawn(run, chosen)
    if plans:
        console.print(plan_table(plans))
    done = answered(run, labeller)
    remaining = [response for response in chosen if response.key not in done]
    if export_to is not None:
        export(export_to, remaining)
        print_line(f"{len(remaining)} responses to label: {export_to}")
        return
    ask(run, chosen, remaining, labeller, console)
    done = answered(run, labeller)
    left = len([response for response in chosen if response.key not in done])
    state = f"{left} of {len(chosen)} left: the same command continues" if left else f"all {len(chosen)} labelled"
    print_line(f"{state}; {correct}")
    _print_agreement(run, console)


def _print_agreement(run: Path, console: Console) -> None:
    """Print how far labellers agree, if two or more labelled the same responses."""
    from cst_bench.cli.judge.label_screen import agreement_table
    from cst_bench.runs.label_file import labeller_agreement

    agreements = labeller_agreement(run)
    if agreements:
        console.print(agreement_table(agreements))
