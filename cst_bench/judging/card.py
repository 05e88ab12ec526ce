"""Calibration cards: finding the one that is a judge's, and what scores keep of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cst_bench.content import content_root
from cst_bench.errors import UserError
from cst_bench.files import digest
from cst_bench.record import CalibrationSummary, ConfusionCounts

SCHEMA = 1
SHIPPED = "judges/cards"
OWN = Path("calibrations")
"""Where `cst-bench judge calibrate` writes, a folder for each judge and label set; relative to where it is called."""


def read_card(path: Path) -> dict[str, Any]:
    """A card from its file.

    Raises:
        UserError: the file is no calibration card.
    """
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema, _ = card["schema"], (card["judge"]["sha256"], card["macro_f1"], card["labels"], card["behaviours"])
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is no calibration card: `cst-bench judge calibrate` writes one") from None
    if schema != SCHEMA:
        raise UserError(f"{path} has the schema {schema!r}, and this cst-bench reads {SCHEMA}: calibrate again")
    return card


def find_card(identity: str, judge_file: Path | None = None) -> dict[str, Any] | None:
    """The card of the judge with this SHA-256.

    Looked for beside the judge's file, then in `calibrations/` of the working directory, then among the shipped ones:
    who calibrated a judge on labels of their own means those. Of several in one place it is the one on most labels.
    """
    for cards in _cards(judge_file):
        found = _best(card for card in cards if card["judge"]["sha256"] == identity)
        if found is not None:
            return found
    return None


def find_card_by_name(name: str, version: int) -> dict[str, Any] | None:
    """The card on most labels of a judge of this name and version, whatever model it asked."""
    for cards in _cards(None):
        found = _best(
            card for card in cards if (card["judge"]["name"], card["judge"].get("version")) == (name, version)
        )
        if found is not None:
            return found
    return None


def _best(cards: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    return min(cards, key=lambda card: (-card["n"], card["labels"]["name"]), default=None)


def _cards(judge_file: Path | None) -> Iterator[list[dict[str, Any]]]:
    """The cards of each place, the nearest first."""
    if judge_file is not None and (judge_file.parent / "calibration" / "card.json").is_file():
        yield [read_card(judge_file.parent / "calibration" / "card.json")]
    yield [read_card(path) for path in sorted(OWN.glob("*/card.json"))]
    yield [read_card(path) for path in sorted((content_root() / SHIPPED).glob("*.json"))]


def card_summary(card: Mapping[str, Any]) -> CalibrationSummary:
    """Return what `scores.json` keeps of a card."""
    return CalibrationSummary(
        macro_f1=card["macro_f1"]["value"],
        interval=card["macro_f1"]["interval"],
        n=card["n"],
        labels=card["labels"]["name"],
        by=tuple(card["labels"]["by"]),
        sha256=digest(card),
        counts={name: ConfusionCounts(**metrics["counts"]) for name, metrics in card["behaviours"].items()},
    )


def calibrated(summary: CalibrationSummary | None, min_f1: float) -> bool:
    """Return whether a judge has a card whose macro F1 reaches a minimum."""
    return summary is not None and summary.macro_f1 is not None and summary.macro_f1 >= min_f1
