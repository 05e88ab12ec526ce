"""Inspect's samples as work in flight: after a first signal, those that have begun are finished and logged."""

from __future__ import annotations

from functools import partial

from inspect_ai.hooks import Hooks, SampleEnd, SampleStart, hooks

from cst_bench.checkpoint.engine import may_begin
from cst_bench.interruption import in_flight


@hooks(name="cst_bench_in_flight", description="Finishes samples in flight before an evaluation is interrupted.")
class SamplesInFlight(Hooks):
    """Counts the samples of a call of `cst_bench.compliance.logs.generate`, and of no other evaluation."""

    def enabled(self) -> bool:
        """Return whether signals are handled here."""
        return in_flight.get() is not None

    async def on_sample_start(self, data: SampleStart) -> None:
        """Admit a sample; in a checkpoint's queue it begins with its first row that is decoded."""
        work = in_flight.get()
        if work is not None:
            may_begin.set(partial(work.begin, data.sample_id))
            await work.admit(data.sample_id)

    async def on_sample_end(self, data: SampleEnd) -> None:
        """Count a sample as ended, now that it is in the log."""
        work = in_flight.get()
        if work is not None:
            work.end(data.sample_id)
