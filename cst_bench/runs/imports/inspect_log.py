"""Read Inspect logs (`.eval` and `.json`) of any task, through Inspect's own API."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.errors import UserError
from cst_bench.runs.imports.imported import (
    ERROR,
    FILTERED,
    MISSING,
    Document,
    ImportedLog,
    ImportedResponse,
    joined,
    printable,
    texts,
)

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessage

KIND = "an Inspect log"
SUFFIX = ".eval"


def fits(document: Document) -> bool:
    """Return whether a JSON document is an Inspect log."""
    value = document.value
    return isinstance(value, dict) and isinstance(value.get("eval"), dict) and "plan" in value


def read(path: Path) -> ImportedLog:
    """Read a log: the system messages, the last user message and the completion of each sample in each epoch.

    Raises:
        UserError: the log is damaged, or no log of Inspect.
    """
    from inspect_ai.log import read_eval_log

    from cst_bench.compliance.stored_samples import read_present_samples

    if path.suffix.lower() == SUFFIX:
        _check_archive(path)
    location = str(path.resolve())
    try:
        header = read_eval_log(location, header_only=True)
        model = printable(header.eval.model)
        responses = [_response(sample, path, model) for sample in read_present_samples(path)]
    except (ValueError, LookupError, OSError, EOFError, zlib.error, RecursionError) as error:
        reason = type(error).__name__
        raise UserError(
            f"{path}: {KIND} that Inspect cannot read ({reason}): copy it again, or try `inspect log dump`"
        ) from None
    notes = () if header.status == "success" else (f"The log has status {header.status}: samples may be missing.",)
    return ImportedLog(KIND, responses, notes)


def _check_archive(path: Path) -> None:
    """Check that an archive is complete and undamaged before anything of it is kept in memory.

    Importing Inspect has taught `zipfile` the compression of its logs, Zstandard.
    """
    from zstandard import ZstdError

    from cst_bench.compliance.stored_samples import oversized_part

    try:
        with zipfile.ZipFile(path) as archive:
            large = oversized_part(archive)
            damaged = None if large else archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, zlib.error, ZstdError, ValueError) as error:
        detail = printable(str(error)).lower()
        raise UserError(
            f"{path}: not a complete Inspect log ({detail}): copy it again from where it was made"
        ) from None
    if large:
        raise UserError(f"{path}: {printable(large)} unpacks to more than 1 GiB: not read")
    if damaged is not None:
        raise UserError(f"{path}: damaged Inspect log ({printable(damaged)}): copy it again from where it was made")


def _response(sample: EvalSample, path: Path, model: str) -> ImportedResponse:
    from cst_bench.checkpoint.thought_messages import missing_answer

    asked = [] if isinstance(sample.input, str) else sample.input
    messages = sample.messages or asked
    said = [message.text for message in messages if message.role == "user"]
    prompt = said[-1] if said else sample.input if isinstance(sample.input, str) else ""
    reason = None
    if sample.error is not None:
        reason = ERROR
    elif not sample.output.choices:
        reason = MISSING
    elif sample.output.stop_reason == "content_filter":
        reason = FILTERED
    return ImportedResponse(
        where=f"{path}, sample {printable(str(sample.id))}, epoch {sample.epoch}",
        prompt=prompt,
        response="" if reason else sample.output.completion,
        system=_system(messages),
        model=model,
        unscored=reason or missing_answer(sample.output),
        stop_reason=None if reason else str(sample.output.stop_reason),
        fields=_fields(sample),
        user_turns=max(1, len(said)),
    )


def _system(messages: list[ChatMessage]) -> str | None:
    return joined(message.text for message in messages if message.role == "system")


def _fields(sample: EvalSample) -> Mapping[str, str]:
    """Return a sample's metadata; this project's own tasks keep the columns that a judge reads under `fields`."""
    own = sample.metadata.get("fields")
    return {**texts(sample.metadata), **(texts(own) if isinstance(own, dict) else {})}
