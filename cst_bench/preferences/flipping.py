"""Make training rows from pairs of known behaviours; under another configuration the preference flips.

The rule of Configurable Safety Tuning (Gallego 2024, arXiv 2404.00495): under each configuration the chosen response is
the one whose behaviour that configuration asks for. CST uses all configurations, DPO only the first.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cst_bench.compliance.compliance_task import ComplianceTask, Configuration, check_wording, load_task
from cst_bench.compliance.data import held_out
from cst_bench.errors import UserError, did_you_mean
from cst_bench.preferences.preference_pairs import PreferencePair, read_pairs
from cst_bench.preferences.training_rows import TrainingRow, write_training_rows

METHODS = ("cst", "dpo")


@dataclass(frozen=True)
class FlipResult:
    """Training rows of a method."""

    rows: Sequence[TrainingRow]
    left_out: Mapping[str, int]
    """Reason → pairs, or rows of a pair, that were left out."""
    by_configuration: Mapping[str, int]
    """Configuration → rows."""


@dataclass(frozen=True)
class FlipOptions:
    """Options of making training rows, named as on the command line."""

    pairs: Path
    """File, or data set on the Hub, with preference pairs or with the columns system, prompt, chosen, rejected."""
    task: str
    """Compliance task (name or file) that defines the configurations."""
    method: str = "cst"
    """`cst` for every configuration, `dpo` for the task's first."""
    configurations: tuple[str, ...] = ()
    """Configurations to use instead of the method's."""
    wording: str | None = None
    """Wording of the system prompts; the task's default if None."""
    paraphrases: bool = False
    """Draw each row's system prompt from its wording and paraphrases."""
    sample: int | None = None
    """Number of random pairs to use; all if None, or if there are no more."""
    seed: int = 0
    """Random seed for the sample, and for drawing paraphrases."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column → its name in the file, where it is not one of the usual names."""
    allow_test_prompts: bool = False
    """Keep prompts of the held-out splits: for inspection only, never for training."""
    out: Path | None = None
    """File for the rows, as jsonl; nothing is written if None."""


def flip(options: FlipOptions) -> FlipResult:
    """Make training rows for CST or DPO from a file of preference pairs.

    Raises:
        UserError: an option or a row of the file is wrong, or all pairs were left out.
    """
    task, path = load_task(options.task)
    result = flip_pairs(
        read_pairs(options.pairs, task, options.columns),
        task,
        options.method,
        configurations=options.configurations,
        wording=options.wording,
        paraphrases=options.paraphrases,
        sample=options.sample,
        seed=options.seed,
        is_held_out=(lambda prompt: False) if options.allow_test_prompts else held_out(task, path),
    )
    if not result.rows:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in result.left_out.items())
        raise UserError(f"{options.pairs}: all pairs were left out ({reasons}): there are no training rows")
    if options.out is not None:
        write_training_rows(options.out, result.rows)
    return result


def flip_pairs(
    pairs: Sequence[PreferencePair],
    task: ComplianceTask,
    method: str = "cst",
    *,
    configurations: Sequence[str] = (),
    wording: str | None = None,
    paraphrases: bool = False,
    sample: int | None = None,
    seed: int = 0,
    is_held_out: Callable[[str], bool] = lambda prompt: False,
) -> FlipResult:
    """Make the training rows of a method.

    Args:
        pairs: Rows of a pair stay together, in the order of the pairs.
        task: Defines the configurations and the behaviours they ask for.
        method: `cst` for every configuration, `dpo` for the task's first.
        configurations: Configurations to use instead of the method's.
        wording: Wording of the system prompts; the task's default if None.
        paraphrases: Draw the system prompt of each row from its wording and paraphrases.
        sample: Number of random pairs to use, of those that are not left out.
        seed: Seed of both draws.
        is_held_out: Returns whether a prompt is held out; such pairs are left out and counted.

    Raises:
        UserError: unknown method, configuration or wording; or the pair of a persona has no system prompt.
    """
    if sample is not None and sample < 1:
        raise UserError(f"--sample must be at least 1, not {sample}")
    names = _configurations(task, method, configurations)
    wording = check_wording(task, wording)
    draw = random.Random(seed)
    rows: list[TrainingRow] = []
    left_out: Counter[str] = Counter()
    kept = [(number, pair) for number, pair in enumerate(pairs, 1) if not is_held_out(pair.prompt)]
    if len(kept) < len(pairs):
        left_out["prompt is held out"] = len(pairs) - len(kept)
    if sample is not None and sample < len(kept):
        left_out["not in the sample"] = len(kept) - sample
        kept = [kept[index] for index in sorted(random.Random(seed).sample(range(len(kept)), sample))]
    for number, pair in kept:
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
