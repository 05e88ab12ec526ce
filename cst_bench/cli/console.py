"""Output of the verbs: progress bars on a terminal, plain lines when piped."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cst_bench.escape import plain
from cst_bench.files import json_text

if TYPE_CHECKING:
    from cst_bench.checkpoint.gate import Check
    from cst_bench.runs import RunResult

_SIGNS = {"ok": "[green]ok[/green]", "warning": "[yellow]warning[/yellow]", "failed": "[red]failed[/red]"}


def quiet_libraries() -> None:
    """Hide the progress bars, notices and warnings of other libraries; their errors still show.

    These switches hold for the whole process. Only the command line uses them, since the process is its own: who
    imports cst_bench as a library keeps the warnings. What a user of the command line must know is printed by
    `Progress.note` or raised as a `UserError`, never a Python warning.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is first imported
    warnings.filterwarnings("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave what happens to `main`; rich would exit with 1, which means a gate."""
        raise BrokenPipeError


def make_console(*, stderr: bool = False) -> Console:
    """Make a console that is plain when piped and when NO_COLOR is set."""
    console = _Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = _Console(stderr=stderr, highlight=False, width=80, no_color=True)
    return console


def print_line(text: str, *, stderr: bool = False) -> None:
    """Print a line that is neither wrapped nor read as markup, such as one with a path in it."""
    make_console(stderr=stderr).print(text, soft_wrap=True, markup=False)


def print_file(path: Path) -> None:
    """Print a JSON file as it is."""
    click.echo(path.read_text(encoding="utf-8"), nl=False)


def print_json(content: object) -> None:
    """Print content as JSON."""
    click.echo(json_text(content), nl=False)


def print_result(result: RunResult, *, as_json: bool) -> None:
    """Print what a run ends with: its `scores.json`, or its table and where the report is."""
    if as_json:
        print_file(result.folder / "scores.json")
        return
    from cst_bench.reporting import summary_table

    make_console().print(summary_table(result.run))
    print_line(f"Report: {result.folder / 'report.md'}")


def rate_text(rate: float) -> str:
    """Return steps per second, or per minute if there are fewer, with two digits."""
    if rate >= 100:
        return f"{rate:,.0f}/s"
    return f"{rate:.3g}/s" if rate >= 1 else f"{60 * rate:.2g}/min"


class _RateColumn(ProgressColumn):
    """Steps per second or minute."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else rate_text(task.speed))


class _StageLines:
    """Lines about a stage, at most one an interval."""

    def __init__(self, title: str, total: int, interval: float, write: Callable[[str], None]) -> None:
        self._title, self._total, self._interval, self._write = title, total, interval, write
        self._done = 0
        self._started = self._last = time.monotonic()

    def advance(self, steps: int) -> None:
        """Count steps that are done, and write a line if it is time."""
        self._done += steps
        now = time.monotonic()
        if now - self._last < self._interval or not self._done or self._done >= self._total:
            return
        self._last = now
        rate = self._done / (now - self._started)
        left = timedelta(seconds=round((self._total - self._done) / rate))
        self._write(f"{self._title}: {self._done} of {self._total}, {rate_text(rate)}, about {left} left")

    def end(self) -> str:
        """Return the last line."""
        took = timedelta(seconds=round(time.monotonic() - self._started))
        return f"{self._title}: done in {took}" if took.seconds >= 1 else f"{self._title}: done"


class ConsoleProgress:
    """Progress of a run (`cst_bench.progress.Progress`) on a console."""

    def __init__(self, console: Console | None = None, *, interval: float = 30) -> None:
        """Make the progress of a run.

        Args:
            console: Console to use; that of standard error if None.
            interval: Seconds between two lines about a stage, where there is no terminal.
        """
        self._console = console or make_console(stderr=True)
        self._interval = interval

    def gate(self, label: str, checks: Sequence[Check]) -> None:
        """Print a line for each check."""
        self._console.print(f"Template gate of [bold]{plain(label)}[/bold]", soft_wrap=True)
        for check in checks:
            # what to do about a failed check is in the error that follows
            fix = f" ({check.fix})" if check.fix and check.state == "warning" else ""
            self._console.print(f"  {_SIGNS[check.state]} {check.name}: {plain(check.detail + fix)}", soft_wrap=True)

    def note(self, message: str) -> None:
        """Print a line."""
        self._console.print(plain(message), soft_wrap=True)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar with rate and time left; without a terminal, print a line now and then, and at the end."""
        if not self._console.is_terminal:
            lines = _StageLines(title, total, self._interval, self.note)
            yield lines.advance
            self.note(lines.end())
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task(plain(title), total=total)
            yield lambda steps: bar.advance(task, steps)
            bar.update(task, completed=total)
