"""`cst-bench judge list`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import json_option

if TYPE_CHECKING:
    from cst_bench.judging import JudgeFile

EPILOG = """\b
Examples:
  cst-bench judge list
  cst-bench judge list --json | jq '.[] | select(.card.macro_f1 > 0.9) | .name'

A judge that asks a model is listed with the card of the model that it was calibrated with, if any."""


@click.command(epilog=EPILOG)
@json_option("the list as JSON")
def command(*, as_json: bool) -> None:
    """List the judges that come with the project, and how well each agrees with labels."""
    from rich.markup import escape
    from rich.table import Table

    from cst_bench import content
    from cst_bench.cli.console import make_console, print_json, print_line
    from cst_bench.judging import FOLDER, read_judge_file

    paths = [content.find(FOLDER, name, "judge") for name in content.names(FOLDER)]
    notes: dict[str, None] = {}  # each once, in order
    judges = [_describe(read_judge_file(path), path, lambda note: notes.setdefault(note)) for path in paths]
    for note in notes:
        print_line(note, stderr=True)
    if as_json:
        print_json([asdict(judge) for judge in judges])
        return
    table = Table()
    table.add_column("Judge", no_wrap=True)
    table.add_column("Kind, model", overflow="fold")
    table.add_column("Behaviours", no_wrap=True)
    table.add_column("Calibration", no_wrap=True, justify="right")
    for judge in judges:
        kind = judge.kind if judge.model is None else f"{judge.kind}\n{judge.model}"
        table.add_row(*map(escape, (judge.name, kind, "\n".join(judge.behaviours), _calibration(judge))))
    console = make_console()
    console.print(table)
    console.print("Calibration: macro F1, and the number of labelled responses.")


@dataclass(frozen=True)
class _ListedJudge:
    name: str
    kind: str
    version: int
    behaviours: list[str]
    model: str | None
    description: str
    card: dict[str, object] | None
    """Summary of its calibration card."""


def _describe(file: JudgeFile, path: Path, note: Callable[[str], None]) -> _ListedJudge:
    model: str | None = getattr(file, "model", None) if file.kind in ("llm", "guard") else None
    card = _card(file, path, note)
    return _ListedJudge(file.name, file.kind, file.version, list(file.behaviours), model, file.description, card)


def _card(file: JudgeFile, path: Path, note: Callable[[str], None]) -> dict[str, object] | None:
    """Return the summary of a judge's card: by hash, or by name if making the judge would need a key or checkpoint."""
    from cst_bench.judging import load_judge
    from cst_bench.judging.card import find_card, find_card_by_name
    from cst_bench.judging.find import MODEL_KINDS

    if file.kind not in MODEL_KINDS:
        card = find_card(load_judge(str(path)).identity, path, note)
    else:
        card = find_card_by_name(file.name, file.version, note)
    return None if card is None else {**card.summary().as_json(), "model": card.judge.model}


def _calibration(judge: _ListedJudge) -> str:
    if judge.card is None:
        return "–"
    macro_f1 = judge.card["macro_f1"]
    return f"{macro_f1:.3f} on {judge.card['n']}" if isinstance(macro_f1, float) else f"undefined on {judge.card['n']}"
