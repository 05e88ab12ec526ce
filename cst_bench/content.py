"""Find the four content folders (tasks, judges, training, reports) and load their YAML.

In a checkout they are beside the package; in a wheel they are inside it, as `cst_bench/_content/`. The engine
reads them as data, by path, and never imports from them. A path to a user's file works wherever a name works.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import has_half_character, read_text

MAX_CHARACTERS = 2**20
"""Most characters of a YAML file."""
MAX_NODES = 100_000
"""Most values in a YAML file, with each alias counted as all that it stands for."""
MAX_DIGITS = 18
"""Most characters of an integer."""
_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq", "timestamp", "merge")
)


class Content(BaseModel):
    """Base class of everything loaded from a content file: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


ContentT = TypeVar("ContentT", bound=Content)
_JsonSchema = dict[str, Any]

RENAMED_KEYS: Mapping[str, str] = {
    "arms": "variants",
    "division": "split",
    "divisions": "splits",
    "split": "hub_split",
}
"""Former key → its present name. A message names it wherever the present key is allowed and the former one is not."""


def content_root() -> Path:
    """Return the folder that holds `tasks/`, `judges/`, `training/` and `reports/`."""
    package = Path(str(files("cst_bench")))
    bundled = package / "_content"
    return bundled if bundled.is_dir() else package.parent


def names(folder: str) -> list[str]:
    """Return the names that `find` accepts in a content folder such as `tasks/compliance`."""
    return sorted(path.stem for path in (content_root() / folder).glob("*.yaml"))


def find(folder: str, name: str, kind: str) -> Path:
    """Return the file for a name (`harmful_behaviors`) or a path to a user's file (`./mine.yaml`).

    Args:
        folder: Content folder to search, such as `tasks/compliance`.
        name: Name without suffix, or path.
        kind: What the file describes, for error messages (`compliance task`).

    Raises:
        UserError: There is no such name or file.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name or "\\" in name:
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(f"{kind} file not found: {name}")
        return path.resolve()
    path = content_root() / folder / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"unknown {kind} {name!r}: {did_you_mean(name, names(folder))}")
    return path


def load(path: Path, schema: type[ContentT]) -> ContentT:
    """Load a YAML file into a content model.

    Raises:
        UserError: The file is invalid (bad YAML, unknown key, wrong type, missing key); names file, line and key.
    """
    data, lines = _parse(str(path), read_text(path))
    if not isinstance(data, dict):
        raise UserError(f"{path}: must be a mapping of keys to values, as in the files beside it")
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise UserError(_explain(path, lines, schema, error)) from None


def parse_yaml(where: str, text: str) -> object:
    """Parse YAML; `where` names it in messages.

    Raises:
        UserError: the text is not YAML, gives a key twice, is too large, or has values that JSON does not have.
    """
    return _parse(where, text)[0]


def _parse(where: str, text: str) -> tuple[object, dict[tuple[str, ...], int]]:
    """Return the content of YAML, and the line of each key and list entry."""
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{where}: {len(text):,} characters, more than {MAX_CHARACTERS:,}: put data into a data file")
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            return None, {}
        _check_scalar(node, where)
        lines: dict[tuple[str, ...], int] = {}
        for number, (at, line) in enumerate(_lines(node, where)):
            if number > MAX_NODES:
                raise UserError(f"{where}: more than {MAX_NODES:,} values, with aliases written out: shorten it")
            lines[at] = line
        return _construct(node), lines
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(_invalid(where, error)) from None


def _construct(node: yaml.Node) -> object:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _invalid(where: str, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{where}:{mark.line + 1}" if mark else where
    if isinstance(error, RecursionError):
        return f"{place}: not valid YAML: nested too deeply, or an alias inside its own anchor"
    return f"{place}: not valid YAML: {' '.join(str(getattr(error, 'problem', None) or error).split())}"


def _check_scalar(node: yaml.Node, where: str) -> None:
    """Refuse values that JSON does not have, or that other parts cannot hold."""
    place = f"{where}:{node.start_mark.line + 1}"
    if node.tag not in _TAGS:
        raise UserError(f"{place}: not valid YAML: a value with the tag {node.tag}: write text or a number")
    if isinstance(node, yaml.ScalarNode):
        if has_half_character(node.value):
            raise UserError(f"{place}: holds half of a character (a lone surrogate)")
        if node.tag.endswith(":int") and len(node.value) > MAX_DIGITS:
            raise UserError(f"{place}: a number of more than {MAX_DIGITS} digits: quote it if it is text")


def _lines(node: yaml.Node, where: str, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield each key and list entry with its line number; refuse duplicate keys, which YAML silently accepts."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{where}:{line}: a key must be text; quote a value that begins with {{ or [")
            if key.value in seen:
                raise UserError(f"{where}:{line}: key {key.value!r} given twice (first on line {seen[key.value]})")
            seen[key.value] = line
            _check_scalar(key, where)
            _check_scalar(value, where)
            yield (*at, key.value), line
            yield from _lines(value, where, (*at, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _check_scalar(value, where)
            yield (*at, str(index)), value.start_mark.line + 1
            yield from _lines(value, where, (*at, str(index)))


def _explain(path: Path, lines: dict[tuple[str, ...], int], schema: type[Content], error: ValidationError) -> str:
    faults = error.errors()
    # a misspelt key comes with "missing" for the right one: report the misspelt one
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    location = tuple(fault["loc"])
    known = tuple(map(str, location))  # pydantic adds parts of its own, such as which type of a union it tried
    while known and known not in lines:
        known = known[:-1]
    place = f"{path}:{lines[known]}" if known else f"{path}"
    key = ".".join(map(str, location) if fault["type"] == "missing" else known)
    if fault["type"] == "extra_forbidden":
        return f"{place}: {_unknown_key(key, str(location[-1]), _fields_at(schema, location[:-1]))}"
    if fault["type"] == "missing":
        return f"{place}: key {key!r} is missing"
    value = fault.get("input")
    shown = f" (given: {value!r})" if isinstance(value, (str, int, float, bool)) and len(repr(value)) < 80 else ""
    message = fault["msg"].removeprefix("Value error, ")
    return f"{place}: {key or 'file'}: {message}{shown}"


def _unknown_key(key: str, name: str, fields: Sequence[str]) -> str:
    renamed = RENAMED_KEYS.get(name)
    if renamed in fields:
        return f"key {key!r} is now called {renamed!r}"
    return f"unknown key {key!r}: {did_you_mean(name, fields)}"


def _fields_at(schema: type[Content], location: Sequence[int | str]) -> list[str]:
    """Return the keys that are allowed at a place in the file, from the JSON form of the schema."""
    root: _JsonSchema = schema.model_json_schema()

    def resolve(node: _JsonSchema) -> list[_JsonSchema]:
        if "$ref" in node:
            return resolve(root["$defs"][node["$ref"].rsplit("/", 1)[-1]])
        options = node.get("anyOf") or node.get("oneOf")
        return [leaf for option in options for leaf in resolve(option)] if options else [node]

    nodes = resolve(root)
    for part in location:
        steps = [
            node["properties"].get(part)
            if part in node.get("properties", {})
            else (node.get("items") if isinstance(part, int) else node.get("additionalProperties"))
            for node in nodes
        ]
        nodes = [leaf for step in steps if isinstance(step, dict) for leaf in resolve(step)]
    return sorted({name for node in nodes for name in node.get("properties", {})})
