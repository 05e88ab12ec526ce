"""A group of verbs that are imported when they are called, so that `--help` stays quick."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar

import click


class Verbs(click.Group):
    """Lists the verbs without importing them; each is a module of a package, with `command` in it."""

    package: ClassVar[str]
    verbs: ClassVar[dict[str, str]]
    """Name → one line of help."""
    modules: ClassVar[Mapping[str, str]] = {}
    """Verb → module, where the module is not called like the verb."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Imports the verb's module."""
        if name not in self.verbs:
            return None
        command: click.Command = import_module(f"{self.package}.{self.modules.get(name, name)}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs and their lines."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.verbs.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """An unknown verb is one message with the nearest."""
        from cst_bench.errors import UserError, did_you_mean

        if args and args[0] not in self.verbs and not args[0].startswith("-"):
            raise UserError(f"unknown command {args[0]!r}: {did_you_mean(args[0], self.verbs)}")
        return super().resolve_command(ctx, args)
