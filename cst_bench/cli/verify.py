"""`cst-bench verify`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import json_option

if TYPE_CHECKING:
    from rich.table import Table

    from cst_bench.reporting.verification import VerifiedRun

EPILOG = """\b
Examples:
  cst-bench verify runs/my-run
  cst-bench verify runs/ --json                                 all runs in a folder
  cst-bench verify runs/my-run --sign ~/.ssh/id_ed25519         sign its receipt with an SSH key
  cst-bench verify runs/my-run --allowed-signers signers.txt    it must be signed by one of these

A finished run has a receipt (receipt.json): SHA-256 of every file that its numbers come from. Who can write the folder
can write another receipt, too: a signature shows whose it is. FILE has a line for each signer, such as
`anna@example.org ssh-ed25519 AAAA…` (`man ssh-keygen`, "ALLOWED SIGNERS").

The exit status is 0 if every run is intact, else 2."""


@click.command(epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--sign",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="KEY",
    help="SSH key to sign the receipts with, if the runs are intact.",
)
@click.option(
    "--allowed-signers",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Require a signature by one of the signers in FILE.",
)
@json_option("the result as JSON")
def command(*, runs: tuple[Path, ...], sign: Path | None, allowed_signers: Path | None, as_json: bool) -> int:
    """Verify that the files of RUN are those that the run was finished with."""
    from cst_bench.cli.console import make_console, print_json, print_line
    from cst_bench.reporting.verification import verify

    verified = verify(runs, allowed_signers=allowed_signers, sign=sign)
    if as_json:
        print_json([run.as_json() for run in verified])
    else:
        make_console().print(_table(verified, allowed_signers is not None))
        for run in verified:
            for note in run.notes:
                print_line(f"{run.folder}: {note}")
    for run in verified:
        for problem in run.problems:
            print_line(problem, stderr=True)
    return 0 if all(run.verified for run in verified) else 2


def _table(verified: Sequence[VerifiedRun], checked: bool) -> Table:
    """Return the runs as a table, 80 columns wide at most."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from cst_bench.escape import plain
    from cst_bench.record import SHORT

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Run", overflow="fold")
    table.add_column("State", no_wrap=True)
    table.add_column("Files", justify="right", no_wrap=True)
    table.add_column("Receipt", no_wrap=True)
    table.add_column("Signed by" if checked else "Signed by (not checked)", overflow="fold")
    for run in verified:
        color = "green" if run.verified else "red"
        state = f"[{color}]{run.state}[/{color}]"
        receipt = "" if run.receipt is None else run.receipt[:SHORT]
        table.add_row(plain(run.folder), state, str(run.files or ""), receipt, plain(run.signed_by or ""))
    return table
