"""Rows of a data file as token ids: rendered as at evaluation, counted, none lost without a count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cst_bench.checkpoint.chat import Chat
from cst_bench.compliance.compliance_task import load_task
from cst_bench.compliance.data import held_out
from cst_bench.errors import GateError, UserError
from cst_bench.files import read_rows
from cst_bench.preferences import TrainingRow, flip, read_pairs, read_training_rows
from cst_bench.preferences.training_rows import rows_digest
from cst_bench.tuning.train_options import Long


@dataclass(frozen=True)
class Rows:
    """Training rows and what is known of them."""

    rows: Sequence[TrainingRow]
    origin: str
    method: str
    """`cst` if some task has rows of several configurations (or flips, where they are not named), else `dpo`."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Pairs or rows that no training row was made of, by reason."""

    def as_json(self) -> dict[str, Any]:
        """Counts and hash, for a manifest."""
        return {
            "origin": self.origin,
            "sha256": rows_digest(self.rows),
            "rows": len(self.rows),
            "by_task": dict(sorted(Counter(row.task for row in self.rows).items())),
            "by_configuration": dict(sorted(Counter(row.configuration or "not named" for row in self.rows).items())),
            "left_out": dict(self.left_out),
        }


@dataclass(frozen=True)
class Rendered:
    """Token ids of rows in TRL's columns, and what was cut or left out because of its length."""

    columns: Mapping[str, list[list[int]]]
    """`prompt_ids`, `chosen_ids`, `rejected_ids`."""
    longest: int
    """Tokens of the longest sequence."""
    truncated: int
    dropped: Mapping[str, int]


def read_data(path: Path, *, task: str | None, method: str, given: bool, columns: Mapping[str, str]) -> Rows:
    """Training rows from a file of rows, or of pairs by the configurations of a task.

    Args:
        path: The file.
        task: Whose configurations a file of pairs is flipped by.
        method: `cst` or `dpo`, for a file of pairs.
        given: Whether the user named the method, which rows must then agree with.
        columns: What the file calls a column, where it isn't one of the usual names.

    Raises:
        UserError: a bad row, pairs without a task, or rows that are not of the method.
    """
    if "responses" in read_rows(path)[0].values:
        if task is None:
            raise UserError(f"{path} holds preference pairs: name the task whose configurations ask, with --task TASK")
        spec, task_path = load_task(task)
        found = flip(read_pairs(path, spec, columns), spec, method, held_out=held_out(spec, task_path))
        if not found.rows:
            why = "; ".join(f"{reason}: {count}" for reason, count in found.left_out.items())
            raise UserError(f"{path}: no training row comes out of it ({why})")
        return Rows(found.rows, path.name, method, found.left_out)
    if task is not None:
        raise UserError(f"{path} holds training rows, not pairs: leave --task out")
    rows = read_training_rows(path, columns)
    several = _with_several(rows)
    if given and method == "dpo" and several:
        raise UserError(
            f"{path}: rows of task {several[0]} are of several configurations, and DPO is of one: "
            "make rows with `cst-bench data flip --method dpo`, or leave --method out"
        )
    unnamed = any(row.configuration is None for row in rows)
    return Rows(rows, path.name, "cst" if several else method if given and unnamed else "dpo")


def _with_several(rows: Sequence[TrainingRow]) -> list[str]:
    """Tasks with rows of several configurations: by their names, or where a row has none, by a flip of it."""
    named: dict[str, set[str]] = {}
    seen: set[tuple[str, str, str, str]] = set()
    flipped: dict[str, None] = {}
    for row in rows:
        if row.configuration is not None:
            named.setdefault(row.task, set()).add(row.configuration)
        if (row.task, row.prompt, row.rejected, row.chosen) in seen:
            flipped[row.task] = None
        seen.add((row.task, row.prompt, row.chosen, row.rejected))
    return list(dict.fromkeys([*(task for task, names in named.items() if len(names) > 1), *flipped]))


def render(rows: Sequence[TrainingRow], chat: Chat, max_length: int | None, long: Long) -> Rendered:
    """Token ids of rows, the prompt exactly as evaluation renders it.

    Args:
        rows: In order.
        chat: The base's tokenizer and template.
        max_length: The most tokens that prompt and response may have together.
        long: What becomes of rows that have more.

    Raises:
        GateError: the template renders a prompt differently once it is answered.
        UserError: two responses have the same tokens, rows are too long, or none is left.
    """
    columns: dict[str, list[list[int]]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    dropped: Counter[str] = Counter()
    too_long: list[tuple[int, int]] = []
    longest = 0
    for number, row in enumerate(rows, 1):
        prompt, chosen, rejected = _ids(row, chat, number)
        length = len(prompt) + max(len(chosen), len(rejected))
        if max_length is not None and length > max_length:
            too_long.append((number, length))
            if long != "truncate":
                continue
            room = max_length - len(prompt)
            if room < 1 or chosen[:room] == rejected[:room]:
                dropped["prompt fills max_length" if room < 1 else "responses are the same up to max_length"] += 1
                continue
            chosen, rejected = chosen[:room], rejected[:room]
            length = max_length
        longest = max(longest, length)
        for name, ids in zip(columns, (prompt, chosen, rejected)):
            columns[name].append(ids)
    if too_long and long == "refuse":
        number, length = max(too_long, key=lambda one: one[1])
        raise UserError(
            f"{len(too_long)} of {len(rows)} rows are longer than max_length {max_length} (row {number} has {length} "
            "tokens): raise trl.max_length, or say --drop-long or --truncate"
        )
    if long == "drop" and too_long:
        dropped["longer than max_length"] = len(too_long)
    if not columns["prompt_ids"]:
        raise UserError(f"none of {len(rows)} rows is left: {', '.join(dropped)}; raise trl.max_length ({max_length})")
    truncated = len(too_long) - sum(dropped.values()) if long == "truncate" else 0
    return Rendered(columns, longest, truncated, dict(dropped))


def _ids(row: TrainingRow, chat: Chat, number: int) -> tuple[list[int], list[int], list[int]]:
    """Prompt, chosen and rejected; what the template writes behind a response belongs to it."""
    messages = row.messages()
    prompt = chat.prompt_ids(messages["prompt"])
    responses = []
    for name in ("chosen", "rejected"):
        answered = chat.encode([*messages["prompt"], *messages[name]], generation_prompt=False)
        if answered[: len(prompt)] != prompt:
            raise GateError(
                f"row {number}: the chat template renders the prompt differently once it is answered, so that training "
                "would see another prompt than evaluation: give another template with --chat-template FILE.jinja"
            )
        responses.append(answered[len(prompt) :])
        if not responses[-1]:
            raise UserError(f"row {number}: nothing is left of {name} in the chat template")
    if responses[0] == responses[1]:
        raise UserError(f"row {number}: chosen and rejected have the same tokens: there is nothing to prefer")
    return prompt, responses[0], responses[1]
