"""Preference pairs: a prompt and responses of known, different behaviour.

A row of a pairs file is `{"prompt": str, "responses": {behaviour: str, …}, "meta": {…}}`. Files of training rows, such
as the released ones, can be read as pairs too: the behaviour of a response follows from its row's system prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cst_bench.compliance.compliance_task import ComplianceTask
from cst_bench.errors import UserError
from cst_bench.files import Row, text_column, write_jsonl
from cst_bench.preferences.training_rows import parse_rows, read_source


@dataclass(frozen=True)
class PreferencePair:
    """A prompt and its responses by behaviour."""

    prompt: str
    responses: Mapping[str, str]
    """Behaviour → response."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Origin of the pair; `meta["row"]` has the columns of the prompt's row, such as a persona's system prompt."""

    @property
    def row(self) -> Mapping[str, str]:
        """Return the columns of the prompt's row."""
        row: Mapping[str, str] = self.meta.get("row", {})
        return row

    def as_json(self) -> dict[str, object]:
        """Return the pair as a row of a pairs file."""
        return {"prompt": self.prompt, "responses": dict(self.responses), "meta": dict(self.meta)}


def write_pairs(path: Path, pairs: Iterable[PreferencePair]) -> None:
    """Write pairs as jsonl, whole or not at all."""
    write_jsonl(path, (pair.as_json() for pair in pairs))


def read_pairs(path: Path, task: ComplianceTask, columns: Mapping[str, str] | None = None) -> list[PreferencePair]:
    """Read the pairs of a task from a file, or a data set on the Hub, of pairs or of training rows.

    Raises:
        UserError: as `parse_pairs`, or the file cannot be read.
    """
    return parse_pairs(read_source(str(path)), task, path, columns or {})


def are_pairs(rows: Sequence[Row]) -> bool:
    """Return whether the rows of a file are pairs and not training rows."""
    return "responses" in rows[0].values


def parse_pairs(
    rows: Sequence[Row], task: ComplianceTask, path: Path, columns: Mapping[str, str]
) -> list[PreferencePair]:
    """Parse the pairs of a task from the rows of a file of pairs or of training rows.

    Training rows are used if their system prompt is one of the task's; a row and its flip become one pair.

    Args:
        rows: At least one.
        task: Defines the behaviours and the system prompts that ask for them.
        path: The file, for messages and as the origin of the pairs.
        columns: Column → its name in a file of training rows, where it is not one of the usual names.

    Raises:
        UserError: a row is invalid, no row belongs to the task, or the task's behaviours are more than two.
    """
    if are_pairs(rows):
        return [_parse_pair(row) for row in rows]
    pairs: dict[tuple[str, ...], PreferencePair] = {}
    for row, training_row in zip(rows, parse_rows(rows, columns, path.stem), strict=True):
        configuration = None if training_row.system is None else task.configuration_of(training_row.system)
        if configuration is None:
            continue
        asked = task.asked[configuration]
        others = sorted(set(task.asked.values()) - {asked})
        if len(others) != 1:
            raise UserError(
                f"{row.where}: task {task.name} has the behaviours {', '.join(sorted(set(task.asked.values())))}, "
                "so the behaviour of a rejected response is ambiguous: give a file of pairs"
            )
        responses = {asked: training_row.chosen, others[0]: training_row.rejected}
        # a prompt may have several pairs; a row and its flip share both responses
        key = (training_row.prompt, *(responses[behaviour] for behaviour in sorted(responses)))
        pair = PreferencePair(training_row.prompt, dict(sorted(responses.items())), {"source": path.name})
        pairs.setdefault(key, pair)
    if not pairs:
        raise UserError(
            f"{path}: no row has a system prompt of task {task.name}: name another task, or give a file of pairs"
        )
    return list(pairs.values())


def _parse_pair(row: Row) -> PreferencePair:
    prompt = text_column(row, "prompt")
    responses = row.values.get("responses")
    if not isinstance(responses, dict) or len(responses) < 2:
        raise UserError(f"{row.where}: column 'responses' must hold two or more responses by behaviour")
    texts = {behaviour: text_column(Row(row.where, responses), behaviour) for behaviour in responses}
    if len(set(texts.values())) < len(texts):
        raise UserError(f"{row.where}: two behaviours have the same response: there is nothing to prefer")
    meta = row.values.get("meta") or {}
    if not isinstance(meta, dict):
        raise UserError(f"{row.where}: column 'meta' must be an object, not {type(meta).__name__}")
    columns = meta.get("row", {})
    if not isinstance(columns, dict) or not all(isinstance(text, str) for text in columns.values()):
        raise UserError(f"{row.where}: meta.row must be an object of texts")
    return PreferencePair(prompt, texts, meta)
