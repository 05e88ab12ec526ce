"""`cst-bench judge`: one verb a file, and a run folder in place of a verb to judge that run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import click

from cst_bench.cli.verbs import Verbs


class _Verbs(Verbs):
    package = "cst_bench.cli.judge"
    modules: ClassVar[Mapping[str, str]] = {"train": "train_judge"}
    verbs: ClassVar[dict[str, str]] = {
        "RUN": "Finish or repeat the judging of a run, with its own judge or another.",
        "list": "The judges that can be named, and their calibration.",
        "calibrate": "Measure a judge against labelled responses.",
        "train": "Train a local judge on labelled responses.",
        "attack": "Try to talk a judge round.",
        "label": "Label some of a run's responses by hand, so that its scores can be corrected.",
    }

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """A path in place of a verb is a run to judge."""
        if args and (args[0] == "RUN" or (args[0] not in self.verbs and Path(args[0]).exists())):
            from cst_bench.cli.judge.judge_again import command

            return "RUN", command, args[1:] if args[0] == "RUN" else args
        return super().resolve_command(ctx, args)


@click.command(cls=_Verbs, name="judge")
def command() -> None:
    """Judge a run again, or see how far a judge can be believed.

    \b
    cst-bench judge runs/my-run --judge harmlessness --judge-model openai/gpt-4o
    cst-bench judge calibrate refusal_rules
    """
