"""Read the samples of Inspect logs a few at a time, so that memory does not grow with the log."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cst_bench.errors import UserError

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

_LONGEST_REASON = 200
"""Characters of Inspect's message that are shown."""
CHUNK = 500
"""Number of samples that are in memory at once."""
MAX_PART_BYTES = 1 << 30
"""Most bytes of a part of a log, unpacked: above it, an archive is taken to be made to exhaust memory."""
JUDGED_SUFFIX = ".tmp.eval"
"""End of the name of a log that is just being judged."""
SampleKey = tuple[str | int, int]
"""A sample's id and epoch."""
Item = TypeVar("Item")


def read_samples(log: Path, *, of_compliance: bool = True) -> Iterator[EvalSample]:
    """Yield the samples of a complete log in the order of `read_eval_log`.

    Inspect's `read_eval_log_samples` reads the log's table of contents once a sample, which takes time with the square
    of their number; this does once a chunk. Samples of compliance tasks are checked for what names their prompts.
    """
    from inspect_ai.log import read_eval_log, read_eval_log_samples_by_id

    with explained_log(log):
        for keys in chunks(sample_keys(read_eval_log(str(log), header_only=True))):
            for sample in read_eval_log_samples_by_id(str(log), keys):
                if of_compliance:
                    _check_metadata(sample)
                yield sample


def require_readable_log(log: Path) -> None:
    """Check that all samples of a log can be read.

    Raises:
        UserError: the log is missing or damaged.
    """
    for _ in read_samples(log):
        pass


@contextmanager
def explained_log(log: Path) -> Iterator[None]:
    """Raise what Inspect raises on a damaged log as a one-line `UserError` that names it and says what to do.

    Raises:
        UserError: the log is missing or damaged.
    """
    advice = (
        "restore it from a copy; or delete it and repeat the command that began the run, which makes these responses "
        "again (into a new folder with --out if the run is finished)"
    )
    if not log.is_file():
        raise UserError(f"{log}: the log with the responses is missing: {advice}")
    try:
        with zipfile.ZipFile(log) as archive:
            if large := oversized_part(archive):
                raise ValueError(f"{large} unpacks to more than 1 GiB")
        yield
    except (UserError, GeneratorExit, OSError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
        raise UserError(f"{log}: the log with the responses is damaged ({reason}): {advice}") from error


def oversized_part(archive: zipfile.ZipFile) -> str | None:
    """Return the name of a part that unpacks to more than `MAX_PART_BYTES`; None if there is none."""
    return next((part.filename for part in archive.infolist() if part.file_size > MAX_PART_BYTES), None)


def _check_metadata(sample: EvalSample) -> None:
    """Check what names prompt, configuration and fields of a compliance task's sample, before anything reads it.

    Raises:
        ValueError: something is missing, or is not of its type.
    """
    fields = sample.metadata.get("fields")
    texts = [sample.metadata.get(name) for name in ("prompt_id", "configuration")]
    texts += [*fields.keys(), *fields.values()] if isinstance(fields, dict) else [None]
    if not all(isinstance(text, str) for text in texts) or "asked" not in sample.metadata:
        raise ValueError(f"sample {sample.id} does not say what it is of")


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
