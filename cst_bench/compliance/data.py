"""The prompts of a compliance task: read from the hub or a file, divided, checked, hashed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cst_bench.compliance.compliance_task import ComplianceTask, Data, Selector
from cst_bench.errors import UserError
from cst_bench.files import Row, digest, prompt_hash, read_rows, text_column

_HASH = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Prompt:
    """One prompt of a task's test split."""

    id: str
    """The hash of the prompt and of the row's own system prompt: the same whatever the order of the file."""
    text: str
    systems: dict[str, str] = field(default_factory=dict)
    """System prompts that come with the row, by column."""
    fields: dict[str, str] = field(default_factory=dict)
    """What the judge is given as data."""


@dataclass(frozen=True)
class PromptSet:
    """The prompts of one split, and what names them."""

    prompts: list[Prompt]
    origin: str
    sha256: str
    """Over prompts, their system prompts and fields, in order."""
    left_out: int
    """Rows that belong to other splits."""
    duplicates: int
    """Rows whose prompt is there already."""


def load_prompts(
    task: ComplianceTask, path: Path, *, data: Path | None = None, limit: int | None = None, split: str = "test"
) -> PromptSet:
    """The prompts of a split; `path` is the task file, `data` a file to read instead of the task's own source.

    Raises:
        UserError: the source can't be read, a row is bad, nothing is left, or `limit` is not positive.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit must be at least 1, not {limit}")
    if split not in task.data.splits:
        raise UserError(f"task {task.name} has no split {split!r}")
    rows, origin = _rows(task, path, data)
    chosen = _Split(task.data.splits[split], task.data, path.parent)
    kept: dict[str, Prompt] = {}
    left_out = duplicates = 0
    for row in rows:
        text = text_column(row, task.data.prompt)
        if not chosen.holds(row, text):
            left_out += 1
            continue
        prompt = _prompt(task, row, text)
        duplicates += prompt.id in kept
        kept.setdefault(prompt.id, prompt)
    if not kept:
        raise UserError(f"{origin}: none of its {len(rows)} rows belongs to the {split} split of {task.name}")
    prompts = list(kept.values())[:limit]
    sha256 = digest([[prompt.text, prompt.systems, prompt.fields] for prompt in prompts])
    return PromptSet(prompts, origin, sha256, left_out, duplicates)


def held_out(task: ComplianceTask, path: Path) -> Callable[[str], bool]:
    """Says of a prompt's text whether it may be in the test split, so that training can keep away from it.

    Where the split is told by the prompt's hash, the hash decides; where it is told by other columns, the test
    prompts of the task's own file are looked up.

    Raises:
        UserError: the split can't be told without the hub.
    """
    selector = task.data.splits["test"]
    if selector.listed_in or selector.not_listed_in or selector.hash_range:
        by_hash = selector.model_copy(update={"where": {}, "unless": {}})
        split = _Split(by_hash, task.data, path.parent)
        return lambda text: split.holds(Row("", {}), text)
    if task.data.file is None:
        raise UserError(f"task {task.name}: its test split can't be told by hash, and its data set is on the hub")
    hashes = {prompt_hash(prompt.text) for prompt in load_prompts(task, path).prompts}
    return lambda text: prompt_hash(text) in hashes


def _prompt(task: ComplianceTask, row: Row, text: str) -> Prompt:
    columns = [c.system_column for c in task.configurations.values() if c.system_column is not None]
    systems = {column: text_column(row, column) for column in columns}
    fields = {column: text_column(row, column) for column in task.data.fields}
    name = prompt_hash("\n".join([text, *systems.values()]))
    return Prompt(name, text, systems, fields)


class _Split:
    """A selector with its hash files read."""

    def __init__(self, selector: Selector, data: Data, folder: Path) -> None:
        self._selector = selector
        self._listed = _hashes(folder, selector.listed_in)
        self._unlisted = _hashes(folder, selector.not_listed_in)

    def holds(self, row: Row, text: str) -> bool:
        selector = self._selector
        if any(_value(row, column) != value for column, value in selector.where.items()):
            return False
        if any(_value(row, column) == value for column, value in selector.unless.items()):
            return False
        name = prompt_hash(text)
        if self._listed is not None and name not in self._listed:
            return False
        if self._unlisted is not None and name in self._unlisted:
            return False
        if selector.hash_range is not None:
            low, high = selector.hash_range
            return low <= int(name, 16) / 16**16 < high
        return True


def _value(row: Row, column: str) -> str:
    if column not in row.values:
        text_column(row, column)  # says what is wrong
    return str(row.values[column])


def _hashes(folder: Path, name: str | None) -> frozenset[str] | None:
    if name is None:
        return None
    path = folder / name
    if not path.is_file():
        raise UserError(f"file of prompt hashes not found: {path}")
    hashes = set()
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        name = line.partition("#")[0].strip()
        if name and not _HASH.fullmatch(name):  # it would match no prompt, and let all of them slip through
            raise UserError(f"{path}:{number}: not a prompt hash (16 hex digits, lower case)")
        if name:
            hashes.add(name)
    return frozenset(hashes)


def _rows(task: ComplianceTask, path: Path, data: Path | None) -> tuple[list[Row], str]:
    if data is not None:
        return read_rows(data), data.name
    if task.data.file is not None:
        return read_rows(path.parent / task.data.file), task.data.file
    return _hub_rows(task)


def _hub_rows(task: ComplianceTask) -> tuple[list[Row], str]:
    import datasets

    source = task.data
    name = str(source.hub)
    at = f"{name}@{source.revision}" if source.revision else name
    try:
        table = datasets.load_dataset(name, source.subset, revision=source.revision, split=source.hub_split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"data set {at} of task {task.name} can't be had from the hub ({reason}); "
            f"give a local copy with --data {task.name}=FILE"
        ) from None
    return [Row(f"{at}, row {number}", dict(values)) for number, values in enumerate(table, 1)], at
