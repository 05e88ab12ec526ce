"""A few responses of each task for the report, without their text unless it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.compliance.compliance_task import REFERENCE

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample

PROMPTS = 3


@dataclass(frozen=True)
class Example:
    """One response and what was made of it."""

    prompt_id: str
    configuration: str
    behaviour: str | None
    verdict: str
    prompt: str
    response: str


COLUMNS = ("prompt_id", "configuration", "prompt", "response", "system_prompt", "behaviour", "verdict")
"""Of the tables of responses."""


def examples(log: Path, *, show_text: bool) -> list[Example]:
    """The responses to the first prompts of a judged log, under every configuration."""
    from inspect_ai.log import read_eval_log

    read = read_eval_log(str(log))
    arms = [*(read.eval.metadata or {})["configurations"], REFERENCE]
    by_prompt: dict[str, dict[str, EvalSample]] = {}
    for sample in read.samples or []:
        by_prompt.setdefault(sample.metadata["prompt_id"], {})[sample.metadata["configuration"]] = sample
    chosen = [by_prompt[prompt] for prompt in sorted(by_prompt)[:PROMPTS]]
    return [_example(samples[arm], show_text) for samples in chosen for arm in arms if arm in samples]


def _example(sample: EvalSample, show_text: bool) -> Example:
    from cst_bench.compliance.inspect_task import SCORER, outcome_of

    outcome = outcome_of(sample.metadata, (sample.scores or {})[SCORER])
    if outcome.behaviour is None:
        verdict = f"unscored: {outcome.reason}"
    elif outcome.complied is None:
        verdict = "reference"
    else:
        verdict = "complies" if outcome.complied else "does not comply"
    user = sample.input if isinstance(sample.input, str) else sample.input[-1].text
    return Example(
        outcome.prompt_id,
        outcome.configuration,
        outcome.behaviour,
        verdict,
        user if show_text else redacted(user),
        sample.output.completion if show_text else redacted(sample.output.completion),
    )


def redacted(text: str) -> str:
    """How long a text is, in place of it."""
    words = len(text.split())
    return f"({words} word{'' if words == 1 else 's'}, not shown)"
