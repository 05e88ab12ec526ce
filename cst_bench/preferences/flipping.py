"""Make training rows from pairs of known behaviours; under another configuration the preference flips.

The rule of Configurable Safety Tuning (Gallego 2024, arXiv 2404.00495): under each configuration the chosen response is
the one whose behaviour that configuration asks for. CST uses all configurations, DPO only the first.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cst_bench.compliance.compliance_task import ComplianceTask, Configuration, check_wording
from cst_bench.errors import UserError, did_you_mean
from cst_bench.preferences.preference_pairs import PreferencePair
from cst_bench.preferences.training_rows import TrainingRow

METHODS = ("cst", "dpo")


@dataclass(frozen=True)
class FlipResult:
    """Training rows of a method."""

    rows: Sequence[TrainingRow]
    left_out: Mapping[str, int]
    """Reason → pairs, or rows of a pair, that were left out."""
    by_configuration: Mapping[str, int]
    """Configuration → rows."""


def flip(
    pairs: Sequence[PreferencePair],
    task: ComplianceTask,
    method: str = "cst",
    *,
    configurations: Sequence[str] = (),
    wording: str | None = None,
    paraphrases: bool = False,
    seed: int = 0,
    held_out: Callable[[str], bool] = lambda prompt: False,
) -> FlipResult:
    """Make the training rows of a method.

    Args:
        pairs: Rows of a pair stay together, in the order of the pairs.
        task: Defines the configurations and the behaviours they ask for.
        method: `cst` for every configuration, `dpo` for the task's first.
        configurations: Configurations to use instead of the method's.
        wording: Wording of the system prompts; the task's default if None.
        paraphrases: Draw the system prompt of each row from its wording and paraphrases.
        seed: Seed of that draw.
        held_out: Returns whether a prompt is in the test split; such pairs are left out and counted.

    Raises:
        UserError: unknown method, configuration or wording; or the pair of a persona has no system prompt.
    """
    names = _configurations(task, method, configurations)
    wording = check_wording(task, wording)
    draw = random.Random(seed)
    rows: list[TrainingRow] = []
    left_out: Counter[str] = Counter()
    for number, pair in enumerate(pairs, 1):
        if held_out(pair.prompt):
            left_out["prompt is in the test split"] += 1
            continue
        for name in names:
            configuration = task.configurations[name]
            if configuration.behaviour not in pair.responses:
                left_out[f"{name}: no response that is {configuration.behaviour}"] += 1
                continue
            system = _system(task, name, wording, pair, number, draw if paraphrases else None)
            rows.extend(
                TrainingRow(system, pair.prompt, pair.responses[configuration.behaviour], other, task.name, name)
                for behaviour, other in pair.responses.items()
                if behaviour != configuration.behaviour
            )
    counts = Counter(str(row.configuration) for row in rows)
    return FlipResult(rows, dict(left_out), {name: counts[name] for name in names})


def _configurations(task: ComplianceTask, method: str, requested: Sequence[str]) -> list[str]:
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}: {did_you_mean(method, METHODS)}")
    for name in requested:
        if name not in task.configurations:
            raise UserError(
                f"task {task.name} has no configuration {name!r}: {did_you_mean(name, task.configurations)}"
            )
    if requested:
        return list(requested)
    return list(task.configurations) if method == "cst" else list(task.configurations)[:1]


def _system(
    task: ComplianceTask, name: str, wording: str, pair: PreferencePair, number: int, draw: random.Random | None
) -> str:
    """Return the system prompt of a configuration for the pair with this number (for messages)."""
    configuration: Configuration = task.configurations[name]
    if configuration.system_column is not None and configuration.system_column not in pair.row:
        raise UserError(
            f"pair {number}: {name} of task {task.name} takes its system prompt from the row's column "
            f"{configuration.system_column!r}, but meta.row of the pair has {', '.join(pair.row) or 'no columns'}"
        )
    system = task.system_prompt(name, wording, dict(pair.row))
    return system if draw is None else draw.choice([system, *configuration.paraphrases])
