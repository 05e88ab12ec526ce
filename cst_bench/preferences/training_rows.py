"""Training rows: a prompt under a configuration, the response it asks for, and one that it doesn't.

On disk a row is TRL's conversational form with two columns that say where it comes from:
`{"prompt": [system, user], "chosen": [assistant], "rejected": [assistant], "task": …, "configuration": …}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cst_bench.columns import Columns
from cst_bench.errors import UserError
from cst_bench.files import Row, digest, read_rows, text_column, write_text

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "system": ("system", "system_prompt"),
    "prompt": ("prompt", "question", "instruction"),
    "chosen": ("chosen", "chosen_response"),
    "rejected": ("rejected", "rejected_response"),
    "task": ("task",),
    "configuration": ("configuration",),
}
"""What each column may be called in files of other projects; the first that is there is taken."""
_OPTIONAL = {"system", "task", "configuration"}


@dataclass(frozen=True)
class TrainingRow:
    """One preference: under this system prompt, for this user prompt, `chosen` rather than `rejected`."""

    system: str | None
    prompt: str
    chosen: str
    rejected: str
    task: str
    configuration: str | None = None

    def messages(self) -> dict[str, Any]:
        """The row as it stands in a file and as TRL takes it."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return {
            "prompt": [*system, {"role": "user", "content": self.prompt}],
            "chosen": [{"role": "assistant", "content": self.chosen}],
            "rejected": [{"role": "assistant", "content": self.rejected}],
            "task": self.task,
            "configuration": self.configuration,
        }


def write_training_rows(path: Path, rows: Iterable[TrainingRow]) -> None:
    """Writes rows as jsonl, whole or not at all."""
    write_text(path, "".join(f"{json.dumps(row.messages(), ensure_ascii=False)}\n" for row in rows))


def rows_digest(rows: Iterable[TrainingRow]) -> str:
    """SHA-256 of rows in their order."""
    return digest([row.messages() for row in rows])


def read_training_rows(
    path: Path, columns: Mapping[str, str] | None = None, *, task: str | None = None
) -> list[TrainingRow]:
    """Training rows from a data file: conversational, or flat with system, prompt, chosen and rejected as text.

    Args:
        path: jsonl, json, csv, tsv or parquet.
        columns: What the file calls a column, where it isn't one of the usual names.
        task: For a file that has no task column; its name by default.

    Raises:
        UserError: a column is missing or empty, a role is wrong, or both responses are the same; with the row.
    """
    return parse_rows(read_rows(path), columns or {}, task or path.stem)


def parse_rows(found: Sequence[Row], columns: Mapping[str, str], task: str) -> list[TrainingRow]:
    """Training rows from rows that are read already."""
    named = Columns(COLUMNS, columns)
    return [_row(row, named, task) for row in found]


def _row(row: Row, columns: Columns, task: str) -> TrainingRow:
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
    named = _optional(row, names["task"])
    return TrainingRow(system, prompt, chosen, rejected, named or task, _optional(row, names["configuration"]))


def _optional(row: Row, column: str | None) -> str | None:
    if column is None or row.values.get(column) in (None, ""):
        return None
    return text_column(row, column)


def _conversation(row: Row, column: str) -> tuple[str | None, str]:
    """System prompt and user prompt of a list of messages: `[user]` or `[system, user]`."""
    texts = _messages(row, column)
    roles = [role for role, _ in texts]
    if roles not in (["user"], ["system", "user"]):
        raise UserError(
            f"{row.where}: column {column!r} has the roles {', '.join(roles) or 'none'}: "
            "must be system and user, or user"
        )
    return (texts[0][1] if len(texts) == 2 else None), texts[-1][1]


def _answer(row: Row, column: str) -> str:
    """A response: text, or a list of one assistant message."""
    value = row.values.get(column)
    if not isinstance(value, list):
        return text_column(row, column)
    texts = _messages(row, column)
    if [role for role, _ in texts] != ["assistant"]:
        raise UserError(
            f"{row.where}: column {column!r} has the roles {', '.join(role for role, _ in texts) or 'none'}: "
            "must be one assistant message"
        )
    return texts[0][1]


def _messages(row: Row, column: str) -> list[tuple[str, str]]:
    found = []
    messages = row.values[column]
    assert isinstance(messages, Iterable)  # the callers have checked it
    for message in messages:
        if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
            raise UserError(f"{row.where}: column {column!r} must hold messages with role and content")
        found.append((str(message["role"]), text_column(Row(row.where, dict(message)), "content")))
    return found
