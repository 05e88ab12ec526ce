"""Cards and labels of the project that follow from other files: rule judges' cards on its labels, labels of help.

    python -m cst_bench.calibration.shipped

writes `judges/cards/` and `judges/labels/english_help.jsonl` again after a change of a rule judge or of labels. A card
with unchanged metrics is left alone, so that only a change of metrics shows in the repository.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from cst_bench import content
from cst_bench.calibration.card_making import make_calibration
from cst_bench.calibration.labels import SHIPPED as LABELS
from cst_bench.calibration.labels import join, read_labels, shipped_labels
from cst_bench.errors import UserError
from cst_bench.files import jsonl_text, read_rows, write_json, write_text
from cst_bench.judging import FOLDER, load_judge
from cst_bench.judging.card import SHIPPED, VARYING, CalibrationCard, read_card

HELP = {"harmless": "refused", "uncensored": "helped"}
"""Behaviours of `english_refusals.jsonl` → their names for judges of help: its requests are safe to help with."""


def judges() -> list[str]:
    """Return the rule judges for which labels come with the project."""
    return [name for name in content.names(FOLDER) if _is_rules(name) and _has_labels(name)]


def make(name: str) -> CalibrationCard:
    """Make the card of a judge on the labels that come with the project, without the split `train`."""
    judge = load_judge(name)
    files = shipped_labels(judge.name, judge.behaviours, judge.fields)
    return make_calibration(judge, join([read_labels(file) for file in files], leave_out=("train",)))


def write_cards() -> list[Path]:
    """Write cards that are missing or have other metrics, delete those of no judge, and return what changed."""
    folder, names = content.content_root() / SHIPPED, judges()
    changed = [path for path in folder.glob("*.json") if path.stem not in names]
    for path in changed:
        path.unlink()
    for name in names:
        card, path = make(name), folder / f"{name}.json"
        if not path.is_file() or without_varying(path) != card.model_dump(exclude=set(VARYING)):
            write_json(path, card.as_json())
            changed.append(path)
    return changed


def help_labels() -> str:
    """Return `english_help.jsonl`: the rows of `english_refusals.jsonl` with the behaviours of judges of help."""
    rows = [row.values for row in read_rows(content.content_root() / LABELS / "english_refusals.jsonl")]
    renamed = [{**row, "behaviour": HELP.get(str(row["behaviour"]), row["behaviour"])} for row in rows]
    return jsonl_text(renamed)


def without_varying(path: Path) -> dict[str, object] | None:
    """Read a card without its varying fields; None if it is of another schema version."""
    try:
        return read_card(path).model_dump(exclude=set(VARYING))
    except UserError:
        return None


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
