"""Read the rows of a data file and tokenize them as evaluation does; every row left out is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cst_bench.checkpoint.chat import Chat, conversation
from cst_bench.compliance.compliance_task import load_task
from cst_bench.compliance.data import held_out
from cst_bench.errors import GateError, UserError
from cst_bench.files import Row, read_rows
from cst_bench.preferences import TrainingRow, are_pairs, flip_pairs, parse_pairs, parse_rows, rows_digest
from cst_bench.tuning.train_options import Long


@dataclass(frozen=True)
class TrainingData:
    """Training rows, and their origin."""

    rows: Sequence[TrainingRow]
    origin: str
    """Name of the data file."""
    method: str
    """`cst` if a task has rows of several configurations (or, where none is named, flips), else `dpo`."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Reason → pairs or rows that gave no training row."""

    def as_json(self) -> dict[str, object]:
        """Return the counts and the hash, for a manifest."""
        return {
            "origin": self.origin,
            "sha256": rows_digest(self.rows),
            "rows": len(self.rows),
            "by_task": dict(sorted(Counter(row.task for row in self.rows).items())),
            "by_configuration": dict(sorted(Counter(row.configuration or "not named" for row in self.rows).items())),
            "left_out": dict(self.left_out),
        }


@dataclass(frozen=True)
class TokenizedRows:
    """Token ids of rows in TRL's columns."""

    columns: Mapping[str, list[list[int]]]
    """`prompt_ids`, `chosen_ids`, `rejected_ids`."""
    longest: int
    """Tokens of the longest sequence."""
    truncated: int
    """Rows cut to the maximum length."""
    dropped: Mapping[str, int]
    """Reason → rows left out because of their length."""


def read_data(
    path: Path, *, task: str | None, method: str, method_named: bool, columns: Mapping[str, str]
) -> TrainingData:
    """Read training rows from a file of rows, or make them from a file of pairs.

    Args:
        path: The file.
        task: Compliance task whose configurations a file of pairs is flipped by.
        method: `cst` or `dpo`, for a file of pairs.
        method_named: The user named the method; training rows must then agree with it.
        columns: Column → its name in the file, where it is not one of the usual names.

    Raises:
        UserError: a row is invalid, pairs come without a task, or the rows do not fit the method.
    """
    rows = read_rows(path)
    if are_pairs(rows):
        if task is None:
            raise UserError(f"{path} holds preference pairs: name the task that defines the configurations with --task")
        return _from_pairs(path, rows, task, method, columns)
    if task is not None:
        raise UserError(f"{path} holds training rows, not pairs: leave --task out")
    training_rows = parse_rows(rows, columns, path.stem)
    flipped = _tasks_with_several_configurations(training_rows)
    if method_named and method == "dpo" and flipped:
        raise UserError(
            f"{path}: rows of task {flipped[0]} are of several configurations, but DPO uses one: "
            "make rows with `cst-bench data flip --method dpo`, or leave --method out"
        )
    if flipped:
        method = "cst"
    elif not method_named or all(row.configuration is not None for row in training_rows):
        method = "dpo"
    return TrainingData(training_rows, path.name, method)


def _from_pairs(
    path: Path, rows: Sequence[Row], task_name: str, method: str, columns: Mapping[str, str]
) -> TrainingData:
    task, task_path = load_task(task_name)
    pairs = parse_pairs(rows, task, path, columns)
    flipped = flip_pairs(pairs, task, method, is_held_out=held_out(task, task_path))
    if not flipped.rows:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in flipped.left_out.items())
        raise UserError(f"{path}: no pair gives a training row ({reasons})")
    return TrainingData(flipped.rows, path.name, method, flipped.left_out)


def _tasks_with_several_configurations(rows: Sequence[TrainingRow]) -> list[str]:
    """Return the tasks with rows of several configurations, as named or, for unnamed rows, as a row and its flip."""
    configurations: dict[str, set[str]] = {}
    seen: set[tuple[str, str, str, str]] = set()
    flipped: dict[str, None] = {}
    for row in rows:
        if row.configuration is not None:
            configurations.setdefault(row.task, set()).add(row.configuration)
        if (row.task, row.prompt, row.rejected, row.chosen) in seen:
            flipped[row.task] = None
        seen.add((row.task, row.prompt, row.chosen, row.rejected))
    named = [task for task, names in configurations.items() if len(names) > 1]
    return list(dict.fromkeys([*named, *flipped]))


def tokenize(rows: Sequence[TrainingRow], chat: Chat, max_length: int | None, long: Long) -> TokenizedRows:
    """Tokenize rows, with the prompt exactly as evaluation renders it.

    Args:
        rows: Training rows.
        chat: Tokenizer and chat template of the base.
        max_length: Most tokens of prompt and response together.
        long: What to do with longer rows.

    Raises:
        GateError: the template renders a prompt differently once it is answered.
        UserError: two responses have the same tokens, rows are too long, or no row is left.
    """
    columns: dict[str, list[list[int]]] = {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
    dropped: Counter[str] = Counter()
    too_long: list[tuple[int, int]] = []
    longest = 0
    for number, row in enumerate(rows, 1):
        prompt, chosen, rejected = _token_ids(row, chat, number)
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
        number, length = max(too_long, key=lambda entry: entry[1])
        raise UserError(
            f"{len(too_long)} of {len(rows)} rows are longer than max_length {max_length} (row {number} has {length} "
            "tokens): raise trl.max_length, or use --drop-long or --truncate"
        )
    if long == "drop" and too_long:
        dropped["longer than max_length"] = len(too_long)
    if not columns["prompt_ids"]:
        raise UserError(f"none of {len(rows)} rows is left: {', '.join(dropped)}; raise trl.max_length ({max_length})")
    truncated = len(too_long) - sum(dropped.values()) if long == "truncate" else 0
    return TokenizedRows(columns, longest, truncated, dict(dropped))


def _token_ids(row: TrainingRow, chat: Chat, number: int) -> tuple[list[int], list[int], list[int]]:
    """Return the ids of prompt, chosen and rejected; what the template writes after a response belongs to it."""
    messages = conversation(row.system, row.prompt)
    prompt = chat.prompt_ids(messages)
    responses = []
    for name, text in (("chosen", row.chosen), ("rejected", row.rejected)):
        answered = chat.encode([*messages, {"role": "assistant", "content": text}], generation_prompt=False)
        if answered[: len(prompt)] != prompt:
            raise GateError(
                f"row {number}: the chat template renders the prompt differently once it is answered, so training "
                "would use another prompt than evaluation: give another template with --chat-template FILE.jinja"
            )
        responses.append(answered[len(prompt) :])
        if not responses[-1]:
            raise UserError(f"row {number}: the chat template leaves nothing of {name}")
    chosen, rejected = responses
    if chosen == rejected:
        raise UserError(f"row {number}: chosen and rejected have the same tokens: there is nothing to prefer")
    return prompt, chosen, rejected
