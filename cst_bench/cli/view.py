"""`cst-bench view`."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Examples:
  cst-bench view runs/tiny-tiny
  cst-bench view runs/tiny-tiny --port 8080

The logs are shown as plain text: responses are never rendered as Markdown or HTML. Stop the viewer with Ctrl-C."""


@click.command(epilog=EPILOG)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(1, 65535), default=7575, metavar="PORT", help="Port to listen on.")
@click.option(
    "--host",
    default="127.0.0.1",
    metavar="HOST",
    help="Address to listen on; Inspect requires a login for any but the local one.",
)
def command(*, run: Path, port: int, host: str) -> None:
    """Open Inspect's log viewer on the responses and verdicts of RUN."""
    from inspect_ai._view.view import view  # the public `inspect view start` is a thin shell over it

    from cst_bench.errors import UserError
    from cst_bench.reporting.run_check import require_intact
    from cst_bench.runs.run_folder import read_folder

    folder = read_folder(run)
    require_intact(run)
    logs = folder.path / "compliance"
    if not any(logs.rglob("*.eval")):
        raise UserError(f"{run} has no logs of responses: only `cst-bench run` with a compliance task writes them")
    view(log_dir=str(logs), host=host, port=port, trust_content=False)
