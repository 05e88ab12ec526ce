"""`cst-bench judge`: one verb a file, and a run folder instead of a verb to judge that run again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import click

from cst_bench.cli.verbs import Verbs

EPILOG = """\b
Examples:
  cst-bench judge runs/my-run --judge harmlessness --judge-model openai/gpt-4o
  cst-bench judge RUN --help
  cst-bench judge calibrate refusal_rules
  cst-bench judge label runs/my-run --n 100"""


class _Verbs(Verbs):
    package = "cst_bench.cli.judge"
    modules: ClassVar[Mapping[str, str]] = {"RUN": "judge_again", "train": "train_judge"}
    verbs: ClassVar[Mapping[str, str]] = {
        "RUN": "Judge a run again, or finish its judging; RUN is its folder.",
        "list": "List the judges and their calibration.",
        "calibrate": "Measure a judge against labelled responses.",
        "train": "Train a local judge on labelled responses.",
        "bench": "Measure judges beside each other on label sets.",
        "drift": "Compare two calibrations: is it still the same judge?",
        "attack": "Test a judge's robustness to adversarial responses.",
        "label": "Label a run's responses by hand, to correct its scores for judge error.",
    }

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb in the arguments; a path instead of a verb is a run to judge."""
        if args and (args[0] == "RUN" or (args[0] not in self.verbs and Path(args[0]).exists())):
            return "RUN", self.get_command(ctx, "RUN"), args[1:] if args[0] == "RUN" else args
        return super().resolve_command(ctx, args)


@click.command(cls=_Verbs, name="judge", epilog=EPILOG)
def command() -> None:
    """Judge a run again, or measure, train and test judges."""
