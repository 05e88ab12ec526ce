"""Finds the four content folders (tasks, judges, training, reports) and reads their YAML.

In a checkout they lie beside the package; in a wheel they are inside it, as `cst_bench/_content/`. The engine
reads them as data, by path, and never imports from them. A user's own file works wherever a name works.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cst_bench.errors import UserError, did_you_mean


class Content(BaseModel):
    """Base of everything read from a content file: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ContentT = TypeVar("ContentT", bound=Content)


def content_root() -> Path:
    """The folder that holds `tasks/`, `judges/`, `training/` and `reports/`."""
    package = Path(str(files("cst_bench")))
    bundled = package / "_content"
    return bundled if bundled.is_dir() else package.parent


def names(folder: str) -> list[str]:
    """The names that `find` knows in a content folder such as `tasks/compliance`."""
    return sorted(path.stem for path in (content_root() / folder).glob("*.yaml"))


def find(folder: str, name: str, what: str) -> Path:
    """The file of a name (`harmful_behaviors`) or of a path to a file of the user's own (`./mine.yaml`).

    Raises:
        UserError: no such name or file.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name or "\\" in name:
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(f"{what} file not found: {name}")
        return path.resolve()
    path = content_root() / folder / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"unknown {what} {name!r}: {did_you_mean(name, names(folder))}")
    return path


def load(path: Path, schema: type[ContentT]) -> ContentT:
    """Reads a YAML file into a content model.

    Raises:
        UserError: with file, line and key of a fault (bad YAML, unknown key, wrong type, missing key).
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            raise UserError(f"{path}: must be a mapping of keys to values, as in the files beside it")
        lines = dict(_lines(node, path))
        data = _construct(node)
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise UserError(_unreadable(path, error)) from None
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise UserError(_explain(path, lines, schema, error)) from None


def _construct(node: yaml.Node) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _unreadable(path: Path, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{path}:{mark.line + 1}" if mark else f"{path}"
    if isinstance(error, UnicodeDecodeError):
        return f"{place}: not UTF-8 text (byte {error.start})"
    if isinstance(error, OSError):
        return f"{place}: can't be read: {error.strerror}"
    if isinstance(error, RecursionError):
        return f"{place}: not valid YAML: nested too deeply, or an alias stands in its own anchor"
    return f"{place}: not valid YAML: {' '.join(str(getattr(error, 'problem', None) or error).split())}"


def _lines(node: yaml.Node, path: Path, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Where each key and list entry stands; refuses a key given twice, which YAML would silently take."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{path}:{line}: a key must be text; quote a value that begins with {{ or [")
            if key.value in seen:
                raise UserError(f"{path}:{line}: key {key.value!r} given twice (first on line {seen[key.value]})")
            seen[key.value] = line
            yield (*at, key.value), line
            yield from _lines(value, path, (*at, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*at, str(index)), value.start_mark.line + 1
            yield from _lines(value, path, (*at, str(index)))


def _explain(path: Path, lines: dict[tuple[str, ...], int], schema: type[Content], error: ValidationError) -> str:
    faults = error.errors()
    # a misspelt key comes with "missing" for the right one: say which is misspelt
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    where = tuple(fault["loc"])
    known = tuple(str(part) for part in where)  # pydantic adds parts of its own, such as which type of a union it tried
    while known and known not in lines:
        known = known[:-1]
    place = f"{path}:{lines[known]}" if known else f"{path}"
    key = ".".join(map(str, where) if fault["type"] == "missing" else known)
    if fault["type"] == "extra_forbidden":
        return f"{place}: unknown key {key!r}: {did_you_mean(str(where[-1]), _fields_at(schema, where[:-1]))}"
    if fault["type"] == "missing":
        return f"{place}: key {key!r} is missing"
    given = fault.get("input")
    shown = f" (given: {given!r})" if isinstance(given, (str, int, float, bool)) and len(repr(given)) < 80 else ""
    message = fault["msg"].removeprefix("Value error, ")
    return f"{place}: {key or 'file'}: {message}{shown}"


def _fields_at(schema: type[Content], where: tuple[Any, ...]) -> list[str]:
    """The keys that are known at a place in the file, from the schema's JSON form."""
    root = schema.model_json_schema()

    def resolve(node: dict[str, Any]) -> list[dict[str, Any]]:
        if "$ref" in node:
            return resolve(root["$defs"][node["$ref"].rsplit("/", 1)[-1]])
        options = node.get("anyOf") or node.get("oneOf")
        return [leaf for option in options for leaf in resolve(option)] if options else [node]

    nodes = resolve(root)
    for part in where:
        steps = [
            node["properties"].get(part)
            if part in node.get("properties", {})
            else (node.get("items") if isinstance(part, int) else node.get("additionalProperties"))
            for node in nodes
        ]
        nodes = [leaf for step in steps if isinstance(step, dict) for leaf in resolve(step)]
    return sorted({name for node in nodes for name in node.get("properties", {})})
