"""Compliance tasks as Inspect tasks: `inspect eval cst_bench/tiny_sealed --model cst/tiny`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalSample
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser, GenerateConfig, ModelOutput
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, metric, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from cst_bench.checkpoint.thought_messages import has_thoughts, missing_answer, split_output
from cst_bench.checkpoint.thoughts import DEFAULT_THINK_TOKENS, Thinking, ThinkTokens
from cst_bench.compliance.call_failures import CallFailures, call_failures
from cst_bench.compliance.compliance_scores import Outcome, summarise
from cst_bench.compliance.compliance_task import (
    REFERENCE,
    ComplianceTask,
    GenerationSettings,
    choose_wordings,
    load_task,
)
from cst_bench.compliance.data import Prompt, PromptSet, load_prompts
from cst_bench.compliance.stored_samples import SampleKey
from cst_bench.compliance.task_judge import default_judge, supporting
from cst_bench.judging import Case, FirstVerdict, Judge, JudgeOptions, Verdict, ignore_progress, judge_cases, load_judge
from cst_bench.judging.degenerate import repeats, was_cut_off

SCORER = "behaviour"
LOG_RESPONSES = 5000
"""Most responses of a log: Inspect holds a few kilobytes of each sample of a log in memory."""
on_sample: ContextVar[Callable[[int], None]] = ContextVar("on_sample", default=lambda count: None)
"""Called with 1 after every response; set it to drive a progress bar."""
known_verdicts: ContextVar[Mapping[SampleKey, Verdict] | None] = ContextVar("known_verdicts", default=None)
"""Verdicts made before, which the scorer uses instead of asking the judge. A parameter of the scorer would be written
into every sample of the log."""


@dataclass(frozen=True)
class ResponseSettings:
    """How the responses to each prompt are made."""

    wordings: tuple[str, ...]
    """Wordings of the system prompts; each gets responses of its own."""
    generation: GenerationSettings
    samples: int = 1
    """Number of responses to each prompt, configuration and wording."""
    seed: int = 0
    """Random seed; each sample's seed is derived from it, the sample's id and its number."""
    thinking: Thinking = field(default_factory=Thinking)
    reference: bool = True
    """Answer each prompt with no system prompt, too."""


def build_task(spec: ComplianceTask, prompts: PromptSet, judge: Judge, settings: ResponseSettings) -> Task:
    """Build the Inspect task: every prompt under every configuration (and with no system prompt), grouped by prompt.

    Raises:
        UserError: The judge lacks a behaviour or needs a field that the task does not have.
    """
    judge = supporting(judge, spec.name, spec.asked.values(), spec.data.fields)
    return Task(
        name=spec.name,
        display_name=spec.title,
        version=spec.version,
        dataset=MemoryDataset(list(_samples(spec, prompts.prompts, settings)), name=prompts.origin),
        solver=answer(seed=settings.seed, think_tokens=settings.thinking.tokens),
        scorer=behaviour(judge),
        config=generate_config(settings.generation, settings.thinking),
        epochs=settings.samples,
        metadata={
            "wording": ", ".join(settings.wordings),
            "data_sha256": prompts.sha256,
            "configurations": list(spec.configurations),
        },
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
    """Build a compliance task from its name or the path to a task file.

    Args:
        task: Name in `tasks/compliance/`, or path to a task file.
        wording: Wording of the system prompts, or `all` for those of the task's `unseen_wordings`; the task's default
            if None.
        data: Local file to read instead of the task's data set.
        prompts: Limit to the first N prompts.
        judge: Judge to use instead of the task's default.
        seed: Random seed; each sample's seed is derived from it and the sample's id.
    """
    spec, path = load_task(task)
    prompt_set = load_prompts(spec, path, data=Path(data) if data else None, limit=prompts)
    loaded_judge = load_judge(judge) if judge else default_judge(spec, path, JudgeOptions()).judge
    wordings = choose_wordings(spec, [] if wording is None else [wording])
    return build_task(spec, prompt_set, loaded_judge, ResponseSettings(wordings, spec.generation, seed=seed))


def log_parts(spec: ComplianceTask, prompts: PromptSet, settings: ResponseSettings) -> list[PromptSet]:
    """Return the prompts in the parts whose responses get a log each; several in the order in which one is read."""
    most = settings.samples * (len(spec.configurations) * len(settings.wordings) + settings.reference)
    size = max(1, LOG_RESPONSES // most)
    if len(prompts.prompts) <= size:
        return [prompts]
    return replace(prompts, prompts=sorted(prompts.prompts, key=lambda prompt: prompt.id)).parts(size)


def count_responses(spec: ComplianceTask, prompts: PromptSet, settings: ResponseSettings) -> int:
    """Return the number of responses of a task."""
    return settings.samples * sum(1 for prompt in prompts.prompts for _ in _asked(spec, prompt, settings))


def _samples(spec: ComplianceTask, prompts: list[Prompt], settings: ResponseSettings) -> Iterator[Sample]:
    for prompt in prompts:
        for asked in _asked(spec, prompt, settings):
            yield _sample(prompt, *asked)


def _asked(
    spec: ComplianceTask, prompt: Prompt, settings: ResponseSettings
) -> Iterator[tuple[str, str | None, str | None, str | None]]:
    """Yield a prompt's configurations, what they ask for, system prompts and, where there are several, wordings."""
    wordings = settings.wordings
    for name, configuration in spec.configurations.items():
        varied = len(wordings) > 1 and configuration.system_column is None
        texts = {spec.system_prompt(name, wording, prompt.systems): wording for wording in reversed(wordings)}
        for system, wording in reversed(texts.items()):  # a text that several wordings share is asked once
            yield name, configuration.behaviour, system, wording if varied else None
    if settings.reference:
        yield REFERENCE, None, None, None


def _sample(prompt: Prompt, configuration: str, asked: str | None, system: str | None, wording: str | None) -> Sample:
    messages: list[ChatMessage] = [] if system is None else [ChatMessageSystem(content=system)]
    return Sample(
        id=f"{prompt.id}-{configuration}" + (f"-{wording}" if wording else ""),
        input=[*messages, ChatMessageUser(content=prompt.text)],
        target=asked or "",
        metadata={
            "prompt_id": prompt.id,
            "configuration": configuration,
            "asked": asked,
            "fields": prompt.fields,
            **({"wording": wording} if wording else {}),
        },
    )


def sample_seed(seed: int, sample_id: str | int, epoch: int) -> int:
    """Derive a 31-bit seed per sample, so that a sampled response does not depend on other samples."""
    key = f"{seed}/{sample_id}/{epoch}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:4], "big") >> 1


def generate_config(settings: GenerationSettings, thinking: Thinking) -> GenerateConfig:
    """Return Inspect's settings of generation."""
    return GenerateConfig(
        max_tokens=settings.max_tokens + thinking.more_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )


@solver
def answer(seed: int = 0, think_tokens: tuple[str, str] = DEFAULT_THINK_TOKENS) -> Solver:
    """Generate one response per sample, with the sample's own seed where the temperature is above 0.

    Args:
        seed: Random seed; each sample's seed is derived from it and the sample's id.
        think_tokens: Markers of thoughts that are still in a response's text, to be split off.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        failures = call_failures.get() or CallFailures()
        failures.require_hope()
        try:
            state = await generate(state, seed=sample_seed(seed, state.sample_id, state.epoch))
        except Exception as error:
            failures.add(error)
            raise
        failures.add_answer()
        _drop_rejection(state.output)
        split_output(state.output, ThinkTokens(*think_tokens))
        on_sample.get()(1)
        return state

    return solve


def _drop_rejection(output: ModelOutput) -> None:
    """Empty an output that is an API's message about a prompt that is too long, which Inspect gives as a response."""
    if output.stop_reason == "model_length" and output.usage is None and output.choices:
        output.choices[0].message.content = ""
        output.completion = ""


@metric(name="compliance", scores="unreduced")
def compliance_scores() -> Metric:
    """Compute compliance per configuration and jointly, with the code that computes `scores.json`.

    It is given every response, not one score for all epochs: those are averaged within each prompt.
    """

    def calculate(scores: list[SampleScore]) -> dict[str, float]:
        return metric_values([outcome_of(item.sample_metadata or {}, item.score) for item in scores])

    return calculate


def metric_values(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return compliance by configuration and jointly; what is undefined is not a number, as Inspect has it."""
    configurations = list(dict.fromkeys(o.configuration for o in outcomes if o.asked is not None))
    summary = summarise(outcomes, configurations)
    values = {name: score.score for name, score in summary.configurations.items()}
    if summary.joint is not None:
        values["joint"] = summary.joint.score
    return {name: float("nan") if value is None else value for name, value in values.items()}


@scorer(metrics=[compliance_scores()], name=SCORER)
def behaviour(judge: Judge) -> Scorer:
    """Score 1 if the judge's verdict is the behaviour the configuration asks for; the answer is the behaviour.

    A reference sample, which has no system prompt, is left unscored with its behaviour as the answer.

    Args:
        judge: The judge, which is not asked where `known_verdicts` is set.
    """

    async def score(state: TaskState, target: Target) -> Score:
        stop_reason = str(state.output.stop_reason)
        case = Case(state.user_prompt.text, state.output.completion, state.metadata["fields"], stop_reason)
        verdicts = known_verdicts.get()
        if verdicts is None:
            (verdict,) = await judge_cases(judge, [case], ignore_progress)
        else:
            verdict = verdicts[state.sample_id, state.epoch]
        metadata = {
            "judge": judge.name,
            "judge_version": judge.version,
            "judge_sha256": judge.identity,
            "cut_off": was_cut_off(stop_reason),
            "repeated": repeats(case.response),
            "words": len(case.response.split()),
            "tokens": _tokens(state.output),
            "reason": missing_answer(state.output) or verdict.reason,
            "epoch": state.epoch,
        }
        if verdict.probabilities is not None:
            metadata["probabilities"] = dict(verdict.probabilities)
        if verdict.first is not None:
            metadata["first"] = asdict(verdict.first)
        if verdict.behaviour is None:
            return Score.unscored(reason=verdict.reason, metadata=metadata)
        asked = state.metadata["asked"]
        if asked is None:
            reason = "reference: no system prompt"
            return Score.unscored(reason=reason, answer=verdict.behaviour, metadata=metadata)
        return Score(value=float(verdict.behaviour == asked), answer=verdict.behaviour, metadata=metadata)

    return score


def _tokens(output: ModelOutput) -> int | None:
    """Return the tokens of a response without thoughts, as its provider counts them; None if it does not."""
    usage = output.usage
    thinks = bool(output.choices) and has_thoughts(output.message)
    if usage is None or (usage.reasoning_tokens is None and thinks):
        return None
    return usage.output_tokens - (usage.reasoning_tokens or 0)


def case_of(sample: EvalSample) -> Case:
    """Return what a judge is shown of a sample in a log."""
    text = sample.input if isinstance(sample.input, str) else sample.input[-1].text
    return Case(text, sample.output.completion, sample.metadata["fields"], str(sample.output.stop_reason))


def outcome_of(metadata: Mapping[str, Any], score: Score) -> Outcome:
    """Return the outcome recorded in a sample's metadata and score."""
    recorded = score.metadata or {}
    return Outcome(
        prompt_id=metadata["prompt_id"],
        configuration=metadata["configuration"],
        asked=metadata["asked"],
        behaviour=score.answer,
        reason=str(score.reason) if score.answer is None else recorded.get("reason"),
        cut_off=recorded.get("cut_off"),
        repeated=recorded.get("repeated"),
        words=recorded.get("words"),
        tokens=recorded.get("tokens"),
        first=FirstVerdict(**recorded["first"]) if "first" in recorded else None,
        wording=metadata.get("wording"),
        epoch=recorded.get("epoch", 1),
    )
