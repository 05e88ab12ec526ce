"""`cst-bench judge drift`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import json_option

if TYPE_CHECKING:
    from rich.table import Table

    from cst_bench.calibration.drift import Drift

EPILOG = """\b
Examples:
  cst-bench judge calibrate harmlessness --labels anchor.csv --out calibrations/june
  cst-bench judge calibrate harmlessness --labels anchor.csv --out calibrations/july
  cst-bench judge drift calibrations/june calibrations/july
  cst-bench judge drift calibrations/june calibrations/july --max-flips 0.02 --max-loss 0.01

OLD and NEW are folders of `cst-bench judge calibrate`. Answers are cached by judge and model name, so a judge is asked
again for the second only with another cache: set CST_BENCH_CACHE. The exit status is 1 if the share of changed
verdicts, or the loss of agreement with the labels, is above its maximum."""


@click.command(epilog=EPILOG)
@click.argument("old", type=click.Path(path_type=Path, file_okay=False), metavar="OLD")
@click.argument("new", type=click.Path(path_type=Path, file_okay=False), metavar="NEW")
@click.option(
    "--max-flips",
    type=click.FloatRange(0, 1),
    default=0.05,
    metavar="SHARE",
    help="Largest share of changed verdicts.",
)
@click.option(
    "--max-loss",
    type=click.FloatRange(0, 1),
    default=0.02,
    metavar="SHARE",
    help="Largest loss of agreement with the labels.",
)
@json_option("the comparison as JSON")
def command(*, old: Path, new: Path, max_flips: float, max_loss: float, as_json: bool) -> int:
    """Compare the calibrations OLD and NEW of a judge on the labelled responses that both have."""
    from cst_bench.calibration.drift import drift
    from cst_bench.cli.console import make_console, print_json

    result = drift(old, new)
    if as_json:
        print_json(result.as_json())
    else:
        make_console().print(_table(result))
    loss = -(result.agreement_change.value or 0.0)
    return int((result.flips.value or 0.0) > max_flips or loss > max_loss)


def _table(result: Drift) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from cst_bench.numbers import ends, number, signed, signed_ends

    table = Table(title=f"{escape(result.new.name)} on {result.n} responses", title_justify="left", show_header=False)
    then, now = (", ".join(names) or "unknown" for names in result.served)
    table.add_row("model that answered", escape(f"{then}; now {now}"))
    old, new = result.old, result.new
    if old.sha256 != new.sha256:
        table.add_row("judge", escape(f"another one: {old.name} {old.sha256[:12]}…, now {new.name} {new.sha256[:12]}…"))
    table.add_row("changed verdicts", f"{number(result.flips.value, 1, 3)} ({ends(result.flips.interval, 1, 3)})")
    for pair, count in result.changes.items():
        table.add_row(f"  {escape(pair)}", str(count))
    before, after = (number(value, 1, 3) for value in result.agreement)
    table.add_row("agreement with the labels", f"{before}, now {after}")
    change = result.agreement_change
    table.add_row("change", f"{signed(change.value, 1)} ({signed_ends(change.interval, 1)})")
    return table
