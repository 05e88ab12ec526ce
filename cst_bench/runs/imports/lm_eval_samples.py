"""Read `samples_TASK_DATE.jsonl`, which lm-eval writes with `--log_samples`, of `generate_until` tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cst_bench.errors import UserError
from cst_bench.files import Row, read_json
from cst_bench.runs.imports.imported import (
    MISSING,
    Document,
    Entry,
    ImportedLog,
    ImportedResponse,
    own_prompt,
    parse,
    printable,
    texts,
)

KIND = "lm-eval samples"
_NAME = re.compile(r"samples_.*_(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d+)")


class Sample(Entry):
    """A line of the file: a document, the requests made for it, and the responses."""

    doc_id: int | str
    doc: dict[str, object]
    arguments: dict[str, dict[str, object]] | list[list[object]]
    """Request → its arguments, by name (`gen_args_0`, `arg_0`) or, before 0.4.3, in lists."""
    resps: list[object]
    """For each request, its responses, before any filter."""
    filter: str = "none"


class Results(Entry):
    """`results_DATE.json` beside the samples: how the prompts were made."""

    model_name: str | None = None
    system_instruction: str | None = None
    chat_template: str | dict[str, str] | None = None
    fewshot_as_multiturn: bool | None = None


def fits(document: Document) -> bool:
    """Return whether a file has samples of lm-eval."""
    return {"doc_id", "doc", "arguments", "resps"} <= document.first.keys()


def read(document: Document) -> ImportedLog:
    """Read the responses before filters. Documents that are there once for each filter are read once.

    The prompt that was sent includes system prompt, shots and chat template. The user's text is taken from a field of
    the document with a usual name that is part of it, else the prompt as it was sent if nothing was put around it.

    Raises:
        UserError: a line is not as documented, or the task has no responses to judge.
    """
    results = _results(document.path)
    samples = [(row, parse(Sample, row.values, row.where, "a sample of lm-eval")) for row in document.rows]
    filters = list(dict.fromkeys(sample.filter for _, sample in samples))
    responses = [
        response for row, sample in samples if sample.filter == filters[0] for response in _read(row, sample, results)
    ]
    notes = []
    if results is None:
        notes.append(
            "There is no results file of lm-eval beside the samples: whether there was a system instruction or a chat "
            "template is not known."
        )
    if len(filters) > 1:
        notes.append(f"Each document is there once for each of {len(filters)} filters: read once, unfiltered.")
    return ImportedLog(KIND, responses, tuple(notes))


def _read(row: Row, sample: Sample, results: Results | None) -> list[ImportedResponse]:
    requests = sample.arguments
    if isinstance(requests, Mapping):
        arguments = [list(request.values()) for request in requests.values()]
    else:
        arguments = [list(request) for request in requests]
    if (
        len(arguments) != 1
        or len(sample.resps) != 1
        or len(arguments[0]) != 2
        or not isinstance(arguments[0][1], Mapping)
    ):
        raise UserError(
            f"{row.where}: has no generated text, but log-likelihoods of given answers or several requests: use the "
            "samples of a generate_until task"
        )
    rendered = arguments[0][0]
    if not isinstance(rendered, str):
        raise UserError(f"{row.where}: the prompt that was sent must be text, not {type(rendered).__name__}")
    first = sample.resps[0]
    given: Sequence[object] = first if isinstance(first, list) else [first]
    fields = texts(sample.doc)
    wrapped = results is None or results.chat_template is not None or results.system_instruction is not None
    prompt = own_prompt(fields, rendered)
    return [
        ImportedResponse(
            where=row.where,
            prompt=prompt if wrapped or prompt is not None else rendered,
            response=text if isinstance(text, str) else "",
            system=results.system_instruction if results is not None else None,
            model=printable(results.model_name) if results is not None and results.model_name else None,
            unscored=None if isinstance(text, str) else MISSING,
            fields=fields,
        )
        for text in given
    ]


def _results(path: Path) -> Results | None:
    """Return the results file that was written with the samples; None if it is not beside them."""
    name = _NAME.match(path.stem)
    results = path.with_name(f"results_{name[1]}.json") if name else None
    if results is None or not results.is_file():
        return None
    return parse(Results, read_json(results), str(results), "results of lm-eval")
