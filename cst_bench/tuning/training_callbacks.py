"""Progress reports of a training, and the callback of TRL's trainer that makes them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from transformers import TrainerCallback

from cst_bench.files import write_json
from cst_bench.interruption import AGAIN, announce
from cst_bench.progress import Progress, Silent

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

COMPLETE = "complete.json"
"""File in a trainer's checkpoint folder that says it was written completely, after how many seconds of training."""
SHOWN = {"loss": "loss", "rewards/margins": "margin", "rewards/accuracies": "accuracy"}
"""TRL's name of a metric → its name in progress reports."""


class Steps(Protocol):
    """Receiver of a training's steps."""

    def step(self, done: int) -> None:
        """Report the number of optimizer steps done."""

    def metrics(self, done: int, metrics: Mapping[str, float], seconds_left: float) -> None:
        """Report loss, reward margin and accuracy of the latest steps."""


class TrainingProgress(Progress, Protocol):
    """Receiver of a training's progress reports."""

    def training(self, total: int, done: int) -> AbstractContextManager[Steps]:
        """Begin a training of `total` optimizer steps, of which earlier processes have done some."""


class Quiet(Silent):
    """Progress of a training that reports nothing."""

    @contextmanager
    def training(self, total: int, done: int) -> Iterator[Steps]:
        """Yield a receiver that ignores all steps."""
        yield self

    def step(self, done: int) -> None:
        """Ignore the step."""

    def metrics(self, done: int, metrics: Mapping[str, float], seconds_left: float) -> None:
        """Ignore the metrics."""


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Reports steps, adds up the seconds of all processes that worked on a training, and flags complete checkpoints.

    After a first signal (`react`) it makes the trainer save a checkpoint at the end of the step, and interrupts.
    """

    def __init__(self, progress: TrainingProgress, seconds: float) -> None:
        """Report to `progress`; `seconds` is the training time of earlier processes."""
        self._progress = progress
        self._earlier = seconds
        self._started = time.monotonic()
        self._first_step = 0
        self._context: AbstractContextManager[Steps | None] = nullcontext()
        self._steps: Steps = Quiet()
        self._announce = announce.get()
        self._in_step = False
        self._stop_requested = False
        self.diverged: int | None = None
        """Step at which the reward margin was not finite any more."""

    @property
    def seconds(self) -> float:
        """Return the seconds of training so far."""
        return self._earlier + time.monotonic() - self._started

    def react(self, requests: int) -> bool:
        """React to a signal, as `cst_bench.interruption.on_signals` asks for it: let an optimizer step end."""
        if requests > 1 or not self._in_step:
            return False
        self._stop_requested = True
        self._announce(f"interrupted: finishing the step and saving a checkpoint; {AGAIN}")
        return True

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Begin the progress report, now that the number of steps is known."""
        self._started = time.monotonic()
        self._first_step = state.global_step
        if state.is_world_process_zero:
            context = self._progress.training(state.max_steps, state.global_step)
            self._context, self._steps = context, context.__enter__()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """End the progress report."""
        self.close()

    def close(self) -> None:
        """End the progress report, if it has not ended."""
        context, self._context = self._context, nullcontext()
        context.__exit__(None, None, None)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Let signals wait for the step, from now on."""
        self._in_step = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Report a step, and save a checkpoint after it if a signal came."""
        self._steps.step(state.global_step)
        if self._stop_requested:
            control.should_save = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **_: object,
    ) -> None:
        """Report TRL's metrics of the latest steps, and stop a training that has diverged."""
        metrics = {name: float(logs[key]) for key, name in SHOWN.items() if key in logs} if logs else {}
        if not metrics:
            return
        if not math.isfinite(metrics.get("margin", 0.0)):
            self.diverged = state.global_step
            control.should_training_stop = True
        done = state.global_step - self._first_step
        pace = (time.monotonic() - self._started) / done if done else 0.0
        self._steps.metrics(state.global_step, metrics, pace * (state.max_steps - state.global_step))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Flag the trainer's checkpoint as complete.

        Raises:
            KeyboardInterrupt: a signal came.
        """
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_json(folder / COMPLETE, {"seconds": self.seconds})
        if self._stop_requested:
            raise KeyboardInterrupt
