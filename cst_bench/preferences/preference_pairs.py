"""Preference pairs: a prompt and responses of known, different behaviour.

A row of a pairs file is `{"prompt": str, "responses": {behaviour: str, …}, "meta": {…}}`. Files of training rows, such
as the released ones, are read as pairs, too: what each system prompt asks for says which behaviour a response shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cst_bench.compliance.compliance_task import ComplianceTask
from cst_bench.errors import UserError
from cst_bench.files import Row, read_rows, text_column, write_text
from cst_bench.preferences.training_rows import parse_rows


@dataclass(frozen=True)
class Pair:
    """A prompt and its responses by behaviour."""

    prompt: str
    responses: Mapping[str, str]
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Where it comes from; `meta["row"]` has the columns of the prompt's own row, such as a persona's system prompt."""

    @property
    def row(self) -> Mapping[str, str]:
        """Columns of the prompt's own row."""
        found: Mapping[str, str] = self.meta.get("row", {})
        return found

    def as_json(self) -> dict[str, Any]:
        """The pair as it stands in a file."""
        return {"prompt": self.prompt, "responses": dict(self.responses), "meta": dict(self.meta)}


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Writes pairs as jsonl, whole or not at all."""
    write_text(path, "".join(f"{json.dumps(pair.as_json(), ensure_ascii=False)}\n" for pair in pairs))


def read_pairs(path: Path, task: ComplianceTask, columns: Mapping[str, str] | None = None) -> list[Pair]:
    """Pairs of a task from a file of pairs or of training rows.

    Of a file of training rows only those whose system prompt is one of the task's count; the two flips of a prompt
    become one pair.

    Raises:
        UserError: a row is bad, no row is of this task, or the rows of a prompt contradict each other.
    """
    found = read_rows(path)
    if "responses" in found[0].values:
        return [_pair(row) for row in found]
    pairs: dict[tuple[str, ...], Pair] = {}
    for source, row in zip(found, parse_rows(found, columns or {}, path.stem), strict=True):
        configuration = None if row.system is None else task.configuration_of(row.system)
        if configuration is None:
            continue
        asked = task.asked[configuration]
        others = sorted(set(task.asked.values()) - {asked})
        if len(others) != 1:
            raise UserError(
                f"{source.where}: task {task.name} has the behaviours {', '.join(sorted(set(task.asked.values())))}, "
                "so that a rejected response can't be told apart: give a file of pairs"
            )
        responses = {asked: row.chosen, others[0]: row.rejected}
        # one prompt may come with several pairs; its flips share both responses
        key = (row.prompt, *(responses[behaviour] for behaviour in sorted(responses)))
        pairs.setdefault(key, Pair(row.prompt, dict(sorted(responses.items())), {"source": path.name}))
    if not pairs:
        raise UserError(
            f"{path}: no row has a system prompt of task {task.name}: name another task, or give a file of pairs"
        )
    return list(pairs.values())


def _pair(row: Row) -> Pair:
    prompt = text_column(row, "prompt")
    responses = row.values.get("responses")
    if not isinstance(responses, dict) or len(responses) < 2:
        raise UserError(f"{row.where}: column 'responses' must hold two or more responses by their behaviour")
    texts = {behaviour: text_column(Row(row.where, responses), behaviour) for behaviour in responses}
    if len(set(texts.values())) < len(texts):
        raise UserError(f"{row.where}: two behaviours have the same response: there is nothing to prefer")
    meta = row.values.get("meta") or {}
    if not isinstance(meta, dict):
        raise UserError(f"{row.where}: column 'meta' must be an object, not {type(meta).__name__}")
    columns = meta.get("row", {})
    if not isinstance(columns, dict) or not all(isinstance(text, str) for text in columns.values()):
        raise UserError(f"{row.where}: meta.row must be an object of texts")
    return Pair(prompt, texts, meta)
