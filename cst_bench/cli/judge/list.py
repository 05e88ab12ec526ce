"""`cst-bench judge list`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

EPILOG = """\b
Examples:
  cst-bench judge list
  cst-bench judge list --json | jq '.[] | select(.card.macro_f1 > 0.9) | .name'

A judge that asks a model is shown with the card of the model that it was calibrated with, if any."""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of the table.")
def command(as_json: bool) -> None:
    """The judges that can be named, and how far each was found to agree with labels."""
    from rich.markup import escape
    from rich.table import Table

    from cst_bench import content
    from cst_bench.cli.console import make_console
    from cst_bench.judging.find import FOLDER, describe

    paths = [content.find(FOLDER, name, "judge") for name in content.names(FOLDER)]
    found = [{**judge, "card": _card(judge, path)} for path in paths for judge in [describe(path)]]
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    table = Table()
    table.add_column("Judge", no_wrap=True)
    table.add_column("Kind, model", overflow="fold")
    table.add_column("Behaviours", no_wrap=True)
    table.add_column("Calibration", no_wrap=True, justify="right")
    for one in found:
        kind = one["kind"] if one["model"] is None else f"{one['kind']}\n{one['model']}"
        table.add_row(*map(escape, (one["name"], kind, "\n".join(one["behaviours"]), _shown(one["card"]))))
    console = make_console()
    console.print(table)
    console.print("Calibration: macro F1 and the number of labelled responses it is on.")


def _card(judge: dict[str, Any], path: Path) -> dict[str, Any] | None:
    """The card of a judge; where it asks a model, which takes a key or a checkpoint to make, that of its name."""
    from cst_bench.judging import load_judge
    from cst_bench.judging.card import card_summary, find_card, find_card_by_name

    if judge["model"] is None and judge["kind"] != "panel":
        card = find_card(load_judge(str(path)).identity, path)
    else:
        card = find_card_by_name(judge["name"], judge["version"])
    return None if card is None else {**card_summary(card), "model": card["judge"].get("model")}


def _shown(card: dict[str, Any] | None) -> str:
    if card is None:
        return "–"
    macro_f1 = "undefined" if card["macro_f1"] is None else f"{card['macro_f1']:.3f}"
    return f"{macro_f1} on {card['n']}"
