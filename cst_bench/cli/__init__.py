"""The command line: one verb a file, each a thin layer over the library call of the same name.

A verb is imported when it is called, so that `cst-bench --help` answers quickly.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Mapping
from typing import ClassVar

import click

from cst_bench import __version__
from cst_bench.cli.verbs import Verbs
from cst_bench.errors import CstBenchError, UserError
from cst_bench.files import DISK_FULL, has_half_character
from cst_bench.interruption import announce, sigterm_as_sigint
from cst_bench.secrets import redact

EPILOG = """\b
Examples:
  cst-bench run                             evaluate the embedded tiny checkpoint, in about a minute on any machine
  cst-bench run ./my-model --suite paper    evaluate a checkpoint of your own
  cst-bench doctor ./my-model               check its chat template
  cst-bench init task mine                  write a task of your own to start from

`cst-bench COMMAND --help` describes a command. Exit status: 0 done, 1 a --fail-if gate holds, 2 wrong input, 3
interrupted (the same command continues)."""


class _Verbs(Verbs):
    package = "cst_bench.cli"
    verbs: ClassVar[Mapping[str, str]] = {
        "run": "Evaluate a checkpoint on a suite.",
        "score": "Score generations made elsewhere.",
        "judge": "Judge a run again; list, calibrate, train and attack judges.",
        "report": "Write a leaderboard with tables and plots of several runs.",
        "compare": "Compare two runs, paired, with gates for CI.",
        "data": "Make training data: self-critique, flips, mixes.",
        "train": "Train a model on preference rows: DPO or CST, with TRL.",
        "reproduce": "Reproduce the paper: data, training, runs, Tables I to III.",
        "ls": "List runs: state, model, suite, scores.",
        "verify": "Check runs against their receipts; sign them.",
        "view": "Open Inspect's log viewer on a run.",
        "convert": "Write a GGUF file, or an adapter with its base, as one model in safetensors.",
        "doctor": "Check installation, keys and a checkpoint's chat template; estimate what a run costs.",
        "init": "Write a starter file for a task, judge or recipe of your own.",
        "schema": "Print the JSON Schema of a file, for editors and validators.",
    }


@click.command(
    cls=_Verbs,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(__version__, prog_name="cst-bench")
def cli() -> None:
    """Measure whether a model does what its system prompt asks, stays capable, and how far the judge can be trusted."""


_FILE_ERRORS = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
_READER_GONE = 141
"""Exit status where nobody reads the output any more, as shells have it for SIGPIPE."""
_FILE_ERRNOS = {errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY, errno.EIO}
"""Further faults of a path that the user named, which have no class of their own."""


def main() -> None:
    """Run the command line and exit with 0 (done), 1 (a --fail-if gate holds), 2 (wrong input) or 3 (interrupted).

    SIGTERM interrupts as SIGINT does.
    """
    token = announce.set(_print_line)
    try:
        with sigterm_as_sigint():
            _main()
    finally:
        announce.reset(token)


def _main() -> None:
    try:
        for argument in sys.argv[1:]:
            if has_half_character(argument):
                raise UserError(f"{argument!r} is not text in the encoding of this system: rename it, or give another")
        status = cli(prog_name="cst-bench", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except CstBenchError as error:
        _print_error(str(error))
        sys.exit(error.exit_status)
    except (click.Abort, KeyboardInterrupt):
        _print_error(f"interrupted; the same command continues: {_command_to_resume()}")
        sys.exit(3)
    except BrokenPipeError:  # who read the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left cannot be written at the end
        sys.exit(_READER_GONE)
    except OSError as error:
        message = disk_full(error)
        of_a_file = isinstance(error, _FILE_ERRORS) or error.errno in _FILE_ERRNOS
        if message is None and (not of_a_file or error.filename is None):
            raise
        _print_error(message or f"{error.filename}: {error.strerror}")
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)


def _command_to_resume() -> str:
    """Return the command line of this process, without what would begin the work again."""
    return shlex.join(["cst-bench", *(part for part in sys.argv[1:] if part != "--restart")])


def disk_full(error: OSError) -> str | None:
    """Return the message for an error about a full disk; None for any other error."""
    if error.errno not in DISK_FULL:
        return None
    path = f" for {error.filename}" if error.filename else ""
    return f"no space left on the disk{path}: make room and run the same command again; finished parts are kept"


def _print_line(message: str) -> None:
    from cst_bench.cli.console import print_line

    print_line(message, stderr=True)


def _print_error(message: str) -> None:
    """Print an error without keys, and with control characters of what it names shown as such."""
    from cst_bench.escape import visible

    message = "".join(map(visible, redact(message)))
    click.echo(
        f"{click.style('cst-bench:', fg='red', bold=True)} {message}",
        err=True,
        color=False if os.environ.get("NO_COLOR") else None,
    )
