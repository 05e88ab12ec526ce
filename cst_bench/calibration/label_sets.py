"""Label sets: published labels by people, as presets that are fetched or read from a local copy when they are used.

`judges/label_sets/NAME.yaml` says where a set comes from, what its columns and labels mean, and what is published of
other judges on it. No text of a set is shipped.
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from cst_bench import content
from cst_bench.calibration.labels import COLUMNS, Labelled, LabelSet, label_row, read_labels
from cst_bench.columns import Columns
from cst_bench.content import Content
from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import SUFFIXES, Row, as_row, read_json, read_rows, text_column, user_cache_folder, write_bytes

FOLDER = "judges/label_sets"
GITHUB = "https://raw.githubusercontent.com"
_SECONDS = 60
"""Timeout of a download."""


class GitHubFile(Content):
    """A file of a repository."""

    path: str
    """Path in the repository."""
    blob: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """Git's hash of the content (`git hash-object`), checked after the download."""


class PromptFile(GitHubFile):
    """A file that has the prompts, where the labelled rows only refer to them."""

    from_column: str = Field(alias="from")
    """Column of the labelled rows that refers to a prompt."""
    key: str | None = None
    """Column of the prompts' file with the same values; None if the reference is a row number, from 0."""
    column: str
    """Column of the prompts' file with the prompt."""


class GitHubSource(Content):
    """Files of a repository at a commit."""

    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """OWNER/NAME."""
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """Commit."""
    files: dict[str, GitHubFile] = Field(min_length=1)
    """Part → its file; the part is a slice of metrics."""
    parts: Literal["model", "part"] = "part"
    """Slice that parts are: `model` where each is named for the model that made its responses."""
    keyed_by: str | None = None
    """For files that are an object of lists of rows: column that gets the key of the row's list."""
    prompts: PromptFile | None = None
    """Where the prompts are, if not in the rows."""


class PublishedResult(Content):
    """Published result of another judge on the set."""

    judge: str
    """Name of the judge."""
    metric: Literal["macro F1", "accuracy"]
    """Metric of the result."""
    value: float = Field(ge=0, le=1)
    """The published value, as a share."""
    source: str
    """Where it was published."""


class LabelSetFile(Content):
    """Content of a label set's file."""

    name: str
    """Name, as in `--labels NAME`."""
    version: int = Field(ge=1)
    """Version; increased by every change that changes rows or labels."""
    title: str
    """Title in reports."""
    description: str
    """Meaning of a label."""
    source: str
    """Publication."""
    licence: str
    """Terms of the data."""
    labelled_by: str
    """Who labelled: `human`, or a model's name."""
    hub: str | None = None
    """Data set id on the Hugging Face Hub, `ID@REVISION`."""
    hub_split: str = "train"
    """Split of the Hub data set; `train+test` concatenates two."""
    github: GitHubSource | None = None
    """Files on GitHub."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Column → its name in the source, where it is not one of the usual names."""
    values: dict[str, str] = Field(default_factory=dict)
    """Label → behaviour."""
    degrees: dict[str, str] = Field(default_factory=dict)
    """Value of the column `degree` → full compliance, partial refusal or full refusal."""
    annotators: list[str] = Field(default_factory=list)
    """Columns with the labels of single people; the majority is the label where the rows have none."""
    verdicts: dict[str, str] = Field(default_factory=dict)
    """Judge → column with its released verdicts."""
    published: list[PublishedResult] = Field(default_factory=list)
    """Published results of other judges."""
    changelog: dict[int, str] = Field(default_factory=dict)
    """Version → what changed."""

    @model_validator(mode="after")
    def _one_source(self) -> LabelSetFile:
        if (self.hub is None) == (self.github is None):
            raise ValueError("give either hub or github")
        return self


def find_label_set(name: str) -> LabelSetFile:
    """Load the file of a label set by name or path.

    Raises:
        UserError: there is no such set, or its file has a fault.
    """
    return content.load(content.find(FOLDER, name, "label set"), LabelSetFile)


def load_labels(
    sources: Iterable[str | Path],
    data: Mapping[str, Path] | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    values: Mapping[str, str] | None = None,
    by: str | None = None,
    split: str | None = None,
    fields: Sequence[str] = (),
) -> list[LabelSet]:
    """Read labels, each source a file or the name of a label set.

    Args:
        sources: Files, or names of label sets.
        data: Label set → a local copy: a file, or a folder whose files begin with the set's name.
        columns: As `read_labels`, for files.
        values: As `read_labels`, for files.
        by: As `read_labels`, for files.
        split: As `read_labels`, for files.
        fields: As `read_labels`.

    Raises:
        UserError: a source is neither a file nor a label set, `data` names a set that is not used, or as `read_labels`.
    """
    unused = dict(data or {})
    sets = []
    for source in sources:
        name = str(source)
        if name in content.names(FOLDER) and not Path(name).exists():
            sets.append(read_label_set(find_label_set(name), unused.pop(name, None)))
        elif not Path(name).exists() and not Path(name).suffix:
            raise UserError(f"{name}: no such file or label set: {did_you_mean(name, content.names(FOLDER))}")
        else:
            path = Path(source)
            sets.append(read_labels(path, columns=columns, values=values, by=by, split=split, fields=fields))
    if unused:
        name = next(iter(unused))
        raise UserError(f"--data {name}=…: labels {name} are not used: give --labels {name}, too")
    return sets


def read_label_set(file: LabelSetFile, data: Path | None = None) -> LabelSet:
    """Read the rows of a label set from a local copy, or fetch them.

    Args:
        file: The label set.
        data: A file with the rows, or a folder whose files begin with the set's name; the columns are those of the
            source or the usual ones.

    Raises:
        UserError: the copy has no such rows, or the source could not be fetched.
    """
    parts = list(_local_parts(file, data) if data is not None else _fetched_parts(file))
    column = "part" if file.github is None else file.github.parts
    rows = []
    for part, source in parts:
        for number, row in enumerate(source, 1):
            labelled = _labelled(file, row, number)
            name = (
                f"{part}/{number}" if len(parts) > 1 else str(number)
            )  # an id of the source may say what is in the row
            rows.append(replace(labelled, id=name, slices={column: part, **labelled.slices}))
    return LabelSet.of(file.name, rows)


def _local_parts(file: LabelSetFile, data: Path) -> Iterator[tuple[str, list[Row]]]:
    paths = [data]
    if data.is_dir():
        paths = sorted(path for path in data.iterdir() if path.name.startswith(file.name) and path.suffix in SUFFIXES)
        if not paths:
            raise UserError(f"--data {file.name}={data}: no data file in this folder has a name that begins so")
    for path in paths:
        yield path.stem.removeprefix(file.name).strip("_-") or file.name, _read(file, path)


def _fetched_parts(file: LabelSetFile) -> Iterator[tuple[str, list[Row]]]:
    from cst_bench.compliance.data import load_hub_rows

    if file.github is None:
        yield file.name, load_hub_rows(str(file.hub), _remedy(file), split=file.hub_split)
        return
    prompts = file.github.prompts
    texts = {} if prompts is None else _prompts(prompts, read_rows(_fetch(file, file.github, prompts)))
    for part, source in file.github.files.items():
        rows = _read(file, _fetch(file, file.github, source))
        yield part, rows if prompts is None else [_with_prompt(row, prompts, texts) for row in rows]


def _read(file: LabelSetFile, path: Path) -> list[Row]:
    """Read the rows of a file, which may be an object of lists of rows."""
    keyed_by = None if file.github is None else file.github.keyed_by
    value = read_json(path) if keyed_by and path.suffix == ".json" else None
    if not isinstance(value, dict):
        return read_rows(path)
    rows = []
    for key, items in value.items():
        for number, item in enumerate(items if isinstance(items, list) else []):
            row = as_row(f"{path}, {key}, row {number}", item)
            rows.append(Row(row.where, {str(keyed_by): key, **row.values}))
    if not rows:
        raise UserError(f"{path}: the data file has no rows")
    return rows


def _prompts(source: PromptFile, rows: Sequence[Row]) -> dict[str, str]:
    """Return the prompts by what rows call them."""
    return {
        str(number if source.key is None else row.values.get(source.key)): text_column(row, source.column)
        for number, row in enumerate(rows)
    }


def _with_prompt(row: Row, source: PromptFile, texts: Mapping[str, str]) -> Row:
    reference = str(row.values.get(source.from_column))
    if reference not in texts:
        raise UserError(f"{row.where}: {source.from_column} {reference!r} is not in {source.path}")
    return Row(row.where, {**row.values, "prompt": texts[reference]})


def _labelled(file: LabelSetFile, row: Row, number: int) -> Labelled:
    """Read a row whose columns are those of the source or the usual ones."""
    values = {**row.values, **{name: row.values[own] for name, own in file.columns.items() if own in row.values}}
    annotations = [_behaviour(file, value) for value in _annotations(file, row)]
    known = tuple(label for label in annotations if label is not None)
    if known and not any(name in values for name in COLUMNS["behaviour"]):
        values["behaviour"] = Counter(known).most_common(1)[0][0]
    if isinstance(degree := values.get("degree"), str):
        values["degree"] = file.degrees.get(degree, degree)
    labelled = label_row(Row(row.where, values), number, Columns(COLUMNS), file.values, file.labelled_by, ())
    verdicts = {
        judge: _behaviour(file, row.values[name]) for judge, name in file.verdicts.items() if name in row.values
    }
    return replace(labelled, annotations=known, verdicts=verdicts)


def _annotations(file: LabelSetFile, row: Row) -> Iterator[object]:
    for name in file.annotators:
        value = row.values.get(name)
        yield from value if isinstance(value, list) else () if value is None else (value,)


def _behaviour(file: LabelSetFile, value: object) -> str | None:
    """Return the behaviour that a label stands for; None if it is not a label."""
    text = str(value).strip()
    return file.values.get(text, text if text in file.values.values() else None)


def _fetch(file: LabelSetFile, source: GitHubSource, wanted: GitHubFile) -> Path:
    """Return a file of the source from the user's cache; it is downloaded into it if it is not there."""
    path = user_cache_folder() / "label_sets" / source.repository / source.revision / wanted.path
    if path.is_file():
        return path
    url = f"{GITHUB}/{source.repository}/{source.revision}/{urllib.parse.quote(wanted.path)}"
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response:  # noqa: S310 - begins with GITHUB, https
            data: bytes = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"could not fetch {url} ({error}): {_remedy(file)}") from None
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    if wanted.blob not in (None, blob):
        raise UserError(f"{url} has other content than the label set expects (Git hash {blob}): {_remedy(file)}")
    write_bytes(path, data)
    return path


def _remedy(file: LabelSetFile) -> str:
    return f"give a local copy with --data {file.name}=FILE"
