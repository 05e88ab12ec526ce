"""KL divergence from the base as a part of a run: on the prompts of its ordinary tasks, by greedy responses.

It is measured on each prompt under each configuration, in the first wording of the run, and with no system prompt.
Results are kept after every few conversations; the same call goes on after the last ones kept.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from cst_bench.checkpoint import load_chat, load_weights
from cst_bench.checkpoint.chat import conversation
from cst_bench.checkpoint.checkpoint_files import CheckpointFiles
from cst_bench.checkpoint.divergence import find_kl_base, require_same_vocabulary, token_divergences
from cst_bench.checkpoint.evaluated_model import EvaluatedModel
from cst_bench.checkpoint.inspection import empty_cache
from cst_bench.checkpoint.sampling import Sampling
from cst_bench.compliance.compliance_task import REFERENCE
from cst_bench.errors import Interrupted, UserError
from cst_bench.files import write_jsonl
from cst_bench.progress import Progress
from cst_bench.record import DivergencePart, DivergenceSettings, Record, SideEffectName, read_record_lines
from cst_bench.runs.run_folder import RunFolder
from cst_bench.runs.run_plan import Plan, PlannedCompliance
from cst_bench.runs.side_effects import Values

if TYPE_CHECKING:
    from cst_bench.checkpoint.chat import Chat, Message
    from cst_bench.checkpoint.generation import Generator
    from cst_bench.checkpoint.loading import Checkpoint

FOLDER = "divergence"
"""Folder of the results in a run folder, one file for each task, one line for each conversation."""
_CHUNK = 64
"""Conversations that are answered together and then kept. It is fixed, so that a continued run has the same batches."""


@dataclass(frozen=True)
class KlBase:
    """The base of a run's checkpoint, found and not loaded, and the tasks whose prompts are answered."""

    files: CheckpointFiles
    chat: Chat
    tasks: tuple[PlannedCompliance, ...]

    @property
    def settings(self) -> DivergenceSettings:
        """Return what decides the results."""
        return DivergenceSettings(base=self.files.identity, tasks=tuple(task.spec.name for task in self.tasks))


class _Line(Record):
    """The KL divergence over one greedy response, in nats."""

    prompt_id: str
    configuration: str
    tokens: int
    first_token: float | None
    """At the first token."""
    per_token: float | None
    """Mean over the tokens."""


def plan_divergence(name: str, model: EvaluatedModel, plan: Plan) -> KlBase:
    """Find the base that `--kl-base` names, and check that the KL divergence from it can be measured.

    Raises:
        UserError: no task of the run has ordinary prompts, the model has no weights, the base could not be found, or it
            has another vocabulary.
    """
    tasks = tuple(task for task in plan.compliance if task.spec.ordinary)
    if not tasks:
        raise UserError("--kl-base: no task of this run has ordinary prompts: add one, such as --task xstest_safe")
    if model.files is None:
        raise UserError(f"--kl-base: {model.label} is behind an API, which does not give whole distributions")
    files = find_kl_base(model.files, name)
    chat = load_chat(files)
    require_same_vocabulary(model.files, model.chat, files, chat)
    return KlBase(files, chat, tasks)


def measure_divergences(folder: RunFolder, base: KlBase, model: EvaluatedModel, progress: Progress) -> None:
    """Measure what is not measured yet. Both models are in memory; the base is freed at the end."""
    from cst_bench.checkpoint.generation import Generator

    todo = [task for task in base.tasks if _part(folder, task.spec.name).state != "done"]
    checkpoint = model.checkpoint
    if not todo or checkpoint is None:
        return
    progress.note(f"loading {base.files.label}, the base of the KL divergence")
    loaded = load_weights(base.files, base.chat)
    try:
        with Generator(checkpoint) as generator:
            for task in todo:
                _measure(folder, task, generator, checkpoint, loaded, progress)
    finally:
        del loaded
        gc.collect()
        empty_cache(checkpoint.device)


def _measure(
    folder: RunFolder,
    task: PlannedCompliance,
    generator: Generator,
    checkpoint: Checkpoint,
    base: Checkpoint,
    progress: Progress,
) -> None:
    started = time.monotonic()
    name = task.spec.name
    asked = list(conversations(task))
    lines = _lines(folder, name)
    sampling = Sampling(task.generation.max_tokens, max_think_tokens=checkpoint.max_think_tokens)
    with progress.stage(f"{task.spec.title}: KL divergence", 2 * len(asked)) as count:  # to answer, and to compare
        count(2 * len(lines))
        while len(lines) < len(asked):
            chunk = asked[len(lines) : len(lines) + _CHUNK]
            prompts = [checkpoint.chat.prompt_ids(messages) for _, _, messages in chunk]
            responses = []
            for future in [generator.submit(prompt, sampling) for prompt in prompts]:
                responses.append(future.result())
                count(1)
            for (prompt_id, configuration, _), prompt, response in zip(chunk, prompts, responses, strict=True):
                values = token_divergences(checkpoint, base, prompt, response) if response.generated_tokens else []
                line = _Line(
                    prompt_id=prompt_id,
                    configuration=configuration,
                    tokens=len(values),
                    first_token=_finite(values[0]) if values else None,
                    per_token=_finite(fmean(values)) if values else None,
                )
                lines.append(line)
                count(1)
            write_jsonl(_path(folder, name), [line.as_json() for line in lines])
    part = DivergencePart(state="done", seconds=round(time.monotonic() - started, 1))
    folder.set_divergence(name, part)


def conversations(task: PlannedCompliance) -> Iterator[tuple[str, str, list[Message]]]:
    """Yield prompt id, configuration and messages of a task under its first wording, grouped by prompt."""
    for prompt in task.prompts.prompts:
        for name in task.spec.configurations:
            system = task.spec.system_prompt(name, task.wordings[0], prompt.systems)
            yield prompt.id, name, conversation(system, prompt.text)
        yield prompt.id, REFERENCE, conversation(None, prompt.text)


def read_divergences(folder: RunFolder) -> dict[str, Values]:
    """Return task → KL divergences; empty for a run that does not measure them.

    Raises:
        Interrupted: some are still to be measured.
    """
    settings = folder.settings.divergence
    if settings is None:
        return {}
    missing = [task for task in settings.tasks if _part(folder, task).state != "done"]
    if missing:
        raise Interrupted(
            f"{folder.path}: the KL divergence from {settings.base.label} is not measured yet ({', '.join(missing)}): "
            "repeat the command that began this run, with the judge that it has now"
        )
    return {task: _values(_lines(folder, task)) for task in settings.tasks}


def _values(lines: list[_Line]) -> Values:
    values: dict[str, dict[SideEffectName, dict[str, list[float]]]] = {}
    for line in lines:
        of_configuration = values.setdefault(line.configuration, {})
        measured: dict[SideEffectName, float | None] = {
            "kl_first_token": line.first_token,
            "kl_per_token": line.per_token,
        }
        for name, value in measured.items():
            if value is not None:
                of_configuration.setdefault(name, {})[line.prompt_id] = [value]
    return values


def _part(folder: RunFolder, task: str) -> DivergencePart:
    return folder.manifest.status.divergence.get(task) or DivergencePart()


def _lines(folder: RunFolder, task: str) -> list[_Line]:
    return read_record_lines(
        _path(folder, task), _Line, "restore it from a copy, or make the run again into a new folder with --out"
    )


def _path(folder: RunFolder, task: str) -> Path:
    return folder.path / FOLDER / f"{task}.jsonl"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
