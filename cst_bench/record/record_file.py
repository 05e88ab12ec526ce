"""Base classes of the records: frozen models, and files that carry their schema version."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from cst_bench.errors import UserError
from cst_bench.files import canonical_json, json_text, parse_json, read_json, read_text, write_text


class Record(BaseModel):
    """Base of everything that a record file holds: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    def as_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        return self.model_dump(mode="json", by_alias=True)


RecordT = TypeVar("RecordT", bound=Record)


def validated(kind: type[RecordT], content: object, where: str, advice: str) -> RecordT:
    """Return a JSON value as a record.

    Args:
        kind: The record.
        content: The value.
        where: What it was read from, for the message.
        advice: What the user can do if it is damaged, for the message.

    Raises:
        UserError: the value is not such a record.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        message = f"{place}: {fault['msg']}" if place else fault["msg"]
        raise UserError(f"{where} is damaged: {message}: {advice}") from None


def read_record_lines(path: Path, kind: type[RecordT], advice: str) -> list[RecordT]:
    """Read a file that has a record on each line; none if there is no file. Arguments are as for `validated`.

    Raises:
        UserError: the file could not be read, or a line is not such a record.
    """
    if not os.path.lexists(path):
        return []
    try:
        lines = read_text(path).removesuffix("\n").split("\n")  # splitlines() would split inside of JSON strings too
        contents = [parse_json(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if lines != [""]]
    except UserError as error:
        raise UserError(f"{error}: {advice}") from None
    return [validated(kind, content, f"{path}:{number}", advice) for number, content in enumerate(contents, 1)]


class RecordFile(Record):
    """A JSON file of a folder, with one class for its writers and its readers.

    A subclass has the field `schema_version` (key `schema`), whose only value is the version that it reads and writes.
    """

    FILE_NAME: ClassVar[str]
    WRITTEN_BY: ClassVar[str]
    """Command that writes the file, for the message when it is missing or outdated; `{folder}` is its folder."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Require `schema`, which `read` does: its default is there for writers only."""
        schema = handler(core)
        inner = handler.resolve_ref_schema(schema)
        inner["required"] = ["schema", *inner.get("required", [])]
        return schema

    @classmethod
    def schema_number(cls) -> int:
        """Return the schema version that this class reads and writes."""
        version = cls.model_fields["schema_version"].default
        assert isinstance(version, int)
        return version

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the file of a folder.

        Raises:
            UserError: the file is missing, unreadable, of another schema version, or damaged.
        """
        return cls.read_path(folder / cls.FILE_NAME)

    @classmethod
    def read_path(cls, path: Path) -> Self:
        """Read a file, whatever its name.

        Raises:
            UserError: as `read`.
        """
        advice = cls.WRITTEN_BY.format(folder=path.parent)
        if not os.path.lexists(path):
            raise UserError(f"{path.parent} has no {path.name}: {advice}")
        try:
            content = read_json(path)
        except UserError as error:
            raise UserError(f"{error}: {advice}") from None
        if not isinstance(content, dict) or "schema" not in content:
            raise UserError(f"{path} is not a file that cst-bench wrote: {advice}")
        version, known = content["schema"], cls.schema_number()
        if version != known:
            age = "an older" if isinstance(version, int) and version < known else "another"
            raise UserError(
                f"{path} was written by {age} cst-bench (schema {version!r}; this one reads {known}): {advice}"
            )
        return validated(cls, content, str(path), advice)

    def write(self, folder: Path, *, compact: bool = False) -> None:
        """Write the file into a folder, whole or not at all; `compact` is one line with sorted keys."""
        write_text(folder / self.FILE_NAME, self.text(compact=compact))

    def text(self, *, compact: bool = False) -> str:
        """Return what `write` writes."""
        return canonical_json(self.as_json()) + "\n" if compact else json_text(self.as_json())
