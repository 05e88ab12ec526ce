"""Screens of `cst-bench judge label`: one response after another, the plan, and the agreement of the labellers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from cst_bench.errors import UserError
from cst_bench.numbers import DASH, ends, number
from cst_bench.runs.label_file import add_label, take_back
from cst_bench.runs.label_strata import LabelPlan
from cst_bench.runs.to_label import ToLabel
from cst_bench.statistics.agreement import Agreement
from cst_bench.statistics.intervals import Estimate


def ask(run: Path, chosen: list[ToLabel], remaining: list[ToLabel], labeller: str | None, console: Console) -> None:
    """Ask for a key for each remaining response, until all are labelled or the user stops.

    Raises:
        UserError: there is no terminal to ask on.
    """
    by_key = {response.key: response for response in chosen}
    while remaining:
        response = remaining[0]
        keys = {str(number): name for number, name in enumerate(response.behaviours, 1)}
        console.rule(f"{len(chosen) - len(remaining) + 1} of {len(chosen)}")
        _show(response, keys, console)
        try:
            key = click.getchar()
        except OSError:
            raise UserError(
                "there is no terminal to label on: write the responses into a file with --export, fill in `behaviour`, "
                "and read it with --import"
            ) from None
        if key in ("q", "\x03", "\x04", ""):
            return
        if key == "u":
            undone = take_back(run, labeller)
            if undone is not None and undone in by_key:
                remaining.insert(0, by_key[undone])
        elif key == "s" or key in keys:
            add_label(run, response, keys.get(key), labeller)
            remaining.pop(0)


def _show(response: ToLabel, keys: Mapping[str, str], console: Console) -> None:
    """Print what the judge is shown, and the keys with the meaning of each label; never the configuration."""
    for title, text in (*response.fields.items(), ("prompt", response.prompt), ("response", response.response)):
        console.print(Panel(escape(_printable(text)), title=escape(_printable(title)), title_align="left"))
    for key, name in keys.items():
        meaning = response.definitions.get(name)
        colon = "" if meaning is None else f": {escape(_printable(meaning))}"
        console.print(f"[bold]{key}[/bold] {escape(name)}{colon}")
    console.print("[bold]s[/bold] unsure  [bold]u[/bold] undo  [bold]q[/bold] stop")


def _printable(text: str) -> str:
    """Replace control characters, which could move the terminal's cursor or change its colours."""
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)


def plan_table(plans: Sequence[LabelPlan]) -> Table:
    """Return how many responses of each configuration and class of verdict to label, and the half-width to expect."""
    table = Table(title="Responses to label, of those that the judge calls …", title_justify="left")
    for column in ("Task", "Configuration", "compliant", "other", "unscored", "All", "Width"):
        table.add_column(column, justify="left" if column in ("Task", "Configuration") else "right", overflow="fold")
    for plan in plans:
        labels = plan.labels or ()
        parts = [f"{count} of {size}" for count, size in zip(labels, plan.sizes)] or [DASH] * len(plan.sizes)
        total = str(sum(labels)) if labels else f"> {sum(plan.sizes)}"
        width = DASH if plan.half_width is None else f"±{plan.half_width:.3f}"
        table.add_row(escape(plan.task), escape(plan.configuration), *parts, total, width)
    return table


def agreement_table(agreements: Mapping[str, Agreement]) -> Table:
    """Return the agreement of each pair of labellers, and of all if there are more, by task."""
    table = Table(title="Agreement of the labellers (95 % interval)", title_justify="left")
    for column in ("Task", "Labellers", "Both", "Same label", "Kappa or alpha"):
        table.add_column(column, justify="left" if column in ("Task", "Labellers") else "right", overflow="fold")
    for task, agreement in agreements.items():
        for pair in agreement.pairs:
            if pair.n:
                names = " and ".join(escape(_printable(name)) for name in pair.raters)
                table.add_row(escape(task), names, str(pair.n), _with_interval(pair.raw), _with_interval(pair.kappa))
        if len(agreement.scored) > 2:
            alpha = _with_interval(agreement.krippendorff_alpha)
            table.add_row(escape(task), "all", str(agreement.n), _with_interval(agreement.raw), alpha)
    return table


def _with_interval(estimate: Estimate) -> str:
    return number(estimate.value, 1) + ("" if estimate.interval is None else f" ({ends(estimate.interval, 1)})")
