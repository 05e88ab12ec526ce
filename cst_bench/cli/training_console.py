"""Progress of a training on a console: a bar on a terminal, a line for each of TRL's logs when piped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cst_bench.cli.console import ConsoleProgress

if TYPE_CHECKING:
    from cst_bench.tuning.training_callbacks import Steps


class TrainingConsole(ConsoleProgress):
    """Progress of a training (`cst_bench.tuning.training_callbacks.TrainingProgress`) on a console."""

    def __init__(self, after_step: Callable[[int], None] | None = None) -> None:
        """Report on standard error, and call `after_step` with the number of every step that is done."""
        super().__init__()
        self._after_step = after_step or (lambda done: None)

    @contextmanager
    def training(self, total: int, done: int) -> Iterator[Steps]:
        """Show loss, margin, accuracy and the time left."""
        if not self._console.is_terminal:
            yield _Lines(self._console, total, self._after_step)
            return
        columns = (
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task("", total=total, completed=done, metrics="", left="")
            yield _Bar(bar, task, self._after_step)


class _Lines:
    def __init__(self, console: Console, total: int, after_step: Callable[[int], None]) -> None:
        self._console, self._total, self._after_step = console, total, after_step

    def step(self, done: int) -> None:
        self._after_step(done)

    def metrics(self, done: int, metrics: Mapping[str, float], seconds_left: float) -> None:
        self._console.print(
            f"step {done}/{self._total}  {_format(metrics)}  {_left(seconds_left)}", soft_wrap=True, markup=False
        )


class _Bar:
    def __init__(self, bar: Progress, task: TaskID, after_step: Callable[[int], None]) -> None:
        self._bar, self._task, self._after_step = bar, task, after_step

    def step(self, done: int) -> None:
        self._bar.update(self._task, completed=done)
        self._after_step(done)

    def metrics(self, done: int, metrics: Mapping[str, float], seconds_left: float) -> None:
        self._bar.update(self._task, metrics=_format(metrics), left=_left(seconds_left))


def _format(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())


def _left(seconds: float) -> str:
    return f"{timedelta(seconds=round(seconds))} left"
