"""Read results of promptfoo: `output.json`, `output.jsonl` and `output.csv`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from cst_bench.errors import UserError
from cst_bench.files import read_text
from cst_bench.runs.imports.imported import (
    ERROR,
    FILTERED,
    MISSING,
    NOT_TEXT,
    Document,
    Entry,
    ImportedLog,
    ImportedResponse,
    joined,
    own_prompt,
    parse,
    printable,
    texts,
)

KIND = "promptfoo results"
_ERROR = 2
"""promptfoo's failureReason of a test that failed by an error; 1 is an assertion's, which is no matter here."""
_CSV = ("Status", "Score")
"""Columns that follow each column of responses in a CSV file."""


class Prompt(Entry):
    """The prompt as it was sent: text, or chat messages in JSON."""

    raw: str


class Provider(Entry):
    """The model."""

    id: str | None = None
    label: str | None = None


class Guardrails(Entry):
    """Findings of the provider's filters."""

    flagged: bool | None = None


class Response(Entry):
    """Reply of the provider."""

    output: object = None
    error: str | None = None
    guardrails: Guardrails | None = None


class Result(Entry):
    """One response to one test: an `EvaluateResult` of promptfoo."""

    prompt: Prompt
    vars: dict[str, object] | None = None
    provider: Provider | str | None = None
    response: Response | None = None
    error: str | None = None
    failureReason: int | None = None


class Message(Entry):
    """A chat message in a prompt."""

    role: str
    content: str | list[dict[str, object]]

    @property
    def text(self) -> str | None:
        """Return the message's text; None if a part of it is not text."""
        if isinstance(self.content, str):
            return self.content
        parts = [part.get("text") for part in self.content]
        return "\n".join(map(str, parts)) if all(isinstance(part, str) for part in parts) else None


def fits(document: Document) -> bool:
    """Return whether a file has results of promptfoo."""
    if document.rows:
        return {"promptIdx", "testIdx"} <= document.first.keys()
    return _results(document.value) is not None


def fits_csv(path: Path) -> bool:
    """Return whether the header of a CSV file is one of promptfoo's."""
    header = next(csv.reader(io.StringIO(read_text(path).partition("\n")[0])), [])
    return any(tuple(header[at : at + 2]) == _CSV for at in range(1, len(header)))


def read(document: Document) -> ImportedLog:
    """Read the responses: the prompt's system and last user message, or the prompt and a variable named `system`.

    Raises:
        UserError: a result is not as documented.
    """
    entries: list[tuple[str, object]]
    if document.rows:
        entries = [(row.where, row.values) for row in document.rows]
    else:
        results = _results(document.value)
        if results is None:
            raise UserError(f"{document.path}: has no results.results: export the evaluation as JSON")
        entries = [(f"{document.path}, result {number}", value) for number, value in enumerate(results, 1)]
    return ImportedLog(
        KIND, [_read(where, parse(Result, value, where, "a result of promptfoo")) for where, value in entries]
    )


def _results(value: object) -> Sequence[object] | None:
    """Return the results in a JSON document: those of a summary, which files of `promptfoo eval` have inside."""
    if not isinstance(value, Mapping):
        return None
    inner = value.get("results")
    found = inner.get("results") if isinstance(inner, Mapping) else inner
    return found if isinstance(found, list) and ("version" in value or isinstance(inner, Mapping)) else None


def _read(where: str, result: Result) -> ImportedResponse:
    fields = texts(result.vars or {})
    messages = _messages(result.prompt.raw, where)
    said = [message.text for message in messages or [] if message.role == "user"]
    if messages is None:
        prompt, system = own_prompt(fields, result.prompt.raw) or result.prompt.raw, None
    else:
        prompt = (said[-1] if said else None) or ""
        system = joined(message.text or "" for message in messages if message.role in ("system", "developer"))
    response, reason = _response(result)
    if messages is not None and not prompt:
        reason = reason or NOT_TEXT
    return ImportedResponse(
        where=where,
        prompt=prompt or result.prompt.raw,
        response=response,
        system=system,
        model=_model(result.provider),
        unscored=reason,
        fields=fields,
        user_turns=max(1, len(said)),
    )


def _messages(raw: str, where: str) -> list[Message] | None:
    """Return the chat messages that a prompt is; None for plain text."""
    if not raw.lstrip().startswith("["):
        return None
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(item, dict) and "role" in item for item in value):
        return None
    return [parse(Message, item, where, "a chat message of promptfoo") for item in value]


def _response(result: Result) -> tuple[str, str | None]:
    """Return the text of the response, and why there is nothing to judge."""
    response = result.response
    if result.failureReason == _ERROR or (response is not None and response.error):
        return "", ERROR
    if response is None or response.output is None:
        return "", ERROR if result.error else MISSING
    if response.guardrails is not None and response.guardrails.flagged:
        return "", FILTERED
    output = response.output
    return (output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)), None


def _model(provider: Provider | str | None) -> str | None:
    name = provider if isinstance(provider, str) or provider is None else provider.label or provider.id
    return printable(name) if name else None


def read_csv(path: Path) -> ImportedLog:
    """Read a CSV file, which has the variables of each test and the responses, but no prompt as it was sent.

    The prompt is the variable with a usual name or the one that the user names, the system prompt one named `system`.

    Raises:
        UserError: a row has another number of cells than the header.
    """
    try:
        lines = list(csv.reader(io.StringIO(read_text(path), newline=""), strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: not valid CSV: {error}") from None
    header = lines[0]
    columns = [at - 1 for at in range(1, len(header)) if tuple(header[at : at + 2]) == _CSV]
    responses = []
    for number, cells in enumerate(lines[1:], 1):
        where = f"{path}, row {number}"
        if len(cells) != len(header):
            raise UserError(f"{where}: has {len(cells)} cells and the header {len(header)}")
        fields = dict(zip(header[: columns[0]], cells))
        prompt = next((fields[name] for name in ("prompt", "question", "instruction") if fields.get(name)), None)
        for at in columns:
            failed = cells[at + 1] == "ERROR"
            responses.append(
                ImportedResponse(
                    where=where,
                    prompt=prompt,
                    response="" if failed else cells[at],
                    model=_csv_model(header[at]),
                    unscored=ERROR if failed else None,
                    fields=fields,
                )
            )
    return ImportedLog(KIND, responses)


def _csv_model(column: str) -> str | None:
    """Return the provider in the header of a column of responses: `[openai:gpt-4o] label`."""
    name, bracket, _ = column.removeprefix("[").partition("]")
    return printable(name) if bracket and column.startswith("[") else None
