"""Find columns of a data file by their usual names or by the name that the user gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import Row


@dataclass(frozen=True)
class Columns:
    """The columns that a reader looks for: their usual names, and those that the user gave."""

    usual: Mapping[str, tuple[str, ...]]
    """Column → the names it may have in a file; the first one that a row has is used."""
    named: Mapping[str, str] = field(default_factory=dict)
    """Column → its name in the file, as the user gave it."""

    def __post_init__(self) -> None:
        """Check that the user names only known columns.

        Raises:
            UserError: an unknown column is named.
        """
        for name in self.named:
            if name not in self.usual:
                raise UserError(f"unknown column {name!r}: {did_you_mean(name, self.usual)}")

    def find(self, row: Row, name: str) -> str | None:
        """Return the name of a column in a row; None if the row has none of the usual names.

        Raises:
            UserError: the row lacks the column that the user named.
        """
        if name in self.named:
            column = self.named[name]
            if column not in row.values:
                raise UserError(f"{row.where}: no column {column!r}: {did_you_mean(column, map(str, row.values))}")
            return column
        return next((column for column in self.usual[name] if column in row.values), None)

    def need(self, row: Row, name: str) -> str:
        """Return the name of a required column in a row.

        Raises:
            UserError: the row has no such column.
        """
        column = self.find(row, name)
        if column is None:
            raise UserError(
                f"{row.where}: no column for {name} ({', '.join(self.usual[name])}) among "
                f"{', '.join(map(str, row.values))}: name it with --column {name}=COLUMN"
            )
        return column
