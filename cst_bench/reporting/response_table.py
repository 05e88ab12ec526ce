"""A run's responses as Markdown tables in the form of the paper's released ones, one for each compliance task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.compliance.compliance_task import REFERENCE
from cst_bench.compliance.stored_samples import read_samples
from cst_bench.errors import UserError
from cst_bench.escape import cell
from cst_bench.files import free_name, slug, write_text
from cst_bench.reporting.examples import redacted, verdict_text
from cst_bench.reporting.stored_run import StoredRun
from cst_bench.table_files import RESPONSE_COLUMNS

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample


def write_generations(runs: Sequence[StoredRun], folder: Path, *, show_text: bool) -> list[Path]:
    """Write `RUN-TASK.md` for each compliance task, and `RUN-TASK-no-system-prompt.md` for its reference.

    Without `show_text`, texts are replaced by their word counts. With it, they are escaped, so that no response breaks
    its row, and `cst-bench score` reads the table back. The second file of a name is numbered 2.

    Raises:
        UserError: a run has no responses (it was scored from a file), or its logs are missing.
    """
    written: list[Path] = []
    for run in runs:
        tables = list(_tables(run, show_text))
        if not tables:
            raise UserError(f"{run.folder} has no compliance task: there are no responses to show")
        for name, rows in tables:
            path = folder / f"{free_name(name, {earlier.stem for earlier in written})}.md"
            write_text(path, _table(rows))
            written.append(path)
    return written


def _tables(run: StoredRun, show_text: bool) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield file names and rows."""
    for task in run.settings.compliance:
        part = run.manifest.status.compliance.get(task)
        logs = [] if part is None else [run.folder / log for log in part.logs]
        missing = [log for log in logs if not log.is_file()]
        if not logs or missing:
            where = missing[0] if missing else "scored from a file"
            raise UserError(f"{run.folder}: the responses of {task} are missing ({where})")
        rows = [_row(sample, show_text) for log in logs for sample in read_samples(log)]
        for configurations, suffix in ((list(run.configurations(task)), ""), ([REFERENCE], "-no-system-prompt")):
            if chosen := _rows(rows, configurations):
                yield f"{slug(run.folder.name)}-{slug(task)}{suffix}", chosen


def _rows(rows: Iterable[list[str]], configurations: Sequence[str]) -> list[list[str]]:
    """Return the rows of some configurations by prompt, then in the order of the task's configurations."""
    order = {name: at for at, name in enumerate(configurations)}
    return sorted((row for row in rows if row[1] in order), key=lambda row: (row[0], order[row[1]]))


def _row(sample: EvalSample, show_text: bool) -> list[str]:
    from cst_bench.compliance.inspect_task import SCORER, outcome_of

    outcome = outcome_of(sample.metadata, (sample.scores or {})[SCORER])
    messages = [] if isinstance(sample.input, str) else sample.input
    user = sample.input if isinstance(sample.input, str) else messages[-1].text
    system = next((message.text for message in messages if message.role == "system"), "")
    texts = [text if show_text else redacted(text) for text in (user, sample.output.completion)]
    return [outcome.prompt_id, outcome.configuration, *texts, system, outcome.behaviour or "", verdict_text(outcome)]


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [RESPONSE_COLUMNS, tuple("---" for _ in RESPONSE_COLUMNS), *(tuple(map(cell, row)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
