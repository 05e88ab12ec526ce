"""Base classes of the records: frozen models, and files that carry their schema version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from cst_bench.errors import UserError
from cst_bench.files import canonical_json, json_text, write_text


class Record(BaseModel):
    """Base of everything that a record file holds: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    def as_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        return self.model_dump(mode="json", by_alias=True)


class RecordFile(Record):
    """A JSON file of a folder, with one class for its writers and its readers.

    A subclass has the field `schema_version` (key `schema`), whose only value is the version that it reads and writes.
    """

    FILE_NAME: ClassVar[str]
    WRITTEN_BY: ClassVar[str]
    """What makes the file, for the message when it is missing or of another version; `{folder}` is its folder."""

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
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path.parent} has no {path.name}: {advice}") from None
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path} could not be read: {' '.join(str(error).split())}") from None
        if not isinstance(content, dict) or "schema" not in content:
            raise UserError(f"{path} is not a file that cst-bench wrote: {advice}")
        version, known = content["schema"], cls.schema_number()
        if version != known:
            age = "an older" if isinstance(version, int) and version < known else "another"
            raise UserError(
                f"{path} was written by {age} cst-bench (schema {version!r}; this one reads {known}): {advice}"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, fault["loc"]))
            raise UserError(f"{path} is damaged: {place}: {fault['msg']}") from None

    def write(self, folder: Path, *, compact: bool = False) -> None:
        """Write the file into a folder, whole or not at all; `compact` is one line with sorted keys."""
        write_text(folder / self.FILE_NAME, self.text(compact=compact))

    def text(self, *, compact: bool = False) -> str:
        """Return what `write` writes."""
        return canonical_json(self.as_json()) + "\n" if compact else json_text(self.as_json())
