"""How a training tells what it is doing, and TRL's callback that tells it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback

from cst_bench.files import write_json
from cst_bench.progress import Progress, Silent

MARK = "complete.json"
"""In a trainer's checkpoint folder: it is whole, and so many seconds of training have led to it."""
SHOWN = {"loss": "loss", "rewards/margins": "margin", "rewards/accuracies": "accuracy"}
"""TRL's names of what is shown, and ours."""


class Steps(Protocol):
    """Receives a training's steps."""

    def step(self, done: int) -> None:
        """So many optimizer steps are done."""

    def metrics(self, done: int, metrics: Mapping[str, float], seconds_left: float) -> None:
        """Loss, reward margin and accuracy of the latest steps."""


class TrainingProgress(Progress, Protocol):
    """What a training reports while it works."""

    def training(self, total: int, done: int) -> AbstractContextManager[Steps]:
        """Training of so many optimizer steps begins, some of which an earlier process has done."""


class Quiet(Silent):
    """Reports nothing."""

    @contextmanager
    def training(self, total: int, done: int) -> Iterator[Steps]:
        """Counts for nobody."""
        yield self

    def step(self, done: int) -> None:
        """Nothing."""

    def metrics(self, done: int, metrics: Mapping[str, float], seconds_left: float) -> None:
        """Nothing."""


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Tells of steps, counts seconds over all processes that worked on a training, and marks whole checkpoints."""

    def __init__(self, progress: TrainingProgress, seconds: float) -> None:
        """
        Args:
            progress: Is told.
            seconds: What earlier processes took.
        """
        self._progress = progress
        self._before = seconds
        self._started = time.monotonic()
        self._first = 0
        self._context: AbstractContextManager[Any] = nullcontext()
        self._steps: Steps = Quiet()
        self.diverged: int | None = None
        """The step at which the loss was no number any more."""

    @property
    def seconds(self) -> float:
        """Of training, so far."""
        return self._before + time.monotonic() - self._started

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The steps are known."""
        self._started = time.monotonic()
        self._first = state.global_step
        if state.is_world_process_zero:
            self._context = self._progress.training(state.max_steps, state.global_step)
            self._steps = self._context.__enter__()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """All steps are done."""
        self.close()

    def close(self) -> None:
        """Ends the bar, whatever has happened."""
        context, self._context = self._context, nullcontext()
        context.__exit__(None, None, None)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One more."""
        self._steps.step(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        """TRL's figures of the latest steps."""
        found = {ours: float(logs[name]) for name, ours in SHOWN.items() if name in (logs or {})} if logs else {}
        if not found:
            return
        if not math.isfinite(found.get("margin", 0.0)):
            self.diverged = state.global_step
            control.should_training_stop = True
        done = state.global_step - self._first
        pace = (time.monotonic() - self._started) / done if done else 0.0
        self._steps.metrics(state.global_step, found, pace * (state.max_steps - state.global_step))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The trainer's checkpoint is written."""
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / MARK, {"seconds": self.seconds})
