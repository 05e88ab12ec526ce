"""`cst-bench judge label`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import seed_option

if TYPE_CHECKING:
    from rich.console import Console

    from cst_bench.runs.labelling import ToLabel

EPILOG = """\b
Examples:
  cst-bench judge label runs/my-run --plan --width 0.05     how many responses to label
  cst-bench judge label runs/my-run --n 100                 label them here; q stops, the same command continues
  cst-bench judge label runs/my-run --n 100 --export todo.jsonl
  cst-bench judge label runs/my-run --import done.jsonl --labelled-by anna

Responses come in random order, without the judge's verdict. Afterwards, `cst-bench judge RUN` corrects the scores by
the labels."""


@click.command(epilog=EPILOG)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--n", type=click.IntRange(min=1), show_default="all", metavar="N", help="Number of responses to label.")
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="Label only this task of the run; repeatable.")
@click.option(
    "--labelled-by",
    "--by",
    "labelled_by",
    default=lambda: os.environ.get("USER", "human"),
    show_default="your user name",
    metavar="NAME",
    help="Who labels.",
)
@seed_option("the response order")
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
    labelled_by: str,
    seed: int,
    plan: bool,
    width: float,
    export_to: Path | None,
    import_from: Path | None,
) -> None:
    """Label some of the responses of RUN by hand, to correct its scores for judge error."""
    from cst_bench.cli.console import make_console, print_line
    from cst_bench.runs.labelling import answered, choose, export, import_labels

    if plan:
        _print_plan(run, width, tasks, make_console())
        return
    correct = f"`cst-bench judge {run}` corrects the scores by them"
    if import_from is not None:
        print_line(f"{import_labels(run, import_from, labelled_by)} labels imported; {correct}")
        return
    chosen = choose(run, tasks=tasks, n=n, seed=seed)
    remaining = [response for response in chosen if response.key not in answered(run)]
    if export_to is not None:
        export(export_to, remaining)
        print_line(f"{len(remaining)} responses to label: {export_to}")
        return
    _label(run, chosen, remaining, labelled_by, make_console())
    left = len([response for response in chosen if response.key not in answered(run)])
    state = f"{left} of {len(chosen)} left: the same command continues" if left else f"all {len(chosen)} labelled"
    print_line(f"{state}; {correct}")


def _label(run: Path, chosen: list[ToLabel], remaining: list[ToLabel], labelled_by: str, console: Console) -> None:
    """Ask for a key for each remaining response, until all are labelled or the user stops."""
    from rich.markup import escape
    from rich.panel import Panel

    from cst_bench.runs.labelling import add_label, take_back

    by_key = {response.key: response for response in chosen}
    while remaining:
        response = remaining[0]
        keys = {str(number): name for number, name in enumerate(response.behaviours, 1)}
        console.rule(f"{len(chosen) - len(remaining) + 1} of {len(chosen)}")
        console.print(Panel(escape(_printable(response.prompt)), title="prompt", title_align="left"))
        console.print(Panel(escape(_printable(response.response)), title="response", title_align="left"))
        console.print("  ".join(f"[bold]{key}[/bold] {name}" for key, name in keys.items()), end="  ")
        console.print("[bold]s[/bold] unsure  [bold]u[/bold] undo  [bold]q[/bold] stop")
        key = click.getchar()
        if key in ("q", "\x03", "\x04", ""):
            return
        if key == "u":
            undone = take_back(run)
            if undone is not None and undone in by_key:
                remaining.insert(0, by_key[undone])
        elif key == "s" or key in keys:
            add_label(run, response, keys.get(key), labelled_by)
            remaining.pop(0)


def _printable(text: str) -> str:
    """Replace control characters, which could move the terminal's cursor or change its colours."""
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)


def _print_plan(run: Path, width: float, tasks: tuple[str, ...], console: Console) -> None:
    """Print how many responses of each configuration to label."""
    from rich.markup import escape
    from rich.table import Table

    from cst_bench.runs.labelling import plan_labels

    table = Table(title=f"Responses to label for an interval of ±{width:g}", title_justify="left")
    for column in ("Task", "Configuration", "To label"):
        table.add_column(column, justify="right" if column == "To label" else "left")
    for (task, name), number in plan_labels(run, width, tasks=tasks).items():
        table.add_row(escape(task), escape(name), "more than there are" if number is None else str(number))
    console.print(table)
