"""How pictures look, and how they are kept: the style of the house, names as labels, SVG and PNG with stable bytes."""

from __future__ import annotations

import io
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path

from cst_bench.escape import visible
from cst_bench.files import write_bytes, write_text

INK = "#0b4a8f"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which colour-blind readers can tell apart; without yellow, which is lost on white."""
_STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,
    "svg.hashsalt": "cst-bench",
    "svg.fonttype": "path",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
}
_LONGEST = 400
"""Characters of a name that anything shows."""


@contextmanager
def styled() -> Iterator[None]:
    """The style that a figure is both made and saved in, whatever matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def svg_text(figure: Figure, title: str | None = None) -> str:
    """A figure as the text of an SVG file: no date, letters as paths, the title as what a screen reader says."""
    held = io.BytesIO()
    metadata = {"Date": None, "Creator": None} | ({} if title is None else {"Title": printable(title)})
    figure.savefig(held, format="svg", metadata=metadata)
    return held.getvalue().decode()


def png_bytes(figure: Figure) -> bytes:
    """A figure as a PNG file, 150 dots to the inch."""
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=150, metadata={"Software": None})
    return held.getvalue()


def save(figure: Figure, path: Path) -> list[Path]:
    """Writes a figure beside `path` as SVG and PNG, each whole or not at all."""
    made = [path.with_name(f"{path.name}{suffix}") for suffix in (".svg", ".png")]
    write_text(made[0], svg_text(figure))
    write_bytes(made[1], png_bytes(figure))
    return made


def short(name: str, points: float, size: float = 9) -> str:
    """A name as a label that is no wider than some points: cut in the middle, where models' names differ least."""
    text = printable(name)
    if width(text, size) <= points:
        return text
    kept = bisect_left(range(1, len(text)), True, key=lambda kept: width(_cut(text, kept), size) > points)
    return _cut(text, max(kept, 1))


def _cut(text: str, kept: int) -> str:
    return f"{text[: kept - kept // 2].rstrip()}…{text[len(text) - kept // 2 :].lstrip()}"


def printable(name: str) -> str:
    """A name on one line; characters that do something or that the font lacks are shown by their number."""
    spaced = " ".join(name.split())
    if len(spaced) > _LONGEST:
        spaced = _cut(spaced, _LONGEST)
    return "".join(character if _drawn(character) else _number(character) for character in map(visible, spaced))


def width(text: str, size: float = 9) -> float:
    """Of a line of text, in points."""
    wide: float = text_to_path.get_text_width_height_descent(text, _font(size), ismath=False)[0]
    return wide


def _drawn(shown: str) -> bool:
    return len(shown) != 1 or bool(_face().get_char_index(ord(shown)))


def _number(character: str) -> str:
    return f"\\u{ord(character):04x}"


@cache
def _face() -> Any:
    return get_font(findfont(_font(9)))


def _font(size: float) -> FontProperties:
    return FontProperties(family="DejaVu Sans", size=size)
