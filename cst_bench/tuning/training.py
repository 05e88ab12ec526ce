"""Train a checkpoint: from recipe, data and seed to a folder that `cst-bench run` takes as a checkpoint."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cst_bench.checkpoint import CheckpointFiles, find_checkpoint, load_chat
from cst_bench.checkpoint.chat import Chat
from cst_bench.checkpoint.gate import require, run_gate
from cst_bench.checkpoint.inspection import out_of_memory
from cst_bench.checkpoint.loading import dtype_hint, load_config, placement
from cst_bench.errors import UserError
from cst_bench.files import DISK_FULL, digest, user_cache_folder
from cst_bench.interruption import on_signals
from cst_bench.tuning.dataset import TokenizedRows, TrainingData, read_data, tokenize
from cst_bench.tuning.recipe import Recipe, load_recipe
from cst_bench.tuning.saving import write_result
from cst_bench.tuning.train_options import TrainOptions
from cst_bench.tuning.trainer import make_trainer
from cst_bench.tuning.training_callbacks import Quiet, Reporter, TrainingProgress
from cst_bench.tuning.training_folder import UnfinishedTraining, finished
from cst_bench.workfolder import locked, package_versions

if TYPE_CHECKING:
    from trl import DPOTrainer

SCHEMA = 1
PACKAGES = ("accelerate", "cst-bench", "peft", "torch", "transformers", "trl")
"""Packages whose versions are part of a training's settings."""


@dataclass(frozen=True)
class TrainResult:
    """A trained checkpoint."""

    folder: Path
    training: Mapping[str, Any]
    """Content of its `training.json`."""
    was_finished: bool = False
    """An earlier call had trained it already."""


@dataclass(frozen=True)
class _Plan:
    """A training whose options have been checked and whose data has been read."""

    options: TrainOptions
    recipe: Recipe
    files: CheckpointFiles
    chat: Chat
    rows: TokenizedRows
    settings: Mapping[str, object]
    """Everything that decides the weights."""
    out: Path


def train(options: TrainOptions, progress: TrainingProgress | None = None) -> TrainResult:
    """Train a checkpoint into a folder; the same call continues a training that was interrupted.

    Also works in each process of `accelerate launch`. At the first signal to stop, a single process finishes the
    optimizer step and saves a checkpoint, at the second it does not.

    Raises:
        KeyboardInterrupt: a signal came; the same call continues.
        UserError: the recipe, the data or an option is wrong, the folder holds something else, or memory ran out.
        GateError: the base's chat template would make training and evaluation differ.
    """
    from accelerate import PartialState

    state = PartialState(**_cpu_only(options))
    if progress is None or not state.is_main_process:
        progress = Quiet()
    plan = _plan(options, progress)
    training = finished(plan.out, plan.settings)
    if training is not None:
        return TrainResult(plan.out, training, was_finished=True)
    _report_lengths(progress, plan.rows)
    unfinished = UnfinishedTraining(plan.out)
    with locked(unfinished.path) if state.is_main_process else nullcontext():
        if state.is_main_process:
            unfinished.open(plan.settings, restart=options.restart)
        state.wait_for_everyone()
        with _explained_memory(plan.recipe):
            trainer, metrics = _train(plan, unfinished, progress)
        if state.is_main_process:
            made = datetime.now(UTC).isoformat(timespec="seconds")
            training = {"schema": SCHEMA, "settings": plan.settings, **metrics, "made": made}
            write_result(unfinished.result, trainer, plan.recipe, plan.files, plan.chat, training, merge=options.merge)
            unfinished.publish()
        state.wait_for_everyone()
    training = finished(plan.out, plan.settings)
    if training is None:
        raise UserError(f"{plan.out} was removed while it was being made")
    return TrainResult(plan.out, training)


def _plan(options: TrainOptions, progress: TrainingProgress) -> _Plan:
    recipe, recipe_path = load_recipe(options.recipe, options.changes)
    files = _base(options, recipe)
    chat = load_chat(files)
    checks = run_gate(chat)
    progress.gate(files.label, checks)
    require(checks, files.label)
    data = read_data(
        _data_path(options, recipe, recipe_path),
        task=options.task,
        method=_method(options, recipe),
        method_named=options.method is not None,
        columns=options.columns,
    )
    max_length = _max_length(recipe, files)
    rows = tokenize(data.rows, chat, max_length, options.long)
    settings = _settings(options, recipe, files, data, rows, max_length)
    out = options.out or Path("runs") / f"{recipe.name}-{data.method}-{options.seed}"
    return _Plan(options, recipe, files, chat, rows, settings, out)


def _train(
    plan: _Plan, unfinished: UnfinishedTraining, progress: TrainingProgress
) -> tuple[DPOTrainer, dict[str, object]]:
    """Train from the last complete checkpoint, and return the trainer and what `training.json` says of the training."""
    checkpoint, seconds = unfinished.last_checkpoint()
    if plan.recipe.quantization is None and (hint := dtype_hint(plan.files)) is not None:
        progress.note(hint)
    prepared = make_trainer(
        plan.recipe,
        plan.files,
        plan.chat,
        plan.rows,
        seed=plan.options.seed,
        work=unfinished.checkpoints,
        stock=plan.options.stock,
        cache=(plan.options.cache or user_cache_folder()) / "reference",
    )
    trainer = prepared.trainer
    if prepared.why_not is not None:
        progress.note(f"not packed, TRL's own forward pass is used: {prepared.why_not}")
    if checkpoint is not None:
        progress.note(f"continued from step {checkpoint.name.rpartition('-')[2]}")
    reporter = Reporter(progress, seconds)
    trainer.add_callback(reporter)
    alone = _processes() == 1  # of several processes, some would wait for ever for one that stops
    try:
        with on_signals(reporter.react) if alone else nullcontext():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except ValueError as error:
        if trainer.state.global_step:
            raise
        reason = " ".join(str(error).split())
        raise UserError(f"recipe {plan.recipe.name}: training with these settings is not possible: {reason}") from error
    finally:
        reporter.close()
    if reporter.diverged is not None:
        raise UserError(
            f"the training diverged: no finite reward margin at step {reporter.diverged}; lower trl.learning_rate, or "
            "raise trl.beta or trl.warmup_steps, and use --restart"
        )
    return trainer, {
        "packed": prepared.packed,
        "why_not_packed": prepared.why_not,
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "seconds": round(reporter.seconds, 3),
        "metrics": [_finite(entry) for entry in trainer.state.log_history],
    }


def _base(options: TrainOptions, recipe: Recipe) -> CheckpointFiles:
    """Find the base; in one of several processes, to be loaded to its own GPU."""
    loading = options.loading
    dtype = recipe.dtype if loading.dtype == "auto" else loading.dtype
    revision = loading.revision or (recipe.revision if options.base is None else None)
    name = options.base or recipe.base
    device = loading.device
    if device == "auto" and _processes() > 1:
        import torch

        if torch.cuda.is_available():
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    files = find_checkpoint(
        dataclasses.replace(loading, name=name, dtype=dtype, revision=revision, device=device, load_in_4bit=False)
    )
    if files.adapter is not None:
        raise UserError(f"base {name!r} is an adapter: train on a whole model, such as one written with --merge")
    return files


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _cpu_only(options: TrainOptions) -> dict[str, bool]:
    return {"cpu": True} if options.loading.device == "cpu" else {}


def _method(options: TrainOptions, recipe: Recipe) -> str:
    if options.method is not None and options.method not in ("cst", "dpo"):
        raise UserError(f"unknown method {options.method!r}: known: cst, dpo")
    return options.method or recipe.method


def _data_path(options: TrainOptions, recipe: Recipe, recipe_path: Path) -> Path:
    if options.data is not None:
        return options.data.expanduser()
    if recipe.data is None:
        raise UserError(f"recipe {recipe.name} names no data: give training rows or pairs with --data FILE")
    return recipe_path.parent / recipe.data


def _max_length(recipe: Recipe, files: CheckpointFiles) -> int | None:
    """Return the most tokens of a sequence: the recipe's or TRL's default, limited by the base's positions."""
    from trl import DPOConfig

    default = next(field.default for field in dataclasses.fields(DPOConfig) if field.name == "max_length")
    wanted = recipe.trl.get("max_length", default)
    positions = getattr(load_config(files).get_text_config(), "max_position_embeddings", None)
    lengths = [int(length) for length in (wanted, positions) if length]
    return min(lengths, default=None)


def _settings(
    options: TrainOptions,
    recipe: Recipe,
    files: CheckpointFiles,
    data: TrainingData,
    rows: TokenizedRows,
    max_length: int | None,
) -> dict[str, object]:
    """Return everything that decides the weights."""
    import torch

    content = recipe.without_defaults()
    sections = {name: content.get(name) for name in ("trl", "lora", "quantization", "fast")}
    return {
        "recipe": {"name": recipe.name, "version": recipe.version, "sha256": digest(content), **sections},
        "method": data.method,
        "base": files.identity.model_dump(mode="json", exclude={"merged", "quantization", "sha256"}),
        "data": {
            **data.as_json(),
            "rendered_sha256": digest(dict(rows.columns)),
            "max_length": max_length,
            "long": options.long,
            "truncated": rows.truncated,
            "dropped": dict(rows.dropped),
        },
        "seed": options.seed,
        "device": torch.device(placement(files.options)[0]).type,
        "processes": _processes(),
        "stock": options.stock,
        "merge": options.merge,
        "packages": package_versions(PACKAGES),
    }


def _report_lengths(progress: TrainingProgress, rows: TokenizedRows) -> None:
    for reason, count in rows.dropped.items():
        progress.note(f"left out, {reason}: {count} rows")
    if rows.truncated:
        progress.note(f"cut to max_length: {rows.truncated} rows")


@contextmanager
def _explained_memory(recipe: Recipe) -> Iterator[None]:
    """Raise a lack of memory as a message that says what to change, and a full disk, however reported, as `OSError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))  # the form of safetensors
        if number is not None and int(number[1]) in DISK_FULL and not isinstance(error, OSError):
            raise OSError(int(number[1]), str(error)) from error
        if not out_of_memory(error):
            raise
        advice = []
        batch = recipe.trl.get("per_device_train_batch_size", 8)
        if batch > 1:
            advice.append(f"--set trl.per_device_train_batch_size={max(1, batch // 2)} (with twice the accumulation)")
        if not recipe.trl.get("gradient_checkpointing", True):
            advice.append("--set trl.gradient_checkpointing=true")
        if not recipe.lora:
            advice.append("a recipe with lora")
        advice += ["--dtype bfloat16", "quantization in the recipe"]
        raise UserError(
            f"out of memory: try {', '.join(advice)}, or a lower trl.max_length with --drop-long; then --restart"
        ) from error


def _finite(entry: Mapping[str, object]) -> dict[str, object]:
    """Return a log entry of the trainer with None for numbers that are not finite."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in entry.items()
    }
