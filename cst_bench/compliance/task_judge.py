"""The judge of a compliance task: the one that its file names, in the task's behaviours, and what a judge must know."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cst_bench.compliance.compliance_task import ComplianceTask
from cst_bench.errors import UserError, did_you_mean
from cst_bench.judging import Judge, JudgeOptions, ModelUnusable, find_judge, in_terms_of, judge_name, load_judge


@dataclass(frozen=True)
class ChosenJudge:
    """A judge and where it comes from."""

    judge: Judge
    source: str
    """Name of the judge, or path of its file."""
    note: str | None = None
    """Why it is not the task's judge, if it is not."""


def default_judge(task: ComplianceTask, path: Path, options: JudgeOptions) -> ChosenJudge:
    """Return the judge that a task names, or the one for when the key of that judge's model is not set.

    Args:
        task: The task.
        path: Its file.
        options: What the user says of the model; a model or an endpoint means that it is to be asked.

    Raises:
        UserError: the judge could not be loaded, or does not support the task.
    """
    asked, fields = task.asked.values(), task.data.fields
    source = find_judge(task.judge, beside=path)
    try:
        judge = supporting(load_judge(str(source), options=options), task.name, asked, fields)
    except ModelUnusable as error:
        if task.judge_without_key is None or options.model is not None or options.base_url is not None:
            raise
        other = find_judge(task.judge_without_key, beside=path)
        judge = supporting(load_judge(str(other)), task.name, asked, fields)
        return ChosenJudge(judge, judge_name(other), f"{task.name} is judged by {judge.name} instead: {error}")
    return ChosenJudge(judge, judge_name(source))


def supporting(judge: Judge, task: str, asked: Iterable[str], fields: Iterable[str]) -> Judge:
    """Return the judge in the task's behaviours.

    Raises:
        UserError: as `check_judge`.
    """
    asked = list(asked)
    judge = in_terms_of(judge, asked)
    check_judge(judge, task, asked, fields)
    return judge


def check_judge(judge: Judge, task: str, asked: Iterable[str], fields: Iterable[str]) -> None:
    """Check that the judge supports the task's behaviours and required fields.

    Args:
        judge: The judge.
        task: Name of the task, for the message.
        asked: Behaviours that the task asks for.
        fields: Columns that the task passes to its judge.

    Raises:
        UserError: The judge lacks one of the behaviours, or needs a field that the task does not pass.
    """
    asked, fields = sorted(set(asked)), list(fields)
    if not set(asked) <= set(judge.behaviours):
        raise UserError(
            f"judge {judge.name} distinguishes {', '.join(judge.behaviours)} and cannot judge task {task}, "
            f"which asks for {', '.join(asked)}"
        )
    missing = sorted(judge.fields - set(fields))
    if missing:
        raise UserError(
            f"judge {judge.name} needs the field {missing[0]!r}, which task {task} does not pass to its judge: "
            f"{did_you_mean(missing[0], fields)}"
        )
