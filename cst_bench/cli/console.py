"""What the user sees while a run works: bars on a terminal, plain lines when piped."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cst_bench.checkpoint.gate import Check
from cst_bench.escape import plain

if TYPE_CHECKING:
    from cst_bench.runs import RunResult

_SIGNS = {"ok": "[green]ok[/green]", "warning": "[yellow]warning[/yellow]", "failed": "[red]failed[/red]"}


def quiet_libraries() -> None:
    """Keeps other libraries' bars, notices and warnings off the terminal; their errors still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is first imported
    warnings.filterwarnings("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def make_console(*, stderr: bool = False) -> Console:
    """A console that is plain when piped and when NO_COLOR is set."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=80, no_color=True)
    return console


def show_result(result: RunResult) -> None:
    """The table that a run ends with."""
    from cst_bench.reporting import summary_table

    console = make_console()
    console.print(summary_table(result.scores))
    console.print(f"Report: {result.folder / 'report.md'}", soft_wrap=True, markup=False)


class ConsoleProgress:
    """A run's progress (`cst_bench.progress.Progress`) on a console."""

    def __init__(self, console: Console) -> None:
        """Draws on the console given."""
        self._console = console

    def gate(self, label: str, checks: Sequence[Check]) -> None:
        """A line a check."""
        self._console.print(f"Template gate of [bold]{plain(label)}[/bold]", soft_wrap=True)
        for check in checks:
            self._console.print(f"  {_SIGNS[check.state]} {check.name}: {plain(check.found)}", soft_wrap=True)

    def note(self, message: str) -> None:
        """One line."""
        self._console.print(plain(message), soft_wrap=True)

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar with the time left, or a line when it is done if this is no terminal."""
        if not self._console.is_terminal:
            yield lambda steps: None
            self._console.print(f"{plain(title)}: done")
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task(plain(title), total=total)
            yield lambda steps: bar.advance(task, steps)
            bar.update(task, completed=total)
