"""Read data files with row numbers, write files atomically, and hash both.

Rows come from jsonl, json, csv, tsv or parquet. A bad row is a `UserError` with file and row number.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import re
import secrets
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cst_bench.errors import UserError, did_you_mean

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a write without room: disk full, quota exceeded, file size limit exceeded."""
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
MAX_BYTES = 2**30
"""Most bytes of a file that is read, also when it is uncompressed."""
MAX_LINE = 2**25
"""Most characters of a row of text."""
MAX_DEPTH = 100
"""Most lists and objects of JSON inside of each other."""
_HALF = re.compile("[\ud800-\udfff]")
_ADDRESS = re.compile(r"(file:|[A-Za-z][A-Za-z0-9+.-]+:[/\\])")


class Row(NamedTuple):
    """A row of a data file."""

    where: str
    """File and row number, for messages; 1 is the first row of data."""
    values: dict[str, object]
    """Column name → value."""


def read_rows(path: Path) -> list[Row]:
    """Read all rows of a data file; the suffix decides the format.

    Raises:
        UserError: as `iter_rows`.
    """
    return list(iter_rows(path))


def iter_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a data file; the suffix decides the format. Of a jsonl file, one row is in memory at a time.

    Raises:
        UserError: the file is missing, has an unknown format, is empty, or has a row that cannot be read.
    """
    if not path.is_file():
        raise UserError(f"data file not found: {path}")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: unknown format {path.suffix!r}: use a file that ends in one of {', '.join(SUFFIXES)}")
    rows = _readers[path.suffix.lower()](path)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path}: the data file has no rows")
    yield first
    yield from rows


def _read_jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), 1):
        if len(line) > MAX_LINE:
            raise UserError(f"{path}, row {number}: longer than {MAX_LINE:,} characters: split or shorten it")
        if line.strip():
            yield as_row(f"{path}, row {number}", parse_json(f"{path}, row {number}", line))


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file as `read_text` reads it; `splitlines()` would split inside of JSON strings, too.

    Raises:
        UserError: as `read_text`.
    """
    start, encoding = 0, "utf-8-sig"
    with _readable(path), path.open("rb") as file:
        for line in file:
            try:
                yield line.removesuffix(b"\n").decode(encoding)
            except UnicodeDecodeError as error:
                raise UserError(f"{path}: not UTF-8 text (byte {start + error.start})") from None
            start, encoding = start + len(line), "utf-8"


def _read_json(path: Path) -> Iterator[Row]:
    data = read_json(path)
    if not isinstance(data, list):
        raise UserError(f"{path}: must hold a list of rows, not {type(data).__name__}")
    for number, value in enumerate(data, 1):
        yield as_row(f"{path}, row {number}", value)


def _read_csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE)  # a response may be longer than the 131,072 characters that the module allows
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter, strict=True)
    number = 0
    try:
        header = reader.fieldnames or []
        repeated = [name for name in header if header.count(name) > 1]
        if repeated:
            raise UserError(f"{path}: column {repeated[0]!r} is in the header twice")
        for number, values in enumerate(reader, 1):
            if None in values or None in values.values():
                comparison = "more" if None in values else "fewer"
                raise UserError(f"{path}, row {number}: has {comparison} fields than the header")
            yield Row(f"{path}, row {number}", dict(values))
    except csv.Error as error:
        raise UserError(f"{path}, row {number + 1}: not valid {path.suffix[1:].upper()}: {error}") from None


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        groups = pyarrow.parquet.ParquetFile(path).metadata
        size = sum(groups.row_group(index).total_byte_size for index in range(groups.num_row_groups))
        if max(size, groups.num_rows) > MAX_BYTES:
            raise UserError(f"{path}: {size:,} bytes when uncompressed, more than {MAX_BYTES:,}: split it")
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable parquet file: {' '.join(str(error).split())}") from None
    for number, values in enumerate(rows, 1):
        yield Row(f"{path}, row {number}", values)


_readers = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}


def read_json(path: Path, *, halves: bool = False) -> object:
    """Read a JSON file; `halves` as for `parse_json`.

    Raises:
        UserError: the file cannot be read, is not UTF-8 text, or as `parse_json`.
    """
    return parse_json(str(path), read_text(path), halves=halves)


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without a byte order mark.

    Raises:
        UserError: the file cannot be read, is a pipe or device, is too large, or is not UTF-8 text.
    """
    with _readable(path):
        try:
            return path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Read a file in the block.

    Raises:
        UserError: it is a pipe or device, is too large, or cannot be read.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe has no end until somebody writes to it
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "not an ordinary file"
            raise UserError(f"{path}: could not be read: it is {kind}")
        if found.st_size > MAX_BYTES:
            raise UserError(f"{path}: {found.st_size:,} bytes, more than {MAX_BYTES:,}: split it")
        yield
    except OSError as error:
        raise UserError(f"{path}: could not be read: {error.strerror}") from None


def parse_json(where: str, text: str, *, halves: bool = False) -> object:
    """Parse JSON; `where` names it in messages, `halves` allows halves of characters, as other tools cut them.

    Raises:
        UserError: the text is not JSON, is nested too deeply, or spells half of a character (a lone surrogate).
    """
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets in brackets
        raise UserError(f"{where}: JSON that could not be read: {error}") from None
    may_be_deep = text.count("[") + text.count("{") > MAX_DEPTH
    if may_be_deep or "\\ud" in text or "\\uD" in text:
        _check_json(where, value, halves)
    return value


def _check_json(where: str, value: object, halves: bool) -> None:
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if not halves and isinstance(item, str) and has_half_character(item):
            raise UserError(f"{where}: holds half of a character (a lone surrogate)")
        if depth > MAX_DEPTH and isinstance(item, (dict, list)):
            raise UserError(f"{where}: JSON that could not be read: nested more than {MAX_DEPTH} deep")
        if isinstance(item, dict):
            waiting += [(key, depth) for key in item]
        inner: Iterable[object] = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        waiting += [(part, depth + 1) for part in inner]


def has_half_character(text: str) -> bool:
    """Return whether a text has a lone surrogate, which cannot be written as UTF-8."""
    return not text.isascii() and _HALF.search(text) is not None


def as_row(where: str, value: object) -> Row:
    """Return a JSON object as a row.

    Raises:
        UserError: the value is not an object.
    """
    if not isinstance(value, dict):
        raise UserError(f"{where}: must be an object with named columns, not {type(value).__name__}")
    return Row(where, value)


def text_column(row: Row, column: str) -> str:
    """Return the non-empty text in a column of a row.

    Raises:
        UserError: the row has no such column (the message names the nearest), or the column holds no text.
    """
    if column not in row.values:
        raise UserError(f"{row.where}: no column {column!r}: {did_you_mean(column, map(str, row.values))}")
    value = row.values[column]
    if not isinstance(value, str):
        raise UserError(f"{row.where}: column {column!r} must be text, not {type(value).__name__}")
    if not value.strip():
        raise UserError(f"{row.where}: column {column!r} is empty")
    if has_half_character(value):
        raise UserError(f"{row.where}: column {column!r} holds half of a character (a lone surrogate)")
    return value


def prompt_hash(text: str) -> str:
    """Return 16 hex digits that identify a prompt regardless of case, spacing and Unicode form.

    Splits are compared by it, so that a test prompt with other spacing is still kept out of training.
    """
    # Unicode's compatibility caseless matching (definition D146): folding can undo a form, and a form undo folding
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text).casefold()).casefold()
    normal = " ".join(unicodedata.normalize("NFKC", folded).split())
    return hashlib.sha256(normal.encode()).hexdigest()[:16]


def digest(value: object) -> str:
    """Return the SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_list(values: Iterable[object]) -> str:
    """Return the `digest` of a list of these JSON values, one of which is in memory at a time."""
    total = hashlib.sha256(b"[")
    for at, value in enumerate(values):
        total.update(f"{',' if at else ''}{canonical_json(value)}".encode())
    total.update(b"]")
    return total.hexdigest()


def canonical_json(value: object) -> str:
    """Format a JSON value in canonical form, so that equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def file_digest(paths: Iterable[Path]) -> str:
    """Return the SHA-256 over the contents of files, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        content = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                content.update(chunk)
        total.update(content.digest())
    return total.hexdigest()


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 of all files in a folder, with their names."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return digest([[str(file.relative_to(folder)), file_digest([file])] for file in files])


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary file beside it that is then renamed.

    Raises:
        UserError: the path is an address, such as `s3://bucket/file`.
    """
    require_local(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = (
        path.parent / f".{secrets.token_hex(8)}.tmp"
    )  # short: the file's own name may be as long as names can be
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def require_local(path: Path) -> None:
    """Check that a path to write to is one of the file system.

    Raises:
        UserError: it is an address (`file:…`, `s3://…`), or holds a line end or half of a character.
    """
    text = str(path)
    if _ADDRESS.match(text):
        raise UserError(f"{text} is an address, and only folders of the file system can be written to: give a path")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise UserError(f"{text!r}: the path holds a control character or half of a character: give another")


def user_cache_folder() -> Path:
    """Return the user's cache folder: `$CST_BENCH_CACHE`, else `cst-bench` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if folder := os.environ.get("CST_BENCH_CACHE"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "cst-bench"
    try:
        return Path.home() / ".cache" / "cst-bench"
    except RuntimeError:
        raise UserError("no home folder is known: set HOME, or CST_BENCH_CACHE to a folder for caches") from None


def slug(name: str) -> str:
    """Convert a name to one that is safe as part of a file or folder name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "checkpoint"


def free_name(wanted: str, taken: Set[str]) -> str:
    """Return a name that is not taken: the second of a name is numbered 2."""
    names = [wanted, *(f"{wanted}-{number}" for number in range(2, len(taken) + 2))]
    return next(name for name in names if name not in taken)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write a JSON file atomically, keys in the order of `value`; None is null, and NaN raises ValueError."""
    write_text(path, json_text(value))


def json_text(value: object) -> str:
    """Format a JSON file for readers: indented, keys in the order of `value`; NaN raises ValueError."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    """Write a jsonl file atomically, a row per line."""
    write_text(path, jsonl_text(rows))


def jsonl_text(rows: Iterable[object]) -> str:
    """Format rows as jsonl."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
