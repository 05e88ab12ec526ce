"""Differences between two runs of one model under the same settings, which rounding and the API explain."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cst_bench.reporting.comparable import same_documents
from cst_bench.reporting.stored_run import StoredRun
from cst_bench.statistics.paired import Difference

_SAME = "Both runs are of the same model under the same settings"
_ROUNDING = 1e-3
"""Difference of a document's score in 0 to 1 that rounding explains."""


def rerun_note(run: StoredRun, other: StoredRun, differences: Sequence[Difference]) -> str | None:
    """Describe how far two runs of the same model agree; None if they are not of the same model.

    Args:
        run: A run.
        other: Another one, whose tests and judges are the same.
        differences: Paired differences of their scores.

    Returns:
        How many verdicts and scores of documents differ, and whether a difference of scores has a 95 % interval
        without 0.
    """
    ours, theirs = (
        (
            side.settings.checkpoint.model_dump(exclude={"label", "training", "base"}),
            side.settings.seed,
            side.settings.engine,
        )
        for side in (run, other)
    )
    same_api = run.settings.checkpoint.label == other.settings.checkpoint.label
    if ours != theirs or (run.settings.checkpoint.weights_sha256 is None and not same_api):
        return None
    verdicts = [
        behaviour != other.outcomes.compliance[task].get(configuration, {}).get(prompt)
        for task, configurations in run.outcomes.compliance.items()
        if task in other.outcomes.compliance
        for configuration, prompts in configurations.items()
        for prompt, behaviour in prompts.items()
    ]
    scores = [
        abs(score - other.outcomes.capabilities[task].scores.get(document, math.inf)) > _ROUNDING
        for task, documents in run.outcomes.capabilities.items()
        if same_documents(run, other, task)
        for document, score in documents.scores.items()
    ]
    if not any(verdicts) and not any(scores):
        return f"{_SAME}: the runs are equal"
    counts = [
        f"{sum(changed)} of {len(changed):,} {what}"
        for changed, what in ((verdicts, "verdicts"), (scores, "scores of documents"))
        if changed
    ]
    intervals = [difference.interval for difference in differences if difference.interval is not None]
    apart = sum(not low <= 0 <= high for low, high in intervals)
    result = (
        f"{apart} of {len(intervals)} scores differ by more than chance" if apart else "the scores are equal within it"
    )
    return f"{_SAME}; by rounding or chance {' and '.join(counts)} differ: {result}"
