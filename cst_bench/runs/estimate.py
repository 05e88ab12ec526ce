"""Estimate what a run costs in time, memory and calls, by measuring a second or two of its own work.

What is left of a run that was cut off is counted alone. Nothing is written into the run, and the model is left as it
was.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import zip_longest
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from cst_bench.capabilities import ScoringCost, estimate_scoring
from cst_bench.capabilities import load as load_result
from cst_bench.checkpoint.decoding_rates import DecodingRates, Lengths, measure_decoding
from cst_bench.checkpoint.evaluated_model import EvaluatedModel
from cst_bench.checkpoint.generation import default_rows, response_row
from cst_bench.checkpoint.memory import MemoryNeed, memory_need
from cst_bench.checkpoint.sampling import Sampling, SamplingRow
from cst_bench.compliance.logs import finished_responses
from cst_bench.compliance.overhead import ResponseOverhead, measure_overhead
from cst_bench.judging import asked_models
from cst_bench.runs.run_folder import RunFolder
from cst_bench.runs.run_plan import Plan, PlannedCapability, PlannedCompliance

if TYPE_CHECKING:
    from inspect_ai.dataset import Dataset

    from cst_bench.checkpoint import Checkpoint
    from cst_bench.compliance.inspect_task import ResponseSettings

_DECODING_SECONDS = 2.0
"""Time to measure decoding."""
_SCORING_SECONDS = 1.0
"""Time to measure the scoring of each capability."""
_CONVERSATIONS = 32
"""Conversations of each task that are rendered, and those of them decoded for which there is time."""
_NEGLIGIBLE = 0.02
"""Share of a response's decoding below which its overhead is not measured."""
_USUAL_OVERHEAD = 0.01
"""Seconds that Inspect usually takes for a response."""
_USUAL_DOCUMENTS, _USUAL_TOKENS = 5000, 500
"""Documents of a capability, and tokens of a document or of a response with its prompt, for `rough_seconds`."""
_OPERATIONS = {"cpu": 1e11, "cuda": 1e13}
"""Floating-point operations in a second, for `rough_seconds`."""


@dataclass(frozen=True)
class TaskEstimate:
    """Estimated cost of one task, or of what is left of it."""

    title: str
    unit: Literal["responses", "documents"]
    samples: int
    """Responses to make or documents to score."""
    tokens: int | None = None
    """Tokens of prompts and responses, or of documents; None for an API model."""
    response_tokens: int = 0
    """Those of responses among them."""
    seconds: float | None = None
    """None for an API model, whose speed is not measured."""


@dataclass(frozen=True)
class RunEstimate:
    """Estimated cost of a run, or of what is left of it."""

    tasks: tuple[TaskEstimate, ...]
    start: float = 0.0
    """Seconds that a run takes once for imports, which this estimate has spent."""
    memory: MemoryNeed | None = None
    """None for an API model."""
    calls: Mapping[str, int] = field(default_factory=dict)
    """API model → calls at most: of the evaluated model and of judges."""
    decoded: int = 0
    """Responses that were begun to measure."""
    unfinished: int = 0
    """Those of them that did not end in that time; they are taken to be as long as they may be."""

    @property
    def seconds(self) -> float | None:
        """Return the estimated time; None for an API model, and where no work of a model is left."""
        times = [task.seconds for task in self.tasks]
        return sum(seconds for seconds in times if seconds is not None) if times and None not in times else None

    @property
    def summary(self) -> str:
        """Return the estimate as one line."""
        costs = [] if self.seconds is None else [duration(self.seconds)]
        costs += [] if self.memory is None else [f"{gigabytes(self.memory.needed)} of {self.memory.kind}"]
        work = []
        responses = [task for task in self.tasks if task.unit == "responses" and task.samples]
        if responses:
            count = sum(task.samples for task in responses)
            mean = round(sum(task.response_tokens for task in responses) / count)
            most = "at most" if self.unfinished else "about"
            work.append(f"{count:,} responses" + (f" of {most} {mean:,} tokens" if mean else ""))
        if documents := sum(task.samples for task in self.tasks if task.unit == "documents"):
            work.append(f"{documents:,} documents")
        work += [f"up to {count:,} calls of {name}" for name, count in self.calls.items()]
        text = f"{' and '.join(costs)}: {', '.join(work)}" if costs else ", ".join(work)
        return f"estimate: {'about ' if costs else ''}{text}"

    @property
    def lines(self) -> list[str]:
        """Return the estimate in a line, if anything is left to do, and the remarks."""
        return [self.summary, *self.remarks] if any(task.samples for task in self.tasks) or self.calls else []

    @property
    def remarks(self) -> list[str]:
        """Return what to know of the estimate, and what to do if the memory is short."""
        remarks = []
        if self.unfinished:
            remarks.append(
                f"{self.unfinished} of {self.decoded} responses did not end while this was measured, and are taken to "
                "be as long as they may be: the time is an upper bound"
            )
        if self.memory is not None and self.memory.needed > self.memory.free:
            remarks.append(
                f"only {gigabytes(self.memory.free)} of {self.memory.kind} are free: fewer rows are then decoded "
                "together, which takes longer; --batch-size, --dtype bfloat16 or --load-in-4bit need less"
            )
        return remarks


def duration(seconds: float) -> str:
    """Return a time as H:MM:SS, to ten seconds above a minute and to minutes above ten."""
    unit = 1 if seconds < 60 else 10 if seconds < 600 else 60
    return str(timedelta(seconds=max(1, unit * round(seconds / unit))))


def gigabytes(size: int) -> str:
    """Return a number of bytes in GB."""
    return f"{size / 1e9:.1f} GB"


def response_settings(task: PlannedCompliance, seed: int, model: EvaluatedModel) -> ResponseSettings:
    """Return how the responses of a task are made."""
    from cst_bench.compliance.inspect_task import ResponseSettings

    return ResponseSettings(task.wordings, task.generation, task.samples, seed, model.thinking, task.reference)


def rough_seconds(plan: Plan, model: EvaluatedModel) -> float:
    """Guess the time of a run without measuring anything, to tell whether measuring is worthwhile."""
    if model.files is None:
        return 0.0
    responses = sum(
        len(task.prompts.prompts) * task.samples * (len(task.spec.configurations) * len(task.wordings) + task.reference)
        for task in plan.compliance
    )
    documents = sum(
        task.documents or min(plan.limit or _USUAL_DOCUMENTS, _USUAL_DOCUMENTS) for task in plan.capabilities
    )
    operations = 2 * model.files.parameter_count * (responses + documents) * _USUAL_TOKENS
    speed = _OPERATIONS["cuda" if model.device_type == "cuda" else "cpu"]
    return operations / speed + responses * _USUAL_OVERHEAD


@dataclass
class _Responses:
    """Responses of a task that are to be made, and a sample of them."""

    task: PlannedCompliance
    settings: ResponseSettings
    dataset: Dataset
    """Conversations of some prompts."""
    left: int
    """Responses to make."""
    verdicts: int
    """Verdicts to make."""
    rows: list[SamplingRow] = field(default_factory=list)
    rendering: float = 0.0
    """Seconds to render a prompt and make it tokens."""

    def sample(self, checkpoint: Checkpoint) -> None:
        """Render some of the conversations; none that fills the context, since it gets no response."""
        from cst_bench.compliance.inspect_task import sample_seed

        total = len(self.dataset)
        numbers = random.Random(0).sample(range(total), min(_CONVERSATIONS, total))
        generation = self.task.generation
        times = []
        for number in numbers:
            started = time.monotonic()
            conversation = self.dataset[number]
            asked = conversation.input
            assert not isinstance(asked, str)
            sampling = Sampling(
                generation.max_tokens,
                generation.temperature,
                generation.top_p,
                seed=sample_seed(self.settings.seed, conversation.id or "", 1),
                max_think_tokens=checkpoint.max_think_tokens,
            )
            prompt = checkpoint.chat.prompt_ids([{"role": message.role, "content": message.text} for message in asked])
            times.append(time.monotonic() - started)
            self.rows.append(response_row(checkpoint, prompt, sampling))
        self.rows = [row for row in self.rows if row.room > 0]
        self.rendering = fmean(times[1:] or times)  # the first starts a process

    def lengths(self, stop_ids: frozenset[int]) -> list[Lengths]:
        """Return the lengths of all responses, as the decoded ones of the sample have them."""
        if not self.rows:
            return []
        decoded = [len(row.generated) if row.ended(stop_ids) else row.limit for row in self.rows if row.generated]
        rows = [self.rows[index % len(self.rows)] for index in range(self.left)]
        random.Random(0).shuffle(decoded)
        return [
            Lengths(len(row.prompt), min(row.limit, decoded[index % len(decoded)] if decoded else row.limit), row.limit)
            for index, row in enumerate(rows)
        ]


def estimate_run(plan: Plan, model: EvaluatedModel, folder: RunFolder | None = None) -> RunEstimate:
    """Estimate the cost of a plan with a model, without the KL divergence and without what guards take to judge.

    The model's weights are loaded if they are needed and not loaded yet.

    Args:
        plan: The plan.
        model: The model.
        folder: Run folder whose finished parts are left out.

    Raises:
        UserError: the data of a capability could not be loaded.
    """
    responses = [_left(task, plan.seed, model, folder) for task in plan.compliance]
    capabilities = [task for task in plan.capabilities if not _is_scored(task, folder)]
    made, calls = sum(part.left for part in responses), _judge_calls(responses)
    if not made and (not capabilities or model.files is None):
        return RunEstimate((), calls=calls)
    checkpoint = model.checkpoint
    if checkpoint is None:
        tasks = [TaskEstimate(part.task.spec.title, "responses", part.left) for part in responses]
        return RunEstimate(tuple(tasks), calls={model.label: made, **calls})
    asked = [part for part in responses if part.left]
    for part in asked:
        part.sample(checkpoint)
    rows = _alternating([part.rows for part in asked])
    rates = measure_decoding(checkpoint, rows, _DECODING_SECONDS) if rows else None
    stop_ids = checkpoint.chat.stop_ids
    lengths = [part.lengths(stop_ids) if part.left else [] for part in responses]
    overhead = _overhead(responses, lengths, rates)
    tasks = [_compliance(part, of_part, rates, overhead) for part, of_part in zip(responses, lengths, strict=True)]
    if rates is not None:
        first = next(index for index, part in enumerate(responses) if part.rows)
        tasks[first] = replace(tasks[first], seconds=(tasks[first].seconds or 0.0) + rates.check)
    costs = [_scoring(task, checkpoint, plan) for task in capabilities]
    tasks += [
        TaskEstimate(task.spec.title, "documents", cost.documents, cost.tokens, seconds=cost.seconds)
        for task, cost in zip(capabilities, costs, strict=True)
    ]
    begun = [row for row in rows if row.generated]
    cached = max((rates.simulate(part).cached for part in lengths if rates is not None), default=0)
    need = memory_need(
        checkpoint,
        decoded=cached,
        rows=default_rows(checkpoint) if cached else 0,
        scoring=max((cost.pass_bytes for cost in costs), default=0),
    )
    unfinished = sum(not row.ended(stop_ids) for row in begun)
    return RunEstimate(tuple(tasks), overhead.start, need, calls, len(begun), unfinished)


def _left(task: PlannedCompliance, seed: int, model: EvaluatedModel, folder: RunFolder | None) -> _Responses:
    """Return what is left of a compliance task."""
    from cst_bench.compliance.inspect_task import build_task, count_responses

    settings, name = response_settings(task, seed, model), task.spec.name
    prompts = task.prompts.prompts
    some = random.Random(0).sample(prompts, min(_CONVERSATIONS, len(prompts)))
    dataset = build_task(task.spec, replace(task.prompts, prompts=some), task.judge.judge, settings).dataset
    total = count_responses(task.spec, task.prompts, settings)
    if folder is None:
        return _Responses(task, settings, dataset, total, total)
    if folder.has_responses(name):
        return _Responses(task, settings, dataset, 0, 0 if folder.compliance(name).state == "judged" else total)
    left = max(0, total - finished_responses(folder.path / "compliance" / name))
    return _Responses(task, settings, dataset, left, total)


def _is_scored(task: PlannedCapability, folder: RunFolder | None) -> bool:
    return folder is not None and load_result(folder.path / "capabilities", task.spec.name) is not None


def _alternating(parts: Sequence[Sequence[SamplingRow]]) -> list[SamplingRow]:
    """Return the rows of all tasks, one of each in turn."""
    return [row for turn in zip_longest(*parts) for row in turn if row is not None]


def _overhead(
    responses: Sequence[_Responses], lengths: Sequence[Sequence[Lengths]], rates: DecodingRates | None
) -> ResponseOverhead:
    """Measure what a response takes beside the model, unless that is little beside its decoding."""
    count = sum(part.left for part in responses)
    decoding = 0.0 if rates is None else sum(rates.seconds(part) for part in lengths)
    first = next((part for part in responses if part.left or part.verdicts), None)
    if first is None or (count and _NEGLIGIBLE * decoding / count > _USUAL_OVERHEAD):
        return ResponseOverhead()
    task, judge = first.task, first.task.judge.judge
    return measure_overhead(task.spec, task.prompts, judge, first.settings, judging=not asked_models(judge))


def _compliance(
    part: _Responses, lengths: Sequence[Lengths], rates: DecodingRates | None, overhead: ResponseOverhead
) -> TaskEstimate:
    seconds = part.left * (part.rendering + overhead.response) + part.verdicts * overhead.verdict
    generated = sum(row.generated for row in lengths)
    return TaskEstimate(
        part.task.spec.title,
        "responses",
        part.left,
        sum(row.prompt for row in lengths) + generated,
        generated,
        seconds + (0.0 if rates is None else rates.seconds(lengths)),
    )


def _scoring(task: PlannedCapability, checkpoint: Checkpoint, plan: Plan) -> ScoringCost:
    return estimate_scoring(
        checkpoint,
        task.spec,
        task.path,
        data=task.data,
        limit=plan.limit,
        documents=task.documents,
        trust_code=task.trust_code,
        seconds=_SCORING_SECONDS,
    )


def _judge_calls(responses: Sequence[_Responses]) -> dict[str, int]:
    """Return the calls of judges' models, none of which may be in the cache, and none degenerate."""
    calls: Counter[str] = Counter()
    for part in responses:
        for name in set(asked_models(part.task.judge.judge)) if part.verdicts else ():
            calls[f"the judge's model {name}"] += part.verdicts
    return dict(calls)
