"""Responses of a run as people who label are shown them: what the judge is shown, and what each label means.

They are shown neither the configuration nor a verdict.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from cst_bench.compliance.compliance_task import load_task
from cst_bench.compliance.stored_samples import read_samples
from cst_bench.errors import UserError, did_you_mean
from cst_bench.judging import INCAPABLE, RESERVED, find_judge
from cst_bench.judging.find import read_judge_file
from cst_bench.judging.judge import JudgeFile
from cst_bench.runs.run_folder import RunFolder

LabelKey = tuple[str, str, str]
"""Task, prompt id, configuration."""


@dataclass(frozen=True)
class ToLabel:
    """A response to label. It reveals nothing of the judge's verdict, and its key is not for the labeller."""

    key: LabelKey
    prompt: str
    response: str
    behaviours: tuple[str, ...]
    """Possible labels; `neither` and `incapable` come last."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Columns of the row that the judge is given, such as the persona; the same under every configuration."""
    definitions: Mapping[str, str] = field(default_factory=dict)
    """Label → its meaning, as far as it is known."""

    @property
    def response_sha256(self) -> str:
        """Return the hash of the response, so that a label is never applied to another one."""
        return hashlib.sha256(self.response.encode("utf-8", "surrogatepass")).hexdigest()


def tasks_to_label(folder: RunFolder, wanted: Sequence[str]) -> list[str]:
    """Return the compliance tasks of a run: those wanted, or all.

    Raises:
        UserError: the run has no such task, one without responses, or one with several responses to each prompt.
    """
    known = list(folder.settings.compliance)
    for name in wanted:
        if name not in known:
            raise UserError(f"{folder.path} has no compliance task {name!r}: {did_you_mean(name, known)}")
    missing = [name for name in wanted or known if folder.compliance(name).state == "pending"]
    if missing or not known:
        raise UserError(f"{folder.path}: there are no responses of {', '.join(missing) or 'any task'} to label yet")
    repeated = [name for name in wanted or known if folder.settings.compliance[name].repeats]
    if repeated:
        raise UserError(
            f"{folder.path}: {repeated[0]} has several responses to each prompt (--samples, --wordings): label a run "
            "that has one"
        )
    return list(wanted) or known


def responses_to_label(folder: RunFolder, task: str) -> list[ToLabel]:
    """Read all responses of a task under a configuration that asks for something."""
    from cst_bench.compliance.inspect_task import case_of

    behaviours, definitions = _choices(folder, task)
    responses = []
    for sample in chain.from_iterable(map(read_samples, folder.logs(task))):
        if sample.metadata["asked"] is None:
            continue
        case = case_of(sample)
        key = (task, sample.metadata["prompt_id"], sample.metadata["configuration"])
        responses.append(ToLabel(key, case.prompt, case.response, behaviours, case.fields, definitions))
    return responses


def _choices(folder: RunFolder, task: str) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the possible labels of a task, and the meanings of those that have one."""
    asked = tuple(dict.fromkeys(folder.settings.compliance[task].configurations.values()))
    for file in _judge_files(folder, task):
        meanings = file.meanings()
        if set(asked) <= set(meanings):
            reserved = [name for name in RESERVED if name != INCAPABLE or file.incapable is not False]
            behaviours = tuple(dict.fromkeys((*asked, *file.behaviours, *reserved)))
            return behaviours, {name: meanings[name] for name in behaviours if name in meanings}
    return (*asked, *RESERVED), {}


def _judge_files(folder: RunFolder, task: str) -> Iterator[JudgeFile]:
    """Yield the judge files that may define a task's behaviours: first of the judge that the task names, which says
    what the task is about whoever judges it; then of the run's own judges, the earliest first, for a user's own task.
    """
    sources = []
    try:
        own, path = load_task(task)
        sources.append(str(find_judge(own.judge, beside=path)))
    except UserError:
        pass  # a task of the user's own, which the run does not hold
    sources += [judges[task].source for judges in folder.manifest.earlier_judges if task in judges]
    sources.append(folder.settings.compliance[task].judge.source)
    for source in sources:
        try:
            yield read_judge_file(find_judge(source))
        except UserError:
            continue  # its file is no longer there
