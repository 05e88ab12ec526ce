"""A run's responses as Markdown tables like those that the paper's authors released, one for each compliance task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.compliance.compliance_task import REFERENCE
from cst_bench.errors import UserError
from cst_bench.escape import cell
from cst_bench.files import free_name, slug, write_text
from cst_bench.reporting.examples import COLUMNS, redacted
from cst_bench.reporting.stored_run import StoredRun

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample


def write_generations(runs: Sequence[StoredRun], folder: Path, *, show_text: bool) -> list[Path]:
    """Writes `RUN-TASK.md` for each compliance task, and `RUN-TASK-no-system-prompt.md` for its reference arm.

    Without `show_text`, texts are only counted. With it, they are escaped, so that no response breaks its row, and
    `cst-bench score` reads the table back. The second file of a name is numbered 2.

    Raises:
        UserError: a run keeps no responses, as one that was scored from a file, or its logs are gone.
    """
    written: list[Path] = []
    for run in runs:
        tables = list(_tables(run, show_text))
        if not tables:
            raise UserError(f"{run.folder} has no compliance task: there are no responses to show")
        for name, rows in tables:
            path = folder / f"{free_name(name, {known.stem for known in written})}.md"
            write_text(path, _table(rows))
            written.append(path)
    return written


def _tables(run: StoredRun, show_text: bool) -> Iterator[tuple[str, list[list[str]]]]:
    """Names and rows."""
    from inspect_ai.log import read_eval_log

    for task, part in run.manifest["status"]["compliance"].items():
        log = run.folder / part["log"] if "log" in part else None
        if log is None or not log.is_file():
            raise UserError(f"{run.folder}: the responses of {task} are not there ({log or 'scored from a file'})")
        samples = read_eval_log(str(log)).samples or []
        for arms, suffix in ((list(run.configurations(task)), ""), ([REFERENCE], "-no-system-prompt")):
            if rows := _rows(samples, arms, show_text):
                yield f"{slug(run.folder.name)}-{slug(task)}{suffix}", rows


def _rows(samples: Iterable[EvalSample], arms: Sequence[str], show_text: bool) -> list[list[str]]:
    """By prompt, then in the order of the task's configurations."""
    chosen = [sample for sample in samples if sample.metadata["configuration"] in arms]
    ordered = sorted(chosen, key=lambda one: (one.metadata["prompt_id"], arms.index(one.metadata["configuration"])))
    return [_row(sample, show_text) for sample in ordered]


def _row(sample: EvalSample, show_text: bool) -> list[str]:
    from cst_bench.compliance.inspect_task import SCORER, outcome_of

    outcome = outcome_of(sample.metadata, (sample.scores or {})[SCORER])
    messages = [] if isinstance(sample.input, str) else sample.input
    user = sample.input if isinstance(sample.input, str) else messages[-1].text
    system = next((message.text for message in messages if message.role == "system"), "")
    if outcome.behaviour is None:
        verdict = f"unscored: {outcome.reason}"
    elif outcome.complied is None:
        verdict = "nothing was asked for"
    else:
        verdict = "complies" if outcome.complied else "does not comply"
    texts = [text if show_text else redacted(text) for text in (user, sample.output.completion)]
    return [outcome.prompt_id, outcome.configuration, *texts, system, outcome.behaviour or "", verdict]


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [COLUMNS, tuple("---" for _ in COLUMNS), *(tuple(map(cell, row)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
