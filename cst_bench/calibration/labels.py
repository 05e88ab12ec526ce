"""Labelled responses: for training a judge, calibrating it, and testing its robustness."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cst_bench.columns import Columns
from cst_bench.content import content_root
from cst_bench.errors import UserError
from cst_bench.files import Row, digest, prompt_hash, text_column
from cst_bench.judging import RESERVED, Case
from cst_bench.table_files import read_any

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "instruction"),
    "response": ("response", "generation", "completion", "output", "answer"),
    "behaviour": ("behaviour", "label", "score_response"),
    "by": ("by", "labelled_by"),
    "id": ("id",),
    "split": ("split",),
    "model": ("model",),
    "configuration": ("configuration",),
    "system_prompt": ("system_prompt", "system"),
    "language": ("language",),
    "case": ("case",),
    "degree": ("degree",),
}
"""Usual names of each column; the first that a file has is read. Only the first three are required."""
SLICES = ("model", "configuration", "system_prompt", "language", "case", "degree", "split")
"""Columns to slice metrics by."""
SHIPPED = "judges/labels"
RELEASED_VALUES = {"1": "harmless", "0": "uncensored"}
"""Values of `score_response` in the generations released with Gallego 2024: 1 is safe."""
FROM_PAIR = "by construction of a pair"
"""Labelled by the response's role in a pair: the one made to comply may still decline."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?|true|false", re.IGNORECASE)


@dataclass(frozen=True)
class Labelled:
    """A response and the label of its behaviour."""

    id: str
    case: Case
    behaviour: str
    by: str
    """Who labelled: `human`, a model's name, `by construction`."""
    slices: Mapping[str, str] = field(default_factory=dict)
    """Column → value, to slice metrics by (`model`, `configuration`, …)."""
    annotations: tuple[str, ...] = ()
    """Labels of single people, of which `behaviour` is the result."""
    verdicts: Mapping[str, str | None] = field(default_factory=dict)
    """Another judge → its released verdict; None if it gave none that can be read."""

    @property
    def key(self) -> str:
        """Return a hash of prompt and response: 33 hex digits, the prompt's first."""
        response = hashlib.sha256(" ".join(self.case.response.split()).encode()).hexdigest()[:16]
        return f"{prompt_hash(self.case.prompt)}-{response}"


@dataclass(frozen=True)
class LabelSet:
    """The labelled responses of a file."""

    name: str
    rows: Sequence[Labelled]
    sha256: str
    """SHA-256 of the prompts, responses and labels, whatever the file's format."""

    @classmethod
    def of(cls, name: str, rows: Sequence[Labelled]) -> LabelSet:
        """Return the label set of these rows."""
        return cls(name, rows, digest([[row.case.prompt, row.case.response, row.behaviour, row.by] for row in rows]))

    @property
    def by(self) -> list[str]:
        """Return who labelled, in alphabetical order."""
        return sorted({row.by for row in self.rows})


def read_labels(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    values: Mapping[str, str] | None = None,
    by: str | None = None,
    split: str | None = None,
    fields: Sequence[str] = (),
) -> LabelSet:
    """Read the labelled responses of a file.

    Args:
        path: jsonl, json, csv, tsv, parquet, or a Markdown table such as the released generations.
        columns: Column → its name in the file, where it is not one of the usual names.
        values: Label of the file → behaviour.
        by: Who labelled, for files without such a column; the released tables are gpt-4's.
        split: Read only the rows of this split.
        fields: Columns that the judge may read.

    Raises:
        UserError: a column is missing, a row is bad or comes twice with different labels, nothing is left, or a prompt
            is in two splits.
    """
    named = Columns(COLUMNS, columns or {})
    rows = [label_row(row, number, named, values or {}, by, fields) for number, row in enumerate(read_any(path), 1)]
    _check_splits(path, rows)
    kept = [row for row in rows if split is None or row.slices.get("split", split) == split]
    if not kept:
        raise UserError(f"{path}: no row is in the split {split!r}")
    _check_twice(path, kept)
    return LabelSet.of(path.stem, kept)


def label_row(
    row: Row, number: int, named: Columns, values: Mapping[str, str], by: str | None, fields: Sequence[str]
) -> Labelled:
    """Read a labelled response from a row.

    Args:
        row: The row.
        number: Its number, which is its id if it has none.
        named: Names of its columns.
        values: As `read_labels`.
        by: As `read_labels`.
        fields: As `read_labels`.

    Raises:
        UserError: a column is missing, or its value is not a text or a label.
    """
    prompt = text_column(row, named.need(row, "prompt"))
    response = row.values[named.need(row, "response")]
    if not isinstance(response, str):
        raise UserError(f"{row.where}: the response must be text, not {type(response).__name__}")
    column = named.need(row, "behaviour")
    released = column == "score_response"
    slices = {name: _optional(row, name, named) for name in SLICES}
    return Labelled(
        id=_optional(row, "id", named) or str(number),
        case=Case(prompt, response, _fields(row, fields)),
        behaviour=_behaviour(row, column, {**(RELEASED_VALUES if released else {}), **values}),
        by=_optional(row, "by", named) or by or ("gpt-4" if released else "unknown"),
        slices={name: value for name, value in slices.items() if value},
    )


def _behaviour(row: Row, column: str, meaning: Mapping[str, str]) -> str:
    cell = row.values[column]
    value = "" if cell is None else str(cell).strip()
    if not value:
        raise UserError(f"{row.where}: column {column!r} is empty: every response needs a label")
    behaviour = meaning.get(value, value)
    if _NUMBER.fullmatch(behaviour):
        raise UserError(f"{row.where}: label {value!r} is not a behaviour: give --value {value}=BEHAVIOUR")
    return behaviour


def _fields(row: Row, wanted: Sequence[str]) -> dict[str, str]:
    """Return the fields that a judge may read: an object in `fields` (JSON in CSV), columns `fields.NAME` or NAME."""
    fields = {name: row.values[name] for name in wanted if name in row.values}
    inner = row.values.get("fields") or {}
    if isinstance(inner, str):
        try:
            inner = json.loads(inner)
        except (ValueError, RecursionError):
            inner = None
    if not isinstance(inner, Mapping):
        raise UserError(f'{row.where}: column \'fields\' must be an object such as {{"system": "…"}}')
    fields.update(inner)
    prefix = "fields."
    fields.update({name[len(prefix) :]: value for name, value in row.values.items() if name.startswith(prefix)})
    return {str(name): str(value) for name, value in fields.items() if value is not None}


def _optional(row: Row, name: str, named: Columns) -> str:
    """Return the text of an optional column; empty if the row does not have it."""
    column = named.find(row, name)
    value = None if column is None else row.values[column]
    return "" if value is None else str(value).strip()


def _check_splits(path: Path, rows: Sequence[Labelled]) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[prompt_hash(row.case.prompt)].add(row.slices.get("split", ""))
    shared = [names for names in splits.values() if len(names) > 1]
    if shared:
        raise UserError(
            f"{path}: {len(shared)} prompts are in more than one split ({', '.join(sorted(shared[0]))}): "
            "a judge would be measured on its training data"
        )


def _check_twice(path: Path, rows: Sequence[Labelled]) -> None:
    labels: dict[str, Labelled] = {}
    for row in rows:
        first = labels.setdefault(row.key, row)
        if first.behaviour != row.behaviour and first.by == row.by and first.case.fields == row.case.fields:
            raise UserError(
                f"{path}: rows {first.id} and {row.id} are the same prompt and response, labelled {first.behaviour} "
                f"and {row.behaviour} by {row.by}"
            )


def join(sets: Sequence[LabelSet], *, leave_out: Sequence[str] = ()) -> LabelSet:
    """Join the labels of several files, without some splits.

    Raises:
        UserError: nothing is left.
    """
    several = len(sets) > 1
    rows = [
        replace(row, id=f"{labels.name}/{row.id}", slices={"labels": labels.name, **row.slices}) if several else row
        for labels in sets
        for row in labels.rows
        if row.slices.get("split") not in leave_out
    ]
    name = "+".join(labels.name for labels in sets)
    if not rows:
        raise UserError(f"{name}: no labelled response remains without the split {', '.join(leave_out)}")
    return LabelSet.of(name, rows)


def shipped_labels(judge: str, behaviours: Sequence[str], fields: Collection[str] = ()) -> list[Path]:
    """Return the project's label files for a judge: the one of its name, else the English ones that fit.

    Args:
        judge: Name of the judge.
        behaviours: Its behaviours; a file with other labels does not fit.
        fields: Fields that it needs; a file that lacks one does not fit.

    Raises:
        UserError: there are none.
    """
    folder = content_root() / SHIPPED
    named = folder / f"{judge}.jsonl"
    if named.is_file():
        return [named]
    known = {*behaviours, *RESERVED}
    fitting = [
        path
        for path in sorted(folder.glob("english_*.jsonl"))
        if all(
            row.behaviour in known and row.case.fields.keys() >= set(fields)
            for row in read_labels(path, fields=sorted(fields)).rows
        )
    ]
    if not fitting:
        raise UserError(f"the project has no labels for judge {judge}: give some with --labels FILE")
    return fitting


def check_behaviours(labels: LabelSet, behaviours: Sequence[str]) -> None:
    """Check that a judge of these behaviours can be measured on labels.

    Raises:
        UserError: a label is not one of the behaviours, and not a reserved one.
    """
    for row in labels.rows:
        if row.behaviour not in (*behaviours, *RESERVED):
            raise UserError(
                f"{labels.name}, row {row.id}: label {row.behaviour!r} is not one of the judge's behaviours "
                f"({', '.join(behaviours)}): give --value {row.behaviour}=BEHAVIOUR"
            )
