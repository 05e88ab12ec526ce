"""Matplotlib style, labels that fit, and SVG and PNG files with reproducible bytes."""

from __future__ import annotations

import io
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import FT2Font
from matplotlib.textpath import text_to_path

from cst_bench.escape import visible
from cst_bench.files import write_bytes, write_text

INK = "#0b4a8f"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, distinguishable for colour-blind readers; without yellow, which is invisible on white."""
_STYLE: Mapping[str, object] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,
    "svg.hashsalt": "cst-bench",
    "svg.fonttype": "path",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
}
_MAX_LENGTH = 400
"""Longest name in characters; longer ones are shortened in the middle."""


@contextmanager
def styled() -> Iterator[None]:
    """Apply the project's style, whatever matplotlibrc says; make and save figures inside."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def svg_text(figure: Figure, title: str | None = None) -> str:
    """Return a figure as the text of an SVG file: no date, letters as paths, the title for screen readers."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} | ({} if title is None else {"Title": printable(title)})
    figure.savefig(buffer, format="svg", metadata=metadata)
    return buffer.getvalue().decode()


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file, 150 dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure atomically to `path` + `.svg` and `path` + `.png`; return both paths."""
    svg, png = (path.with_name(f"{path.name}{suffix}") for suffix in (".svg", ".png"))
    write_text(svg, svg_text(figure))
    write_bytes(png, png_bytes(figure))
    return [svg, png]


def short(name: str, points: float, size: float = 9) -> str:
    """Return a name as a label at most `points` wide, cut in the middle, where models' names differ least."""
    text = printable(name)
    if width(text, size) <= points:
        return text
    length = bisect_left(range(1, len(text)), True, key=lambda length: width(_cut(text, length), size) > points)
    return _cut(text, max(length, 1))


def _cut(text: str, length: int) -> str:
    return f"{text[: length - length // 2].rstrip()}…{text[len(text) - length // 2 :].lstrip()}"


def printable(name: str) -> str:
    """Return a name on one line, with control characters and those missing from the font as code points."""
    spaced = " ".join(name.split())
    if len(spaced) > _MAX_LENGTH:
        spaced = _cut(spaced, _MAX_LENGTH)
    return "".join(text if _in_font(text) else f"\\u{ord(text):04x}" for text in map(visible, spaced))


def width(text: str, size: float = 9) -> float:
    """Return the width of a line of text in points."""
    points: float = text_to_path.get_text_width_height_descent(text, _font(size), ismath=False)[0]
    return points


def _in_font(text: str) -> bool:
    return len(text) != 1 or bool(_face().get_char_index(ord(text)))


@cache
def _face() -> FT2Font:
    return get_font(findfont(_font(9)))


def _font(size: float) -> FontProperties:
    return FontProperties(family="DejaVu Sans", size=size)
