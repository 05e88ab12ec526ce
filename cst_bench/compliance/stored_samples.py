"""Read the samples of Inspect logs a few at a time, so that memory does not grow with the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

CHUNK = 500
"""Number of samples that are in memory at once."""
SampleKey = tuple[str | int, int]
"""A sample's id and epoch."""
Item = TypeVar("Item")


def read_samples(log: Path) -> Iterator[EvalSample]:
    """Yield the samples of a complete log in the order of `read_eval_log`.

    Inspect's `read_eval_log_samples` reads the log's table of contents once a sample, which takes time with the square
    of their number; this does once a chunk.
    """
    from inspect_ai.log import read_eval_log, read_eval_log_samples_by_id

    for keys in chunks(sample_keys(read_eval_log(str(log), header_only=True))):
        yield from read_eval_log_samples_by_id(str(log), keys)


def read_present_samples(log: Path) -> Iterator[EvalSample]:
    """Yield the samples that a log holds, which may be fewer than it was to have, without events and store."""
    from inspect_ai.log import read_eval_log_sample_summaries, read_eval_log_samples_by_id

    present = [(summary.id, summary.epoch) for summary in read_eval_log_sample_summaries(str(log))]
    for keys in chunks(sorted(present, key=lambda key: _order(*key))):
        yield from read_eval_log_samples_by_id(
            str(log), keys, resolve_attachments="core", exclude_fields={"events", "store"}
        )


def sample_keys(header: EvalLog) -> list[SampleKey]:
    """Return the keys of all samples that a log is to have, in the order of `read_eval_log`."""
    epochs = range(1, (header.eval.config.epochs or 1) + 1)
    keys = [(name, epoch) for name in header.eval.dataset.sample_ids or [] for epoch in epochs]
    return sorted(keys, key=lambda key: _order(*key))


def _order(name: str | int, epoch: int) -> tuple[int, str]:
    return epoch, name if isinstance(name, str) else str(name).zfill(20)


def chunks(items: Sequence[Item] | Iterator[Item]) -> Iterator[list[Item]]:
    """Yield lists of `CHUNK` consecutive items; the last may be shorter."""
    rest = iter(items)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
