"""A few responses of each task for the report, without their text unless requested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.compliance.compliance_task import REFERENCE
from cst_bench.compliance.stored_samples import read_samples

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample

PROMPTS = 3


@dataclass(frozen=True)
class Example:
    """One response and its verdict."""

    prompt_id: str
    configuration: str
    behaviour: str | None
    verdict: str
    prompt: str
    response: str


def examples(logs: Sequence[Path], *, show_text: bool) -> list[Example]:
    """Return the responses to the first prompts of a task's judged logs, under every configuration."""
    from inspect_ai.log import read_eval_log

    header = read_eval_log(str(logs[0]), header_only=True)
    configurations = [*(header.eval.metadata or {})["configurations"], REFERENCE]
    shown: list[Example] = []
    # samples are in the order of their ids, which begin with the prompt's
    once = (sample for log in logs for sample in read_samples(log) if sample.epoch == 1)
    by_prompt = groupby(once, key=lambda sample: sample.metadata["prompt_id"])
    for _, samples in islice(by_prompt, PROMPTS):
        first: dict[str, EvalSample] = {}
        for sample in samples:
            first.setdefault(sample.metadata["configuration"], sample)
        shown += [_example(first[name], show_text) for name in configurations if name in first]
    return shown


def _example(sample: EvalSample, show_text: bool) -> Example:
    from cst_bench.compliance.inspect_task import SCORER, outcome_of

    outcome = outcome_of(sample.metadata, (sample.scores or {})[SCORER])
    user = sample.input if isinstance(sample.input, str) else sample.input[-1].text
    return Example(
        outcome.prompt_id,
        outcome.configuration,
        outcome.behaviour,
        verdict_text(outcome),
        user if show_text else redacted(user),
        sample.output.completion if show_text else redacted(sample.output.completion),
    )


def verdict_text(outcome: Outcome) -> str:
    """Return the verdict on a response in words."""
    if outcome.behaviour is None:
        return f"unscored: {outcome.reason}"
    if outcome.complied is None:
        return "reference"
    return "complies" if outcome.complied else "does not comply"


def redacted(text: str) -> str:
    """Return the number of words of a text instead of the text."""
    words = len(text.split())
    return f"({words} word{'' if words == 1 else 's'}, not shown)"
