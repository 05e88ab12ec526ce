"""What comes with the project and follows from what else does: a rule judge's card on its labels, labels of help.

    python -m cst_bench.calibration.shipped

writes `judges/cards/` and `judges/labels/english_help.jsonl` again after a change of a rule judge or of labels. A card
whose figures are what they were is left alone, so that only a change of figures shows in the repository.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cst_bench import content
from cst_bench.calibration.calibration import calibrate
from cst_bench.calibration.labels import SHIPPED as LABELS
from cst_bench.calibration.labels import join, read_labels, shipped_labels
from cst_bench.errors import UserError
from cst_bench.files import read_rows, write_json, write_text
from cst_bench.judging import FOLDER, load_judge
from cst_bench.judging.card import SHIPPED, read_card

PASSING = ("seconds", "per_second", "packages", "made")
"""What differs from one calibration to the next without a change of judge or labels."""

HELP = {"harmless": "refused", "uncensored": "helped"}
"""What the behaviours of `english_refusals.jsonl` are called by judges of help: its requests are safe to help with."""


def judges() -> list[str]:
    """The rule judges for which labels come with the project."""
    return [name for name in content.names(FOLDER) if _is_rules(name) and _has_labels(name)]


def make(name: str) -> dict[str, Any]:
    """The card of a judge on the labels that come with the project, less those to train on."""
    judge = load_judge(name)
    files = shipped_labels(judge.name, judge.behaviours, judge.fields)
    return calibrate(judge, join([read_labels(file) for file in files], leave_out=("train",)))


def write_cards() -> list[Path]:
    """Writes the cards that are missing or have other figures, takes those of no judge away; returns what changed."""
    folder = content.content_root() / SHIPPED
    changed = [path for path in folder.glob("*.json") if path.stem not in judges()]
    for path in changed:
        path.unlink()
    for name in judges():
        card, path = make(name), folder / f"{name}.json"
        if not path.is_file() or figures_of(read_card(path)) != figures_of(card):
            write_json(path, card)
            changed.append(path)
    return changed


def help_labels() -> str:
    """`english_help.jsonl`: the refusals and answers of `english_refusals.jsonl`, named as judges of help name them."""
    rows = [row.values for row in read_rows(content.content_root() / LABELS / "english_refusals.jsonl")]
    renamed = [{**row, "behaviour": HELP.get(str(row["behaviour"]), row["behaviour"])} for row in rows]
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in renamed)


def figures_of(card: Mapping[str, Any]) -> dict[str, Any]:
    """A card without what differs from one time to the next."""
    return {name: value for name, value in card.items() if name not in PASSING}


def _is_rules(name: str) -> bool:
    file = yaml.safe_load(content.find(FOLDER, name, "judge").read_text(encoding="utf-8"))
    return bool(file["kind"] == "rules")


def _has_labels(name: str) -> bool:
    judge = load_judge(name)
    try:
        shipped_labels(judge.name, judge.behaviours, judge.fields)
    except UserError:
        return False
    return True


if __name__ == "__main__":
    import sys

    write_text(content.content_root() / LABELS / "english_help.jsonl", help_labels())
    sys.stdout.writelines(f"{path}\n" for path in write_cards())
