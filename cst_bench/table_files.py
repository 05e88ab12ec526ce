"""Data files and Markdown tables, in which the authors of Configurable Safety Tuning released their generations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cst_bench.errors import UserError
from cst_bench.escape import text_of
from cst_bench.files import SUFFIXES, Row, iter_rows

MARKDOWN = ".md"
RESPONSE_COLUMNS = ("prompt_id", "configuration", "prompt", "response", "system_prompt", "behaviour", "verdict")
"""Columns of the tables that `cst-bench report --generations` writes, whose cells are unescaped when read."""
_BAR = re.compile(r"(?<!\\)\|")
_PADDING = " \t"
_RULE = re.compile(r":?-+:?")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


def read_any(path: Path) -> list[Row]:
    """Read all rows of a data file, or of a Markdown file's table, by its suffix.

    Raises:
        UserError: as `iter_any`.
    """
    return list(iter_any(path))


def iter_any(path: Path) -> Iterator[Row]:
    """Yield the rows of a data file, or of a Markdown file's table, by its suffix; as `iter_rows` where it can.

    Raises:
        UserError: the file is missing, of an unknown kind, empty, or a row of it can't be read.
    """
    if path.suffix.lower() == MARKDOWN and path.is_file():
        yield from read_table(path)
        return
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        kinds = ", ".join((*SUFFIXES, MARKDOWN))
        raise UserError(f"{path}: can't tell how to read {path.suffix or 'a file without suffix'!r}: use {kinds}")
    yield from iter_rows(path)


def read_table(path: Path) -> list[Row]:
    """Read the rows of the first table in a Markdown file (header, rule, a line for each row); cells are text.

    An escaped bar is a bar, `<br>` a line break; tables of `cst-bench report --generations --show-text` are read as
    they were written.

    Raises:
        UserError: there is no table, it has no rows, or a row has another number of cells than the header.
    """
    try:
        lines = re.split(r"\r?\n", path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    start = next((at for at in range(1, len(lines)) if _is_rule(lines[at]) and "|" in lines[at - 1]), None)
    if start is None:
        raise UserError(f"{path}: has no Markdown table (a header line, then a line of dashes)")
    header = _cells(lines[start - 1])
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise UserError(f"{path}: column {twice[0]!r} is in the header twice")
    rows = []
    for number, line in enumerate(lines[start + 1 :], 1):
        if "|" not in line:
            break
        cells = _cells(line) if tuple(header) != RESPONSE_COLUMNS else [text_of(cell) for cell in _split(line)]
        if len(cells) != len(header):
            raise UserError(
                f"{path}, row {number}: has {len(cells)} cells and the header {len(header)}: write a bar inside a "
                r"cell as \|"
            )
        rows.append(Row(f"{path}, row {number}", dict(zip(header, cells, strict=True))))
    if not rows:
        raise UserError(f"{path}: the table has no rows")
    return rows


def _is_rule(line: str) -> bool:
    cells = _cells(line)
    return "|" in line and all(_RULE.fullmatch(cell) for cell in cells)


def _cells(line: str) -> list[str]:
    return [_BREAK.sub("\n", cell).replace("\\|", "|") for cell in _split(line)]


def _split(line: str) -> list[str]:
    inner = line.strip(_PADDING).removeprefix("|")
    inner = re.sub(r"(?<!\\)\|\Z", "", inner)
    return [cell.strip(_PADDING) for cell in _BAR.split(inner)]
