"""Prompts of a compliance task: loaded from the Hub or a file, checked, split and hashed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from cst_bench.compliance.compliance_task import ComplianceTask, Selector
from cst_bench.errors import UserError
from cst_bench.files import Row, digest, prompt_hash, read_rows, text_column

HELD_OUT = ("test", "validation")
"""Splits that are never trained on."""
_HASH = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Prompt:
    """Prompt of a task, with its own system prompts and the judge's fields."""

    id: str
    """Hash of the prompt and of the row's own system prompts, independent of the order of the file."""
    text: str
    systems: dict[str, str] = field(default_factory=dict)
    """Column → system prompt of the row."""
    fields: dict[str, str] = field(default_factory=dict)
    """Column → text that the judge is given as data."""


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one split, with their source and hash."""

    prompts: list[Prompt]
    origin: str
    """File name, or Hub id with revision."""
    sha256: str
    """SHA-256 of the prompts, their system prompts and fields, in order."""
    left_out: int
    """Number of rows that belong to other splits."""
    duplicates: int
    """Number of rows that repeat an earlier prompt."""

    def parts(self, size: int) -> list[PromptSet]:
        """Return consecutive parts of at most `size` prompts."""
        starts = range(0, len(self.prompts), size)
        return [replace(self, prompts=self.prompts[start : start + size]) for start in starts]


def load_prompts(
    task: ComplianceTask, path: Path, *, data: Path | None = None, limit: int | None = None, split: str = "test"
) -> PromptSet:
    """Load the prompts of a split.

    Args:
        task: The task.
        path: Its file.
        data: File to read instead of the task's data set.
        limit: Limit to the first N prompts.
        split: Split to load.

    Raises:
        UserError: The source could not be read, a row is invalid, the split is unknown or empty, or `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit must be at least 1, not {limit}")
    if split not in task.data.splits:
        raise UserError(f"task {task.name} has no split {split!r}")
    rows, origin = _rows(task, path, data)
    membership = _Split(task.data.splits[split], path.parent)
    by_id: dict[str, Prompt] = {}
    left_out = duplicates = 0
    for row in rows:
        text = text_column(row, task.data.prompt)
        if not membership.holds(row, text):
            left_out += 1
            continue
        prompt = _prompt(task, row, text)
        duplicates += prompt.id in by_id
        by_id.setdefault(prompt.id, prompt)
    if not by_id:
        raise UserError(f"{origin}: none of its {len(rows)} rows belongs to the {split} split of {task.name}")
    prompts = list(by_id.values())[:limit]
    sha256 = digest([[prompt.text, prompt.systems, prompt.fields] for prompt in prompts])
    return PromptSet(prompts, origin, sha256, left_out, duplicates)


def held_out(task: ComplianceTask, path: Path) -> Callable[[str], bool]:
    """Return a function that tells whether a prompt's text may be in the test or validation split.

    Such a prompt must not be trained on. A split defined by the prompt's hash is decided by the hash; one defined by
    other columns by the prompts of the task's own file.

    Raises:
        UserError: A split cannot be decided without the Hub.
    """
    checks = [_in_split(task, path, name) for name in HELD_OUT if name in task.data.splits]
    return lambda text: any(check(text) for check in checks)


def _in_split(task: ComplianceTask, path: Path, name: str) -> Callable[[str], bool]:
    selector = task.data.splits[name]
    if selector.listed_in or selector.not_listed_in or selector.hash_range:
        by_hash = selector.model_copy(update={"where": {}, "unless": {}})
        split = _Split(by_hash, path.parent)
        return lambda text: split.holds(Row("", {}), text)
    if task.data.file is None:
        raise UserError(f"task {task.name}: its {name} split is not defined by hash, and its data set is on the Hub")
    hashes = {prompt_hash(prompt.text) for prompt in load_prompts(task, path, split=name).prompts}
    return lambda text: prompt_hash(text) in hashes


def _prompt(task: ComplianceTask, row: Row, text: str) -> Prompt:
    columns = [c.system_column for c in task.configurations.values() if c.system_column is not None]
    systems = {column: text_column(row, column) for column in columns}
    fields = {column: text_column(row, column) for column in task.data.fields}
    name = prompt_hash("\n".join([text, *systems.values()]))
    return Prompt(name, text, systems, fields)


class _Split:
    """Selector with its hash files loaded."""

    def __init__(self, selector: Selector, folder: Path) -> None:
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
        text_column(row, column)  # raises, with the nearest column
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
        if name and not _HASH.fullmatch(name):  # it would match no prompt, and let all of them through
            raise UserError(f"{path}:{number}: not a prompt hash (16 hex digits, lower case)")
        if name:
            hashes.add(name)
    return frozenset(hashes)


def _rows(task: ComplianceTask, path: Path, data: Path | None) -> tuple[list[Row], str]:
    if data is not None:
        return read_rows(data), data.name
    if task.data.file is not None:
        return read_rows(path.parent / task.data.file), task.data.file
    source = task.data
    name = f"{source.hub}@{source.revision}" if source.revision else str(source.hub)
    remedy = f"give a local copy with --data {task.name}=FILE"
    return load_hub_rows(name, remedy, subset=source.subset, split=source.hub_split), name


def load_hub_rows(name: str, remedy: str, *, subset: str | None = None, split: str = "train") -> list[Row]:
    """Load the rows of a data set on the Hugging Face Hub.

    Args:
        name: Data set id, optionally with `@` and a revision.
        remedy: What to do if it fails, to end the message.
        subset: Configuration of the data set.
        split: Split of the data set; `train+test` concatenates two.

    Raises:
        UserError: The data set could not be loaded.
    """
    import datasets

    repository, _, revision = name.partition("@")
    try:
        table = datasets.load_dataset(repository, subset, revision=revision or None, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"could not load data set {name} from the Hub ({reason}): {remedy}") from None
    return [Row(f"{name}, row {number}", dict(values)) for number, values in enumerate(table, 1)]
