"""Groups of verbs that import a verb only when it is called, so that `--help` answers quickly."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar

import click


class Verbs(click.Group):
    """A group that lists its verbs without importing them; each is a module of `package` with a `command`."""

    package: ClassVar[str]
    verbs: ClassVar[Mapping[str, str]]
    """Name → one line of help."""
    modules: ClassVar[Mapping[str, str]] = {}
    """Verb → module, where the module has another name than the verb."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the verbs in the order of `verbs`."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import and return a verb; None if it is unknown."""
        if name not in self.verbs:
            return None
        command: click.Command = import_module(f"{self.package}.{self.modules.get(name, name)}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs into the group's help."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.verbs.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb in the arguments.

        Raises:
            UserError: there is no such verb; the message names the nearest.
        """
        from cst_bench.errors import UserError, did_you_mean

        if args and args[0] not in self.verbs and not args[0].startswith("-"):
            raise UserError(f"unknown command {args[0]!r}: {did_you_mean(args[0], self.verbs)}")
        return super().resolve_command(ctx, args)
