"""Self-critique: a checkpoint answers, criticises its answer, and rewrites it; both answers become a preference pair.

The procedure of Configurable Safety Tuning (Gallego 2024, arXiv 2404.00495, section 3), after Bai et al. 2022
(arXiv 2212.08073): a draft y0 under a system prompt that asks for one behaviour, then a request to criticise the draft,
then a request to rewrite it (y1). It runs as an Inspect task, so generation is batched and a job that was killed keeps
the prompts it finished.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalSample
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser
from inspect_ai.solver import Generate, Solver, TaskState, solver
from pydantic import Field, model_validator

from cst_bench import content
from cst_bench.checkpoint.thought_messages import split_output
from cst_bench.checkpoint.thoughts import DEFAULT_THINK_TOKENS, Thinking, ThinkTokens
from cst_bench.compliance.compliance_task import ComplianceTask, GenerationSettings, check_wording
from cst_bench.compliance.data import PromptSet
from cst_bench.compliance.inspect_task import generate_config, on_sample, sample_seed
from cst_bench.compliance.stored_samples import read_samples
from cst_bench.content import Content
from cst_bench.errors import UserError

FOLDER = "training/critiques"
DRAFT, CRITIQUE, REWRITE = "draft", "critique", "rewrite"


class CritiqueFile(Content):
    """Critique file: the behaviours of draft and rewrite, and the requests that lead from one to the other."""

    name: str
    """Name for `--critique`."""
    version: Annotated[int, Field(ge=1)]
    """Version; increased by every change that changes pairs."""
    description: str
    """Sentence on the purpose of the critique."""
    source: str
    """Where the wordings come from."""
    draft: str
    """Behaviour of the draft y0, which is made under the configuration that asks for it."""
    rewrite: str
    """Behaviour of the rewrite y1."""
    system: Literal["keep", "drop"]
    """Keep or drop the draft's system prompt for critique and rewrite."""
    critiques: list[str] = Field(min_length=1)
    """Requests for a critique; one is drawn for each prompt."""
    rewrites: list[str] = Field(min_length=1)
    """Requests for a rewrite; one is drawn for each prompt."""
    leaks: list[str] = Field(default_factory=list)
    """Regular expressions that match a rewrite which talks about the critique instead of answering."""
    generation: GenerationSettings
    """Sampling settings of all three turns."""
    changelog: dict[int, str] = Field(default_factory=dict)
    """Version → what changed."""

    @model_validator(mode="after")
    def _sound(self) -> CritiqueFile:
        if self.draft == self.rewrite:
            raise ValueError(f"draft and rewrite are both {self.draft}: a pair needs two behaviours")
        for pattern in self.leaks:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"leaks: not a regular expression: {error}") from None
        return self


@dataclass(frozen=True)
class Turns:
    """Responses of a checkpoint in the three turns of one prompt."""

    prompt_id: str
    prompt: str
    row: dict[str, str]
    """Columns of the prompt's row."""
    draft: str
    critique: str
    rewrite: str
    requests: tuple[str, str]
    """Requests for critique and rewrite that were drawn."""
    truncated: bool
    """The draft or the rewrite has no end of its own: token limit, context length or content filter."""


def load_critique(name: str) -> CritiqueFile:
    """Load a critique file by name or path.

    Raises:
        UserError: unknown name, or a fault in the file.
    """
    return content.load(content.find(FOLDER, name, "critique"), CritiqueFile)


def drafting(task: ComplianceTask, critique: CritiqueFile) -> str:
    """Return the configuration under which the drafts are made.

    Raises:
        UserError: no configuration of the task asks for one of the two behaviours.
    """
    asked = task.asked
    for behaviour in (critique.draft, critique.rewrite):
        if behaviour not in asked.values():
            raise UserError(
                f"critique {critique.name} leads from {critique.draft} to {critique.rewrite}, and task {task.name} "
                f"asks for {', '.join(sorted(set(asked.values())))}"
            )
    return next(name for name, behaviour in asked.items() if behaviour == critique.draft)


def critique_task(
    task: ComplianceTask,
    prompts: PromptSet,
    critique: CritiqueFile,
    wording: str | None,
    seed: int,
    thinking: Thinking = Thinking(),  # noqa: B008  (frozen)
) -> Task:
    """Make an Inspect task of the three turns of every prompt; thoughts are in its log, and in no turn's text.

    Raises:
        UserError: as `drafting`, or the task has no such wording.
    """
    configuration = drafting(task, critique)
    wording = check_wording(task, wording)
    samples = [
        Sample(
            id=prompt.id,
            input=[
                ChatMessageSystem(content=task.system_prompt(configuration, wording, prompt.systems)),
                ChatMessageUser(content=prompt.text),
            ],
            metadata={"prompt": prompt.text, "row": {**prompt.systems, **prompt.fields}},
        )
        for prompt in prompts.prompts
    ]
    return Task(
        name=f"critique_{task.name}",
        dataset=MemoryDataset(samples, name=prompts.origin),
        solver=three_turns(critique, seed, thinking.tokens),
        config=generate_config(critique.generation, thinking),
    )


@solver
def three_turns(critique: CritiqueFile, seed: int, think_tokens: tuple[str, str] = DEFAULT_THINK_TOKENS) -> Solver:
    """Generate draft, critique and rewrite in one conversation, each sampled with its own seed."""

    tokens = ThinkTokens(*think_tokens)

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        def seed_of(turn: str) -> int:
            return sample_seed(seed, f"{state.sample_id}/{turn}", state.epoch)

        requests = {
            CRITIQUE: critique.critiques[seed_of("words of critique") % len(critique.critiques)],
            REWRITE: critique.rewrites[seed_of("words of rewrite") % len(critique.rewrites)],
        }
        state = await generate(state, seed=seed_of(DRAFT))
        _keep(state, DRAFT, tokens)
        if critique.system == "drop":
            state.messages = [message for message in state.messages if message.role != "system"]
        for turn, request in requests.items():
            messages: list[ChatMessage] = [*state.messages, ChatMessageUser(content=request)]
            state.messages = messages
            state = await generate(state, seed=seed_of(turn))
            _keep(state, turn, tokens)
            state.store.set(f"{turn} asked", request)
        on_sample.get()(1)
        return state

    return solve


def _keep(state: TaskState, turn: str, think_tokens: ThinkTokens) -> None:
    split_output(state.output, think_tokens)
    state.store.set(turn, state.output.completion)
    state.store.set(f"{turn} stop", state.output.stop_reason)


def read_turns(log: Path) -> list[Turns]:
    """Read the responses from the log of a critique task, in the order of the prompts."""
    return [_turns(sample) for sample in read_samples(log, of_compliance=False)]


_CUT_OFF = {"max_tokens", "model_length", "content_filter"}
"""Stop reasons of responses without an end of their own."""


def _turns(sample: EvalSample) -> Turns:
    store = sample.store
    return Turns(
        prompt_id=str(sample.id),
        prompt=sample.metadata["prompt"],
        row=sample.metadata["row"],
        draft=store[DRAFT],
        critique=store[CRITIQUE],
        rewrite=store[REWRITE],
        requests=(store[f"{CRITIQUE} asked"], store[f"{REWRITE} asked"]),
        truncated=not _CUT_OFF.isdisjoint((store[f"{DRAFT} stop"], store[f"{REWRITE} stop"])),
    )
