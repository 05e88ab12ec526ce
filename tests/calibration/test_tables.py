"""Markdown tables as rows: whatever the cells hold, and faults that are named."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cst_bench.errors import UserError
from cst_bench.table_files import read_any, read_table

CELL = st.text(st.characters(exclude_characters="\r\\<", exclude_categories=["Cs"]), max_size=30)


def table(header: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|").replace("\n", "<br>") for cell in cells) + " |\n"

    return line(header) + "|" + "---|" * len(header) + "\n" + "".join(map(line, rows))


@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5))
def test_cells_come_back_as_they_were_but_for_their_padding(rows: list[tuple[str, str]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.md"
        path.write_text(table(["prompt", "response"], [list(row) for row in rows]), encoding="utf-8", newline="")
        read = [(row.values["prompt"], row.values["response"]) for row in read_table(path)]
    assert read == [tuple(cell.strip(" \t") for cell in row) for row in rows]


@given(st.text(max_size=200))
def test_any_text_is_a_table_or_one_clear_error(text: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.md"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        with suppress(UserError):  # anything else is a bug
            assert read_any(path)


def test_text_around_the_table_and_windows_line_ends_don_t_matter(tmp_path: Path) -> None:
    path = tmp_path / "t.md"
    text = "# Generations\n\nSome | words.\n\nprompt | response\n:-- | --:\na | b\n\nafter | it\n"
    path.write_bytes(text.replace("\n", "\r\n").encode())
    (row,) = read_table(path)
    assert row.values == {"prompt": "a", "response": "b"}
    assert row.where == f"{path}, row 1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no table here\n", "has no Markdown table"),
        ("| a | b |\n|---|---|\n", "the table has no rows"),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n| 1 | 2 | 3 |\n", r"row 2: has 3 cells and the header 2: write a bar"),
        ("| a | a |\n|---|---|\n| 1 | 2 |\n", "column 'a' is in the header twice"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t.md"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_table(path)


def test_an_unknown_kind_of_file_lists_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "t.xlsx"
    path.write_text("x")
    with pytest.raises(UserError, match=r"'\.xlsx': use .*\.parquet, \.md"):
        read_any(path)
