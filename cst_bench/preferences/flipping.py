"""Configuration flips: from pairs of known behaviours, the rows that train a model.

The rule of Configurable Safety Tuning (Gallego 2024, arXiv 2404.00495): under each configuration the chosen response is
the one whose behaviour that configuration asks for. CST is all configurations, DPO the first one alone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cst_bench.compliance.compliance_task import ComplianceTask, Configuration, check_wording
from cst_bench.errors import UserError, did_you_mean
from cst_bench.preferences.preference_pairs import Pair
from cst_bench.preferences.training_rows import TrainingRow

METHODS = ("cst", "dpo")


@dataclass(frozen=True)
class FlipResult:
    """Rows, and how many pairs or rows there are none of, and why."""

    rows: Sequence[TrainingRow]
    left_out: Mapping[str, int]
    by_configuration: Mapping[str, int]


def flip(
    pairs: Sequence[Pair],
    task: ComplianceTask,
    method: str = "cst",
    *,
    configurations: Sequence[str] = (),
    wording: str | None = None,
    paraphrases: bool = False,
    seed: int = 0,
    held_out: Callable[[str], bool] = lambda prompt: False,
) -> FlipResult:
    """The training rows of a method.

    Args:
        pairs: In order; the rows of a pair stay together.
        task: Its configurations say what is asked for.
        method: `cst`, every configuration; `dpo`, the task's first.
        configurations: These in place of the method's.
        wording: Which published wording of the system prompts; the task's own if None.
        paraphrases: For every row, draw the system prompt from its wording and paraphrases.
        seed: Of the drawing.
        held_out: Whether a prompt may be in the test split; such pairs are left out and counted.

    Raises:
        UserError: unknown method, configuration or wording; or a persona's pair has no system prompt.
    """
    chosen = _configurations(task, method, configurations)
    words = check_wording(task, wording)
    draw = random.Random(seed)
    rows: list[TrainingRow] = []
    left_out: Counter[str] = Counter()
    for number, pair in enumerate(pairs, 1):
        if held_out(pair.prompt):
            left_out["prompt is in the test split"] += 1
            continue
        for name in chosen:
            configuration = task.configurations[name]
            if configuration.behaviour not in pair.responses:
                left_out[f"{name}: no response that is {configuration.behaviour}"] += 1
                continue
            system = _system(task, name, words, pair, number, draw if paraphrases else None)
            rows.extend(
                TrainingRow(system, pair.prompt, pair.responses[configuration.behaviour], other, task.name, name)
                for behaviour, other in pair.responses.items()
                if behaviour != configuration.behaviour
            )
    counts = Counter(str(row.configuration) for row in rows)
    return FlipResult(rows, dict(left_out), {name: counts[name] for name in chosen})


def _configurations(task: ComplianceTask, method: str, named: Sequence[str]) -> list[str]:
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}: {did_you_mean(method, METHODS)}")
    for name in named:
        if name not in task.configurations:
            raise UserError(
                f"task {task.name} has no configuration {name!r}: {did_you_mean(name, task.configurations)}"
            )
    if named:
        return list(named)
    return list(task.configurations) if method == "cst" else list(task.configurations)[:1]


def _system(task: ComplianceTask, name: str, wording: str, pair: Pair, number: int, draw: random.Random | None) -> str:
    configuration: Configuration = task.configurations[name]
    if configuration.system_column is not None and configuration.system_column not in pair.row:
        raise UserError(
            f"pair {number}: {name} of task {task.name} takes its system prompt from the row's column "
            f"{configuration.system_column!r}, and the pair has none in meta.row: {', '.join(pair.row) or 'no columns'}"
        )
    own = task.system_prompt(name, wording, dict(pair.row))
    return own if draw is None else draw.choice([own, *configuration.paraphrases])
