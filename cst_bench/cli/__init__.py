"""The command line: one verb a file, each thin over a library call of the same name.

Verbs are imported when they are called, so that `cst-bench --help` stays quick.
"""

from __future__ import annotations

import os
import sys
from typing import ClassVar

import click

from cst_bench import __version__
from cst_bench.cli.verbs import Verbs
from cst_bench.errors import CstBenchError


class _Verbs(Verbs):
    package = "cst_bench.cli"
    verbs: ClassVar[dict[str, str]] = {
        "run": "Evaluate a checkpoint on a suite.",
        "score": "Score generations made elsewhere.",
        "judge": "Judge a run again; calibrate, train and attack judges.",
        "report": "Leaderboard, tables and pictures of several runs.",
        "compare": "Compare two runs, paired, with gates for CI.",
        "data": "Make training data: flips of preference pairs, mixes.",
        "train": "Train a model on preference rows: DPO or CST, with TRL.",
        "reproduce": "Run the paper's whole chain, and see Tables I to III.",
        "ls": "List runs: state, model, suite, scores.",
        "view": "Open Inspect's viewer on a run.",
        "doctor": "Show what is installed and usable, and put a checkpoint's chat template through the gate.",
    }


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="cst-bench")
def cli() -> None:
    """Does a model do what its system prompt configures, did it stay capable, can the judge be believed?

    \b
    cst-bench run                        the embedded tiny checkpoint, anywhere, in about a minute
    cst-bench run ./my-model --suite paper
    cst-bench doctor ./my-model          is its chat template sound?
    """


_FILE_ERRORS = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


def main() -> None:
    """Runs the command line. Exit status: 0 done, 1 a threshold not met, 2 bad input, 3 interrupted and resumable."""
    try:
        status = cli(standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except CstBenchError as error:
        _say(str(error))
        sys.exit(error.exit_status)
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted; the same command continues the run")
        sys.exit(3)
    except OSError as error:
        message = disk_full(error)
        if message is None and (not isinstance(error, _FILE_ERRORS) or error.filename is None):
            raise
        _say(message or f"{error.filename}: {error.strerror}")
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)


def disk_full(error: OSError) -> str | None:
    """The message for an error that says there is no room on the disk; None for another error."""
    from cst_bench.files import DISK_FULL

    if error.errno not in DISK_FULL:
        return None
    where = f" for {error.filename}" if error.filename else ""
    return f"no space left on the disk{where}: make room and run the same command again; what is finished is kept"


def _say(message: str) -> None:
    click.echo(
        f"{click.style('cst-bench:', fg='red', bold=True)} {message}",
        err=True,
        color=False if os.environ.get("NO_COLOR") else None,
    )
