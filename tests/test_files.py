"""Data files: every format is read, a bad file is one message, and files are written atomically."""

from __future__ import annotations

import csv
import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cst_bench.errors import UserError
from cst_bench.files import (
    Row,
    canonical_json,
    digest,
    digest_list,
    file_digest,
    iter_rows,
    prompt_hash,
    read_json,
    read_rows,
    text_column,
    write_json,
    write_text,
)

ROWS: list[dict[str, object]] = [
    {"prompt": "one, two", "kind": "a"},
    {"prompt": 'a "quoted"\nline and\u2028separators\x85', "kind": "b"},
    {"prompt": "zwölf Boxkämpfer", "kind": "c" * 200_000},
]


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write rows in the format that the suffix names."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(list(rows)), encoding="utf-8")
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def fault(path: Path, text: str | bytes | None = None) -> str:
    """Return the error message for a file, without the file's name."""
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        read_rows(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message.removeprefix(str(path))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    path = write_rows(tmp_path / f"rows{suffix}", ROWS)
    assert read_rows(path) == [Row(f"{path}, row {n}", row) for n, row in enumerate(ROWS, 1)]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv"])
def test_a_byte_order_mark_and_windows_line_ends_are_no_fault(tmp_path: Path, suffix: str) -> None:
    rows = [{"prompt": "a b", "kind": "x"}, {"prompt": "c", "kind": "y"}]
    path = write_rows(tmp_path / f"rows{suffix}", rows)
    text = path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text)
    assert [row.values for row in read_rows(path)] == rows


def test_quoted_line_ends_in_csv_stay_in_their_cell(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'prompt,kind\r\n"first\r\nsecond",a\r\nthird,b\r\n')
    assert [row.values["prompt"] for row in read_rows(path)] == ["first\r\nsecond", "third"]


def test_suffix_in_capitals_is_known(tmp_path: Path) -> None:
    path = tmp_path / "ROWS.JSONL"
    path.write_text('{"prompt": "a"}\n\n')
    assert len(read_rows(path)) == 1


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data file not found"):
        read_rows(tmp_path / "rows.jsonl")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match="data file not found"):
        read_rows(tmp_path / "folder.json")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.txt", "a", ": unknown format '.txt'"),
        ("rows", "a", ": unknown format ''"),
        ("rows.jsonl", "", ": the data file has no rows"),
        ("rows.jsonl", "\n\n", ": the data file has no rows"),
        ("rows.json", "[]", ": the data file has no rows"),
        ("rows.csv", "prompt,kind\n", ": the data file has no rows"),
        ("rows.csv", "", ": the data file has no rows"),
        ("rows.json", "", ": not valid JSON"),
        ("rows.json", '{"prompt": "a"}', ": must hold a list of rows, not dict"),
        ("rows.json", '[{"prompt": "a"}, 5]', ", row 2: must be an object with named columns, not int"),
        ("rows.jsonl", '{"prompt": "a"}\n["a"]\n', ", row 2: must be an object with named columns, not list"),
        ("rows.jsonl", '{"prompt": "a"}\n{"prompt": \n', ", row 2: not valid JSON"),
        ("rows.jsonl", "[" * 100_000, ", row 1: JSON that could not be read"),
        ("rows.jsonl", '{"a": ' + "1" * 5000 + "}", ", row 1: JSON that could not be read"),
        ("rows.jsonl", "[" * 101 + "]" * 101, ", row 1: JSON that could not be read: nested more than 100 deep"),
        ("rows.json", "[" * 101 + "]" * 101, ": JSON that could not be read: nested more than 100 deep"),
        ("rows.jsonl", '{"a": ["\\ud800"]}', ", row 1: holds half of a character"),
        ("rows.jsonl", '{"\\uDC00": 1}', ", row 1: holds half of a character"),
        ("rows.jsonl", '"' + "x" * 2**25 + '"', ", row 1: longer than 33,554,432 characters"),
        ("rows.jsonl", b'{"prompt": "\xff"}', ": not UTF-8 text (byte 12)"),
        ("rows.csv", b"prompt\n\xff\n", ": not UTF-8 text (byte 7)"),
        ("rows.csv", "prompt,kind\na,b\nc\n", ", row 2: has fewer fields than the header"),
        ("rows.csv", "prompt,kind\na,b\nc,d,e\n", ", row 2: has more fields than the header"),
        ("rows.tsv", "prompt\tkind\na\n", ", row 1: has fewer fields than the header"),
        ("rows.csv", "prompt,prompt\na,b\n", ": column 'prompt' is in the header twice"),
        ("rows.csv", 'prompt\na\n"never closed\nb\n', ", row 2: not valid CSV"),
        ("rows.csv", 'prompt\n"a"b\n', ", row 1: not valid CSV"),
        ("rows.parquet", b"", ": not a readable parquet file"),
        ("rows.parquet", b"PAR1" + b"x" * 30 + b"PAR1", ": not a readable parquet file"),
    ],
)
def test_bad_file_is_one_message_with_its_place(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    assert fault(tmp_path / name, text).startswith(message)


@pytest.mark.parametrize("at", [100, -100])
def test_parquet_that_is_damaged_inside_is_one_message(tmp_path: Path, at: int) -> None:
    path = write_rows(tmp_path / "rows.parquet", [{"prompt": f"{n} words"} for n in range(1000)])
    content = bytearray(path.read_bytes())
    content[at : at + 60] = b"\xff" * 60
    assert fault(path, bytes(content)).startswith(": not a readable parquet file")


def test_wrong_column_gives_the_nearest() -> None:
    row = Row("f.jsonl, row 3", {"prompts": "a", "kind": "b"})
    with pytest.raises(UserError, match=r"^f\.jsonl, row 3: no column 'prompt': did you mean prompts\?$"):
        text_column(row, "prompt")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "must be text, not int"),
        (None, "must be text, not NoneType"),
        (["a"], "must be text, not list"),
        ("", "is empty"),
        (" \n\t", "is empty"),
        ("half \ud83d", "holds half of a character"),
    ],
)
def test_a_cell_without_text_is_refused_by_row(value: object, message: str) -> None:
    with pytest.raises(UserError, match=rf"^f, row 1: column 'prompt' {message}"):
        text_column(Row("f, row 1", {"prompt": value}), "prompt")


@given(st.text(st.characters(codec="utf-8")))
def test_prompt_hash_is_16_hex_digits(text: str) -> None:
    assert re.fullmatch("[0-9a-f]{16}", prompt_hash(text))


@given(st.lists(st.text(min_size=1), min_size=1), st.data())
def test_prompt_hash_does_not_see_spacing(words: list[str], data: st.DataObject) -> None:
    spaces = st.text(" \n\t\r\u00a0\u3000", min_size=1, max_size=3)
    spaced = "".join(data.draw(spaces) + word for word in words) + data.draw(spaces)
    assert prompt_hash(spaced) == prompt_hash(" ".join(words))


@given(st.text())
@example("\u0345\u0301")
@example("\u1fb3\u0301")
def test_prompt_hash_does_not_see_case(text: str) -> None:
    # folding is defined on decomposed text: `casefold` alone can swap accents
    assert prompt_hash(unicodedata.normalize("NFD", text).casefold()) == prompt_hash(text)


@given(st.text(st.characters(codec="latin-1")))
def test_prompt_hash_does_not_see_capitals(text: str) -> None:
    assert prompt_hash(text.lower()) == prompt_hash(text)


@given(st.text())
@example("\u0345\u0301")
def test_prompt_hash_does_not_see_the_unicode_form(text: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert prompt_hash(unicodedata.normalize(form, text)) == prompt_hash(text)


def test_prompt_hash_sees_the_words() -> None:
    assert prompt_hash("Open the box") != prompt_hash("Open the boxes")
    assert prompt_hash("  OPEN\nthe ｂｏｘ ") == prompt_hash("open the box") == "dd0ddf83c123f5a1"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_canonical_json_reads_back_and_knows_no_order(value: object) -> None:
    assert json.loads(canonical_json(value)) == value
    if isinstance(value, dict):
        assert digest(dict(reversed(value.items()))) == digest(value)


def test_file_digest_knows_no_order_and_sees_every_byte(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_bytes(b"a")
    second.write_bytes(b"b")
    before = file_digest([first, second])
    assert file_digest([second, first]) == before
    second.write_bytes(b"c")
    assert file_digest([first, second]) != before


def test_written_text_is_utf8_with_unix_line_ends_in_folders_that_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.md"
    write_text(path, "ä\nb\n")
    assert path.read_bytes() == "ä\nb\n".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["a.md"]


def test_json_keeps_the_order_of_keys_and_ends_with_a_line_end(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": None})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": 1,\n  "a": null\n}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": object()}, "half \ud83d"])
def test_a_value_that_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path: Path, value: object) -> None:
    path = tmp_path / "a.json"
    write_json(path, "old")
    with pytest.raises((ValueError, TypeError)):
        write_json(path, value)
    assert json.loads(path.read_text()) == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="no space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a.txt", "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="permissions are those of Unix")
def test_a_written_file_has_the_permissions_that_the_user_asks_for(tmp_path: Path) -> None:
    for mask, mode in ((0o077, 0o600), (0o022, 0o644)):
        before = os.umask(mask)
        try:
            write_text(tmp_path / "a.txt", "a")
        finally:
            os.umask(before)
        assert (tmp_path / "a.txt").stat().st_mode & 0o777 == mode


def test_a_file_whose_name_is_as_long_as_names_can_be_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("x" * 255), "a")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders")
def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(UserError, match="not an ordinary file"):
        read_json(tmp_path / "a.json")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(2**30 + 1)  # takes no room on the disk
    with pytest.raises(UserError, match="1,073,741,825 bytes, more than 1,073,741,824"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("path", ["s3://bucket/a.json", "file:/tmp/a.json", "file:a.json", "a\nb", "a\udc80"])
def test_what_is_no_path_is_not_written_to(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"address|control character"):
        write_text(Path(path), "a")
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.text() | st.integers() | st.lists(st.text(), max_size=3), max_size=5))
def test_the_digest_of_a_list_is_that_of_its_values_one_by_one(values: list[object]) -> None:
    assert digest_list(iter(values)) == digest(values)


def test_rows_of_jsonl_come_before_a_later_row_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"n": 1}\r\n\n{"n": 2}\n\xff')
    rows = iter_rows(path)
    assert [next(rows), next(rows)] == [Row(f"{path}, row 1", {"n": 1}), Row(f"{path}, row 3", {"n": 2})]
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 23\)"):
        next(rows)
