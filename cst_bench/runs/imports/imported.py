"""Result of every reader of another tool's log, and the checks that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cst_bench.errors import UserError
from cst_bench.files import Row, as_row, iter_rows, read_json

ERROR = "the log has an error instead of a response"
FILTERED = "the response was held back by a content filter"
MISSING = "the log has no response"
NOT_TEXT = "the prompt or the response is not text"
PROMPT, RESPONSE, SYSTEM = "prompt", "response", "system"
COLUMNS: Mapping[str, tuple[str, ...]] = {
    PROMPT: (PROMPT,),
    RESPONSE: (RESPONSE,),
    SYSTEM: (SYSTEM,),
    "configuration": (),
    "label": (),
}
"""Columns of an imported row. A log's own fields may be called `label` or `configuration` and mean something else, so
they are read as such only where the user names them."""
USUAL_PROMPTS = ("prompt", "question", "instruction", "query", "input")
"""Names under which data sets keep the user's text, where a log has only the rendered prompt beside their fields."""


@dataclass(frozen=True)
class ImportedResponse:
    """A response in a log of another tool."""

    where: str
    """File and place in it, for messages."""
    prompt: str | None
    """Text of the user; None if the log has only a rendered prompt, so that the user must name a field."""
    response: str = ""
    """Text of the model; empty for one that is unscored."""
    system: str | None = None
    """System prompt; None without one."""
    model: str | None = None
    """Name of the model; None if the log does not name it."""
    unscored: str | None = None
    """Why there is nothing to judge; None if there is a response."""
    stop_reason: str | None = None
    """Inspect's stop reason; None if unknown."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Other texts of the row, which a judge may read and `--column` may name."""
    user_turns: int = 1
    """Turns of the user before the response; the judge is shown the last."""

    @property
    def row(self) -> Row:
        """Return the response as a row of a data file with the columns `COLUMNS`."""
        own = {PROMPT: self.prompt, RESPONSE: self.response, SYSTEM: self.system}
        known = {name: text for name, text in own.items() if text is not None}
        fields = {name: text for name, text in self.fields.items() if name != SYSTEM or text.strip()}
        return Row(self.where, {**fields, **known})


@dataclass(frozen=True)
class ImportedLog:
    """The responses of a log, in its order."""

    kind: str
    """Name of the kind of file, as in "an Inspect log"."""
    responses: Sequence[ImportedResponse]
    notes: tuple[str, ...] = ()
    """Sentences on the rows that were left out, and why."""


@dataclass(frozen=True)
class Document:
    """A file that may be a log: its rows, or the JSON value that is not a list of rows."""

    path: Path
    rows: Sequence[Row] = ()
    value: object = None

    @property
    def first(self) -> Mapping[str, object]:
        """Return the first row; empty without rows."""
        return self.rows[0].values if self.rows else {}


def read_document(path: Path, *, first_row: bool = False) -> Document:
    """Read a JSON, jsonl, CSV, TSV or parquet file; with `first_row` no more of one that is read row by row.

    Raises:
        UserError: the file can't be read, or it is damaged.
    """
    if path.suffix.lower() != ".json":
        return Document(path, list(islice(iter_rows(path), 1 if first_row else None)))
    value = read_json(path, halves=True)
    if isinstance(value, list) and value:
        return Document(path, [as_row(f"{path}, row {number}", item) for number, item in enumerate(value, 1)])
    return Document(path, value=value)


class Entry(BaseModel):
    """Part of a log, with the keys that are read; other keys are ignored, since tools add some with each version."""

    model_config = ConfigDict(extra="ignore", frozen=True)


EntryT = TypeVar("EntryT", bound=Entry)


def parse(schema: type[EntryT], value: object, where: str, kind: str) -> EntryT:
    """Return a part of a log, checked.

    Raises:
        UserError: a key is missing or holds a value of another type; the value is not repeated.
    """
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(map(str, fault["loc"])) or "its value"
        raise UserError(f"{where}: not {kind} as documented: {key}: {fault['msg']}") from None


def texts(values: Mapping[str, object]) -> dict[str, str]:
    """Return the values that are text."""
    return {name: value for name, value in values.items() if isinstance(value, str)}


def own_prompt(fields: Mapping[str, str], rendered: str) -> str | None:
    """Return the field with a usual name for the user's text that is part of a rendered prompt; None without one."""
    return next(
        (fields[name] for name in USUAL_PROMPTS if fields.get(name, "").strip() and fields[name] in rendered), None
    )


def printable(text: str) -> str:
    """Return a name from a log on one line, without control characters."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def joined(parts: Iterable[str]) -> str | None:
    """Return system messages as one text; None without any."""
    return "\n\n".join(part for part in parts if part.strip()) or None
