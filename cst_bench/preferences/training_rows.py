"""Training rows: a prompt under a configuration, a response it asks for, and a response it does not ask for.

On disk a row has TRL's conversational form and two columns for its origin:
`{"prompt": [system, user], "chosen": [assistant], "rejected": [assistant], "task": …, "configuration": …}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cst_bench.checkpoint.chat import conversation
from cst_bench.columns import Columns
from cst_bench.compliance.data import load_hub_rows
from cst_bench.errors import UserError
from cst_bench.files import SUFFIXES, Row, digest, read_rows, text_column, write_jsonl

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "system": ("system", "system_prompt"),
    "prompt": ("prompt", "question", "instruction"),
    "chosen": ("chosen", "chosen_response"),
    "rejected": ("rejected", "rejected_response"),
    "task": ("task",),
    "configuration": ("configuration",),
}
"""Column → its usual names in files; the first one that a row has is used."""
_OPTIONAL = {"system", "task", "configuration"}


@dataclass(frozen=True)
class TrainingRow:
    """A preference: under this system prompt, for this user prompt, `chosen` over `rejected`."""

    system: str | None
    prompt: str
    chosen: str
    rejected: str
    task: str
    configuration: str | None = None

    def as_json(self) -> dict[str, object]:
        """Return the row in TRL's conversational form, as in a file."""
        return {
            "prompt": conversation(self.system, self.prompt),
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
            "task": self.task,
            "configuration": self.configuration,
        }


def write_training_rows(path: Path, rows: Iterable[TrainingRow]) -> None:
    """Write rows as jsonl, whole or not at all."""
    write_jsonl(path, (row.as_json() for row in rows))


def rows_digest(rows: Iterable[TrainingRow]) -> str:
    """Return the SHA-256 of rows in their order."""
    return digest([row.as_json() for row in rows])


def read_training_rows(
    path: Path, columns: Mapping[str, str] | None = None, *, task: str | None = None
) -> list[TrainingRow]:
    """Read training rows: conversational, or flat with system, prompt, chosen and rejected as text.

    Args:
        path: jsonl, json, csv, tsv or parquet.
        columns: Column → its name in the file, where it is not one of the usual names.
        task: Task of rows without one; the file's name by default.

    Raises:
        UserError: a column is missing or empty, a role is wrong, or both responses are equal; names the row.
    """
    return parse_rows(read_rows(path), columns or {}, task or path.stem)


def read_source(name: str) -> list[Row]:
    """Read the rows of a file, or of a data set on the Hub.

    Raises:
        UserError: it could not be read.
    """
    path = Path(name).expanduser()
    if path.is_file() or path.suffix.lower() in SUFFIXES or name.count("/") != 1:
        return read_rows(path)
    return load_hub_rows(name, "give a local file")


def parse_rows(rows: Sequence[Row], columns: Mapping[str, str], task: str) -> list[TrainingRow]:
    """Parse training rows from the rows of a file; as `read_training_rows`."""
    known = Columns(COLUMNS, columns)
    return [_parse_row(row, known, task) for row in rows]


def _parse_row(row: Row, columns: Columns, task: str) -> TrainingRow:
    names = {name: columns.find(row, name) if name in _OPTIONAL else columns.need(row, name) for name in COLUMNS}
    prompt_column = str(names["prompt"])
    if isinstance(row.values.get(prompt_column), list):
        system, prompt = _conversation(row, prompt_column)
    else:
        system = _optional(row, names["system"])
        prompt = text_column(row, prompt_column)
    chosen, rejected = (_answer(row, str(names[name])) for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise UserError(f"{row.where}: chosen and rejected are the same text: there is nothing to prefer")
    task = _optional(row, names["task"]) or task
    return TrainingRow(system, prompt, chosen, rejected, task, _optional(row, names["configuration"]))


def _optional(row: Row, column: str | None) -> str | None:
    if column is None or row.values.get(column) in (None, ""):
        return None
    return text_column(row, column)


def _conversation(row: Row, column: str) -> tuple[str | None, str]:
    """Return the system prompt and the user prompt of a list of messages: `[user]` or `[system, user]`."""
    messages = _messages(row, column)
    roles = [role for role, _ in messages]
    if roles not in (["user"], ["system", "user"]):
        raise UserError(
            f"{row.where}: column {column!r} has the roles {', '.join(roles) or 'none'}: "
            "must be system and user, or user"
        )
    return (messages[0][1] if len(messages) == 2 else None), messages[-1][1]


def _answer(row: Row, column: str) -> str:
    """Return a response: text, or a list of one assistant message."""
    if not isinstance(row.values.get(column), list):
        return text_column(row, column)
    messages = _messages(row, column)
    if [role for role, _ in messages] != ["assistant"]:
        raise UserError(
            f"{row.where}: column {column!r} has the roles {', '.join(role for role, _ in messages) or 'none'}: "
            "must be one assistant message"
        )
    return messages[0][1]


def _messages(row: Row, column: str) -> list[tuple[str, str]]:
    """Return role and content of each message in a column."""
    messages = row.values[column]
    assert isinstance(messages, list)  # the callers have checked it
    for message in messages:
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise UserError(f"{row.where}: column {column!r} must hold messages with role and content")
    return [(str(message["role"]), text_column(Row(row.where, dict(message)), "content")) for message in messages]
