"""Measure what a response costs beside the model: Inspect's work on it, and the judge's."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.compliance.compliance_task import ComplianceTask
from cst_bench.compliance.data import PromptSet
from cst_bench.compliance.judged_log import judge_log
from cst_bench.compliance.logs import generate
from cst_bench.judging import Judge

if TYPE_CHECKING:
    from inspect_ai.model import Model, ModelOutput

    from cst_bench.compliance.inspect_task import ResponseSettings

_PROMPTS = 12
"""Prompts of a measurement."""
_WORDS = "These words stand for a response of the usual length, which a judge reads from its beginning to its end. " * 4


@dataclass(frozen=True)
class ResponseOverhead:
    """Seconds that responses take beside the model."""

    start: float = 0.0
    """Once in a process: imports, mostly."""
    response: float = 0.0
    """Each response."""
    verdict: float = 0.0
    """Each verdict."""


def measure_overhead(
    spec: ComplianceTask, prompts: PromptSet, judge: Judge, settings: ResponseSettings, *, judging: bool
) -> ResponseOverhead:
    """Measure the seconds that a response takes beside the model, and a verdict on it.

    A few responses of a model that answers at once are generated and judged, in a temporary folder.

    Args:
        spec: The task.
        prompts: Its prompts.
        judge: Its judge.
        settings: As for `build_task`.
        judging: Ask the judge; 0 seconds for a verdict if not.
    """
    started = time.monotonic()
    _measure(spec, replace(prompts, prompts=prompts.prompts[:1]), judge, settings, judging)
    start = time.monotonic() - started
    response, verdict = _measure(spec, replace(prompts, prompts=prompts.prompts[:_PROMPTS]), judge, settings, judging)
    return ResponseOverhead(start, response, verdict)


def _measure(
    spec: ComplianceTask, prompts: PromptSet, judge: Judge, settings: ResponseSettings, judging: bool
) -> tuple[float, float]:
    from cst_bench.compliance.inspect_task import build_task

    with tempfile.TemporaryDirectory() as folder:
        task = build_task(spec, prompts, judge, replace(settings, samples=1))
        started = time.monotonic()
        log = generate(task, _instant_model(), Path(folder) / spec.name, lambda _: None)
        generated = time.monotonic()
        verdicts = 0.0
        if judging:
            judge_log(log, judge)
            verdicts = time.monotonic() - generated
    responses = len(task.dataset)
    return (generated - started) / responses, verdicts / responses


def _instant_model() -> Model:
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    def output(*_: object) -> ModelOutput:
        answer = ModelOutput.from_content("mockllm", _WORDS)
        answer.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # else it fetches a tokenizer
        return answer

    return get_model("mockllm/model", memoize=False, custom_outputs=output)
