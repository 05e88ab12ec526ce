"""A few responses of each task for the report, without their text unless requested."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.compliance.compliance_task import REFERENCE

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


def examples(log: Path, *, show_text: bool) -> list[Example]:
    """Return the responses to the first prompts of a judged log, under every configuration."""
    from inspect_ai.log import read_eval_log

    read = read_eval_log(str(log))
    configurations = [*(read.eval.metadata or {})["configurations"], REFERENCE]
    by_prompt: dict[str, dict[str, EvalSample]] = {}
    for sample in read.samples or []:
        by_prompt.setdefault(sample.metadata["prompt_id"], {}).setdefault(sample.metadata["configuration"], sample)
    chosen = [by_prompt[prompt] for prompt in sorted(by_prompt)[:PROMPTS]]
    return [_example(samples[name], show_text) for samples in chosen for name in configurations if name in samples]


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
