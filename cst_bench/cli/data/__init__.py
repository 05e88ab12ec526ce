"""`cst-bench data`: one verb a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import click

from cst_bench.cli.verbs import Verbs

EPILOG = """\b
Examples:
  cst-bench data critique ./my-model --task harmful_behaviors --out pairs
  cst-bench data flip pairs/pairs.jsonl --method cst --task harmful_behaviors --out cst.jsonl
  cst-bench data mix cst.jsonl truthy.jsonl=0.5 --out mixed.jsonl"""


class _Verbs(Verbs):
    package = "cst_bench.cli.data"
    verbs: ClassVar[Mapping[str, str]] = {
        "critique": "Make preference pairs by self-critique: draft, critique, rewrite.",
        "flip": "Turn preference pairs into training rows for CST or DPO.",
        "mix": "Mix several sources of training rows into one multi-task set.",
    }


@click.command(cls=_Verbs, name="data", epilog=EPILOG)
def command() -> None:
    """Make the data that models are trained on."""
