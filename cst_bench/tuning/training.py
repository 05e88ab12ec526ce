"""Trains a checkpoint: recipe, data and seed in, a folder that `cst-bench run` takes as a checkpoint out."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cst_bench.checkpoint import CheckpointFiles, find_checkpoint, load_chat
from cst_bench.checkpoint.gate import require, run_gate
from cst_bench.checkpoint.loading import out_of_memory, placement
from cst_bench.errors import UserError
from cst_bench.files import DISK_FULL, digest
from cst_bench.judging.cache import default_folder
from cst_bench.runs.run_folder import locked, package_versions
from cst_bench.tuning.dataset import Rendered, Rows, read_data, render
from cst_bench.tuning.packed.packed_trainer import Prepared, make_trainer
from cst_bench.tuning.recipe import Recipe, load_recipe
from cst_bench.tuning.saving import write_result
from cst_bench.tuning.train_options import TrainOptions
from cst_bench.tuning.training_callbacks import Quiet, Reporter, TrainingProgress
from cst_bench.tuning.training_folder import WorkFolder, finished

SCHEMA = 1
PACKAGES = ("accelerate", "cst-bench", "peft", "torch", "transformers", "trl")


@dataclass(frozen=True)
class TrainResult:
    """Where the trained checkpoint is, and its `training.json`."""

    folder: Path
    training: Mapping[str, Any]
    was_finished: bool = False
    """Whether it was there already."""


def train(options: TrainOptions, progress: TrainingProgress | None = None) -> TrainResult:
    """Trains a checkpoint into a folder; a training that was cut off is continued by the same call.

    Works in each process of `accelerate launch`, too.

    Raises:
        UserError: something in the recipe, the data or the options is wrong; the folder holds something else; or the
            memory is too small.
        GateError: the base's chat template would make training and evaluation differ.
    """
    from accelerate import PartialState  # type: ignore[import-untyped]

    state = PartialState(**_cpu_only(options))
    progress = progress or Quiet()
    if not state.is_main_process:
        progress = Quiet()
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
        given=options.method is not None,
        columns=options.columns,
    )
    length = _max_length(recipe, files)
    rendered = render(data.rows, chat, length, options.long)
    settings = _settings(options, recipe, files, data, rendered, length)
    out = options.out or Path("runs") / f"{recipe.name}-{data.method}-{options.seed}"
    before = finished(out, settings)
    if before is not None:
        return TrainResult(out, before, was_finished=True)
    _say_lengths(progress, rendered)
    work = WorkFolder(out)
    with locked(work.path) if state.is_main_process else nullcontext():
        if state.is_main_process:
            work.open(settings, restart=options.restart)
        state.wait_for_everyone()
        with _explained_memory(recipe):
            trained = _train(options, recipe, files, chat, rendered, work, progress)
        if state.is_main_process:
            training = {
                "schema": SCHEMA,
                "settings": settings,
                **trained.figures,
                "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            }
            write_result(work.result, trained.prepared.trainer, recipe, files, chat, training, merge=options.merge)
            work.finish()
        state.wait_for_everyone()
    found = finished(out, settings)
    if found is None:
        raise UserError(f"{out} was removed while it was being made")
    return TrainResult(out, found)


@dataclass(frozen=True)
class _Trained:
    prepared: Prepared
    figures: dict[str, Any]


def _train(
    options: TrainOptions,
    recipe: Recipe,
    files: CheckpointFiles,
    chat: Any,
    rendered: Rendered,
    work: WorkFolder,
    progress: TrainingProgress,
) -> _Trained:
    last, seconds = work.last()
    cache = (options.cache or default_folder()) / "reference"
    prepared = make_trainer(
        recipe, files, chat, rendered, seed=options.seed, work=work.checkpoints, stock=options.stock, cache=cache
    )
    if prepared.why_not is not None:
        progress.note(f"not packed, by TRL's own forward pass: {prepared.why_not}")
    if last is not None:
        progress.note(f"continued from step {last.name.rpartition('-')[2]}")
    reporter = Reporter(progress, seconds)
    prepared.trainer.add_callback(reporter)
    try:
        prepared.trainer.train(resume_from_checkpoint=None if last is None else str(last))
    except ValueError as error:
        if prepared.trainer.state.global_step:
            raise
        raise UserError(
            f"recipe {recipe.name}: these settings can't be trained: {' '.join(str(error).split())}"
        ) from error
    finally:
        reporter.close()
    if reporter.diverged is not None:
        raise UserError(
            f"the training diverged: no finite reward margin at step {reporter.diverged}; lower trl.learning_rate, or "
            "raise trl.beta or trl.warmup_steps, and say --restart"
        )
    state = prepared.trainer.state
    figures = {
        "packed": prepared.packed,
        "why_not_packed": prepared.why_not,
        "steps": state.global_step,
        "epochs": state.epoch,
        "seconds": round(reporter.seconds, 3),
        "metrics": [_finite(entry) for entry in state.log_history],
    }
    return _Trained(prepared, figures)


def _base(options: TrainOptions, recipe: Recipe) -> CheckpointFiles:
    loading = options.loading
    dtype = recipe.dtype if loading.dtype == "auto" else loading.dtype
    revision = loading.revision or (recipe.revision if options.base is None else None)
    name = options.base or recipe.base
    device = loading.device
    if device == "auto" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        import torch

        if torch.cuda.is_available():
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    files = find_checkpoint(
        dataclasses.replace(loading, name=name, dtype=dtype, revision=revision, device=device, load_in_4bit=False)
    )
    if files.adapter is not None:
        raise UserError(f"base {name!r} is an adapter: train on a whole model, such as one that --merge wrote")
    return files


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
    """The most tokens of a sequence: the recipe's, else TRL's default, but no more than the base reads."""
    from transformers import AutoConfig
    from trl import DPOConfig

    default = next(field.default for field in dataclasses.fields(DPOConfig) if field.name == "max_length")
    wanted = recipe.trl.get("max_length", default)
    remote = files.options.trust_remote_code
    config = AutoConfig.from_pretrained(files.folder, trust_remote_code=remote).get_text_config()
    reads = getattr(config, "max_position_embeddings", None)
    lengths = [int(length) for length in (wanted, reads) if length]
    return min(lengths, default=None)


def _settings(
    options: TrainOptions,
    recipe: Recipe,
    files: CheckpointFiles,
    data: Rows,
    rendered: Rendered,
    max_length: int | None,
) -> dict[str, Any]:
    """What decides the weights."""
    import torch

    given = recipe.as_given()
    identity = {key: value for key, value in files.identity.items() if key != "quantization"}
    return {
        "recipe": {"name": recipe.name, "version": recipe.version, "sha256": digest(given), **_sections(given)},
        "method": data.method,
        "base": identity,
        "data": {
            **data.as_json(),
            "rendered_sha256": digest(dict(rendered.columns)),
            "max_length": max_length,
            "long": options.long,
            "truncated": rendered.truncated,
            "dropped": dict(rendered.dropped),
        },
        "seed": options.seed,
        "device": torch.device(placement(files.options)[0]).type,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "stock": options.stock,
        "merge": options.merge,
        "packages": package_versions(PACKAGES),
    }


def _sections(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given.get(name) for name in ("trl", "lora", "quantization", "fast")}


def _say_lengths(progress: TrainingProgress, rendered: Rendered) -> None:
    for reason, count in rendered.dropped.items():
        progress.note(f"left out, {reason}: {count} rows")
    if rendered.truncated:
        progress.note(f"cut to max_length: {rendered.truncated} rows")


@contextmanager
def _explained_memory(recipe: Recipe) -> Iterator[None]:
    """Out of memory as one message that says what to change; a full disk, in whatever words, as the error it is."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))  # as safetensors says it
        if number is not None and int(number[1]) in DISK_FULL and not isinstance(error, OSError):
            raise OSError(int(number[1]), str(error)) from error
        if not out_of_memory(error):
            raise
        batch = recipe.trl.get("per_device_train_batch_size", 8)
        fewer = (
            f"--set trl.per_device_train_batch_size={max(1, batch // 2)} (with twice the accumulation), "
            if batch > 1
            else ""
        )
        less = "" if recipe.trl.get("gradient_checkpointing", True) else "--set trl.gradient_checkpointing=true, "
        low = "" if recipe.lora else "a recipe with lora, "
        raise UserError(
            f"out of memory: try {fewer}{less}{low}--dtype bfloat16, quantization in the recipe, or a lower "
            "trl.max_length with --drop-long; then --restart"
        ) from error


def _finite(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A log entry of the trainer, what is no number as None."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in entry.items()
    }
