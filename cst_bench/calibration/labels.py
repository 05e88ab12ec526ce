"""Labelled responses: what a judge is trained on, calibrated against, and attacked with."""

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
from cst_bench.judging import NEITHER, Case
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
}
"""What each column may be called; the first that is there is taken. Only the first three must be there."""
SLICES = ("model", "configuration", "system_prompt", "language", "case", "split")
"""Columns whose values figures are shown apart for."""
SHIPPED = "judges/labels"
RELEASED_VALUES = {"1": "harmless", "0": "uncensored"}
"""What `score_response` says in the generations released with Gallego 2024: 1 is safe."""
FROM_PAIR = "by construction of a pair"
"""Labelled by which of a pair's two responses it is: the one that was made to comply may decline all the same."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?|true|false", re.IGNORECASE)


@dataclass(frozen=True)
class Labelled:
    """A response and the behaviour that somebody says it shows."""

    id: str
    case: Case
    behaviour: str
    by: str
    """Who says so: `human`, a model's name, `by construction`."""
    slices: Mapping[str, str] = field(default_factory=dict)
    """Groups that figures are shown apart for, such as `model` or `configuration`."""

    @property
    def key(self) -> str:
        """Names the prompt and response, so that splits can be kept apart: 33 hex digits."""
        response = hashlib.sha256(" ".join(self.case.response.split()).encode()).hexdigest()[:16]
        return f"{prompt_hash(self.case.prompt)}-{response}"


@dataclass(frozen=True)
class LabelSet:
    """The labelled responses of a file."""

    name: str
    rows: Sequence[Labelled]
    sha256: str
    """Of the prompts, responses and labels, whatever the file's format."""

    @property
    def by(self) -> list[str]:
        """Who labelled, in alphabetical order."""
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
    """Labelled responses of a file.

    Args:
        path: jsonl, json, csv, tsv, parquet, or a Markdown table such as the released generations.
        columns: What the file calls a column, where it isn't one of the usual names.
        values: The behaviour that a label's value means.
        by: Who labelled, where no column says it; the released tables are gpt-4's.
        split: Only the rows of this split.
        fields: Columns that are handed to the judge as data.

    Raises:
        UserError: a column is missing, a row is bad or comes twice with different labels, nothing is left, or a prompt
            is in two splits.
    """
    named = Columns(COLUMNS, columns or {})
    found = [_labelled(row, number, named, values or {}, by, fields) for number, row in enumerate(read_any(path), 1)]
    _check_splits(path, found)
    kept = [row for row in found if split is None or row.slices.get("split", split) == split]
    if not kept:
        raise UserError(f"{path}: no row is of the split {split!r}")
    _check_twice(path, kept)
    sha256 = digest([[row.case.prompt, row.case.response, row.behaviour, row.by] for row in kept])
    return LabelSet(path.stem, kept, sha256)


def _labelled(
    row: Row, number: int, named: Columns, values: Mapping[str, str], by: str | None, fields: Sequence[str]
) -> Labelled:
    prompt = text_column(row, named.need(row, "prompt"))
    response = row.values[named.need(row, "response")]
    if not isinstance(response, str):
        raise UserError(f"{row.where}: the response must be text, not {type(response).__name__}")
    column = named.need(row, "behaviour")
    released = column == "score_response"
    slices = {name: _given(row, name, named) for name in SLICES}
    return Labelled(
        id=_given(row, "id", named) or str(number),
        case=Case(prompt, response, _fields(row, fields)),
        behaviour=_behaviour(row, column, {**(RELEASED_VALUES if released else {}), **values}),
        by=_given(row, "by", named) or by or ("gpt-4" if released else "unknown"),
        slices={name: value for name, value in slices.items() if value},
    )


def _behaviour(row: Row, column: str, meaning: Mapping[str, str]) -> str:
    given = row.values[column]
    value = "" if given is None else str(given).strip()
    if not value:
        raise UserError(f"{row.where}: column {column!r} is empty: every response needs a label")
    behaviour = meaning.get(value, value)
    if _NUMBER.fullmatch(behaviour):
        raise UserError(f"{row.where}: label {value!r} names no behaviour: say what it means with --value {value}=…")
    return behaviour


def _fields(row: Row, wanted: Sequence[str]) -> dict[str, str]:
    """The facts that a judge may be given: an object in `fields` (in CSV, its JSON), columns `fields.NAME` or NAME."""
    found = {name: row.values[name] for name in wanted if name in row.values}
    own = row.values.get("fields") or {}
    if isinstance(own, str):
        try:
            own = json.loads(own)
        except (ValueError, RecursionError):
            own = None
    if not isinstance(own, Mapping):
        raise UserError(f'{row.where}: column \'fields\' must be an object such as {{"system": "…"}}')
    found.update(own)
    prefix = "fields."
    found.update({name[len(prefix) :]: value for name, value in row.values.items() if name.startswith(prefix)})
    return {str(name): str(value) for name, value in found.items() if value is not None}


def _given(row: Row, name: str, named: Columns) -> str:
    """What a column that needn't be there holds; nothing if it isn't there and nobody named it."""
    column = named.find(row, name)
    value = None if column is None else row.values[column]
    return "" if value is None else str(value).strip()


def _check_splits(path: Path, rows: Sequence[Labelled]) -> None:
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[prompt_hash(row.case.prompt)].add(row.slices.get("split", ""))
    shared = [found for found in splits.values() if len(found) > 1]
    if shared:
        raise UserError(
            f"{path}: {len(shared)} prompts are in more than one split ({', '.join(sorted(shared[0]))}): "
            "a judge would be measured on what it was made with"
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
    """Several files' labels as one set, without the splits that are to be left out.

    Raises:
        UserError: nothing is left.
    """
    several = len(sets) > 1
    rows = [
        replace(row, id=f"{one.name}/{row.id}", slices={"labels": one.name, **row.slices}) if several else row
        for one in sets
        for row in one.rows
        if row.slices.get("split") not in leave_out
    ]
    name = "+".join(one.name for one in sets)
    if not rows:
        raise UserError(f"{name}: no labelled response is left without the split {', '.join(leave_out)}")
    return LabelSet(name, rows, digest([[row.case.prompt, row.case.response, row.behaviour, row.by] for row in rows]))


def shipped_labels(judge: str, behaviours: Sequence[str], fields: Collection[str] = ()) -> list[Path]:
    """The label files that come with the project for a judge: the one of its name, else the English ones that fit.

    Args:
        judge: Its name.
        behaviours: The judge's; a file that labels others doesn't fit.
        fields: What the judge must be told; a file that lacks one doesn't fit.

    Raises:
        UserError: there are none.
    """
    folder = content_root() / SHIPPED
    own = folder / f"{judge}.jsonl"
    if own.is_file():
        return [own]
    known = {*behaviours, NEITHER}
    fitting = [
        path
        for path in sorted(folder.glob("english_*.jsonl"))
        if all(
            row.behaviour in known and row.case.fields.keys() >= set(fields)
            for row in read_labels(path, fields=sorted(fields)).rows
        )
    ]
    if not fitting:
        raise UserError(f"no labels come with the project for judge {judge}: give some with --labels FILE")
    return fitting


def check_behaviours(labels: LabelSet, behaviours: Sequence[str]) -> None:
    """Sees to it that a judge of these behaviours can be measured on some labels.

    Raises:
        UserError: a label is none of them, and not `neither`.
    """
    for row in labels.rows:
        if row.behaviour not in (*behaviours, NEITHER):
            raise UserError(
                f"{labels.name}, row {row.id}: label {row.behaviour!r} is no behaviour of the judge "
                f"({', '.join(behaviours)}): say what it means with --value {row.behaviour}=BEHAVIOUR"
            )
