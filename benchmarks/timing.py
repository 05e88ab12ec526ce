"""Time several ways to do the same, in turns in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

Output = TypeVar("Output")


@dataclass
class Timed(Generic[Output]):
    """Output of the last of repeated runs, and the seconds of all."""

    output: Output
    seconds: list[float]

    @property
    def median(self) -> float:
        """Return the median of the seconds."""
        return statistics.median(self.seconds)


def interleaved(
    runs: Mapping[str, Callable[[], Output]], repeat: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Timed[Output]]:
    """Time runs in turns, each turn starting with another one."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    outputs: dict[str, Output] = {}
    names = list(runs)
    for turn in range(repeat):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            started = clock()
            outputs[name] = runs[name]()
            seconds[name].append(clock() - started)
    return {name: Timed(outputs[name], seconds[name]) for name in runs}


def with_peak(peaks: dict[str, int], name: str, run: Callable[[], Output]) -> Callable[[], Output]:
    """Return a run that also notes the most bytes that PyTorch held on a GPU; on a CPU, the run itself."""
    import torch

    if not torch.cuda.is_available():
        return run

    def noted() -> Output:
        torch.cuda.reset_peak_memory_stats()
        output = run()
        peaks[name] = max(peaks.get(name, 0), torch.cuda.max_memory_allocated())
        return output

    return noted


def make_clock(device: str) -> Callable[[], float]:
    """Return processor time on a CPU, and wall time after all pending work elsewhere."""
    if device == "cpu":
        return time.process_time

    def clock() -> float:
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    return clock
