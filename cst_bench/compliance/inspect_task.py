"""Compliance tasks as Inspect tasks: `inspect eval cst_bench/tiny_sealed --model …`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalSample
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser, GenerateConfig
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, metric, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from cst_bench.compliance.compliance_task import REFERENCE, ComplianceTask, check_judge, check_wording, load_task
from cst_bench.compliance.data import Prompt, PromptSet, load_prompts
from cst_bench.compliance.scores import Outcome, summarise
from cst_bench.judging import Case, Judge, Verdict, load_judge, uncounted

SCORER = "behaviour"
SampleKey = tuple[str | int, int]
"""A sample's id and epoch."""
on_sample: ContextVar[Callable[[int], None]] = ContextVar("on_sample", default=lambda count: None)
"""Called with 1 whenever a response is there; whoever runs a task sets it to drive a progress bar."""


def build_task(spec: ComplianceTask, prompts: PromptSet, wording: str, judge: Judge, seed: int) -> Task:
    """Every prompt under every configuration and under no system prompt, samples of one prompt together.

    Raises:
        UserError: the judge can't judge this task.
    """
    check_judge(judge, spec.name, spec.asked.values(), spec.data.fields)
    settings = spec.generation
    return Task(
        name=spec.name,
        display_name=spec.title,
        version=spec.version,
        dataset=MemoryDataset(list(_samples(spec, prompts.prompts, wording)), name=prompts.origin),
        solver=answer(seed=seed),
        scorer=behaviour(judge),
        config=GenerateConfig(max_tokens=settings.max_tokens, temperature=settings.temperature, top_p=settings.top_p),
        metadata={"wording": wording, "data_sha256": prompts.sha256, "configurations": list(spec.configurations)},
    )


@task(name="compliance")
def compliance(
    task: str,
    wording: str | None = None,
    data: str | None = None,
    prompts: int | None = None,
    judge: str | None = None,
    seed: int = 0,
) -> Task:
    """A compliance task by name or by path to a task file.

    Args:
        task: Name in `tasks/compliance/` or path to a file of your own.
        wording: Which published wording of the system prompts; the task's default if None.
        data: A local file to read in place of the task's data set.
        prompts: Use only the first so many prompts.
        judge: Another judge than the task's own.
        seed: Each sample's own seed is made from this and the sample's id.
    """
    spec, path = load_task(task)
    chosen = load_prompts(spec, path, data=Path(data) if data else None, limit=prompts)
    judged_by = load_judge(judge) if judge else load_judge(spec.judge, beside=path)
    return build_task(spec, chosen, check_wording(spec, wording), judged_by, seed)


def _samples(spec: ComplianceTask, prompts: list[Prompt], wording: str) -> Iterator[Sample]:
    for prompt in prompts:
        for name, configuration in spec.configurations.items():
            system = spec.system_prompt(name, wording, prompt.systems)
            yield _sample(prompt, name, configuration.behaviour, system)
        yield _sample(prompt, REFERENCE, None, None)


def _sample(prompt: Prompt, configuration: str, asked: str | None, system: str | None) -> Sample:
    messages: list[ChatMessage] = [] if system is None else [ChatMessageSystem(content=system)]
    return Sample(
        id=f"{prompt.id}-{configuration}",
        input=[*messages, ChatMessageUser(content=prompt.text)],
        target=asked or "",
        metadata={
            "prompt_id": prompt.id,
            "configuration": configuration,
            "asked": asked,
            "fields": prompt.fields,
        },
    )


def sample_seed(seed: int, sample_id: str | int, epoch: int) -> int:
    """A seed of 31 bits of its own for each sample, so that what is sampled depends on no neighbour."""
    name = f"{seed}/{sample_id}/{epoch}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:4], "big") >> 1


@solver
def answer(seed: int = 0) -> Solver:
    """One response, sampled (if the task samples) with the sample's own seed."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state = await generate(state, seed=sample_seed(seed, state.sample_id, state.epoch))
        on_sample.get()(1)
        return state

    return solve


@metric(name="compliance")
def compliance_scores() -> Metric:
    """Compliance by configuration and jointly, from the same code that writes `scores.json`."""

    def calculate(scores: list[SampleScore]) -> dict[str, Any]:
        outcomes = [outcome_of(item.sample_metadata or {}, item.score) for item in scores]
        configurations = list(dict.fromkeys(o.configuration for o in outcomes if o.asked is not None))
        summary = summarise(outcomes, configurations)
        wanted = [*configurations, "joint"] if len(configurations) > 1 else configurations
        values = {name: summary[name]["score"] for name in wanted}
        return {name: float("nan") if value is None else value for name, value in values.items()}

    return calculate


@scorer(metrics=[compliance_scores()], name=SCORER)
def behaviour(judge: Judge, verdicts: Mapping[SampleKey, Verdict] | None = None) -> Scorer:
    """1 if the response does what its configuration asks, by the judge's verdict; the answer is the behaviour.

    A reference sample asks for nothing: its behaviour is kept, and it is not scored. Verdicts that are there already
    are taken as they are.
    """

    async def score(state: TaskState, target: Target) -> Score:
        if verdicts is None:
            case = Case(state.user_prompt.text, state.output.completion, state.metadata["fields"])
            (verdict,) = await judge.judge([case], uncounted)
        else:
            verdict = verdicts[state.sample_id, state.epoch]
        by = {"judge": judge.name, "judge_version": judge.version, "judge_sha256": judge.identity}
        if verdict.probabilities is not None:
            by["probabilities"] = dict(verdict.probabilities)
        if verdict.behaviour is None:
            return Score.unscored(reason=verdict.reason, metadata=by)
        asked = state.metadata["asked"]
        if asked is None:
            return Score.unscored(reason="reference arm: nothing is asked for", answer=verdict.behaviour, metadata=by)
        return Score(value=float(verdict.behaviour == asked), answer=verdict.behaviour, metadata=by)

    return score


def case_of(sample: EvalSample) -> Case:
    """What a judge is shown of a sample in a log."""
    text = sample.input if isinstance(sample.input, str) else sample.input[-1].text
    return Case(text, sample.output.completion, sample.metadata["fields"])


def outcome_of(metadata: dict[str, Any], score: Score) -> Outcome:
    """The outcome that a sample's metadata and score hold."""
    return Outcome(
        prompt_id=metadata["prompt_id"],
        configuration=metadata["configuration"],
        asked=metadata["asked"],
        behaviour=score.answer,
        reason=str(score.reason) if score.answer is None else None,
    )
