"""Writes a trained checkpoint: weights in safetensors, tokenizer, recipe, figures and a model card."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cst_bench.checkpoint.chat import Chat
from cst_bench.checkpoint.files import TRAINING, CheckpointFiles
from cst_bench.content import content_root
from cst_bench.files import file_digest, write_json, write_text
from cst_bench.reporting.run_markdown import markdown_environment
from cst_bench.tuning.recipe import Recipe


def write_result(
    folder: Path,
    trainer: Any,
    recipe: Recipe,
    files: CheckpointFiles,
    chat: Chat,
    training: dict[str, Any],
    *,
    merge: bool,
) -> None:
    """Writes all files of a trained checkpoint; `training` gains the hash of its weights.

    Args:
        folder: Made anew.
        trainer: Has trained.
        recipe: As it was used.
        files: Of the base.
        chat: Of the base; its tokenizer is written along.
        training: What goes into `training.json`.
        merge: Whether to write a whole model in place of an adapter.
    """
    folder.mkdir(parents=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "peft_config"):
        _save_adapter(folder, model, files)
        if merge:
            _merge(folder, model, recipe, files, chat)
    else:
        _plain(model, chat).save_pretrained(folder)
    chat.tokenizer.save_pretrained(folder)
    training["weights_sha256"] = file_digest(folder.glob("*.safetensors"))
    write_text(folder / "recipe.yaml", yaml.safe_dump(recipe.as_given(), sort_keys=False, allow_unicode=True))
    write_text(folder / "README.md", _card(training, recipe, adapter=hasattr(model, "peft_config") and not merge))
    write_json(folder / TRAINING, training)


def base_name(files: CheckpointFiles) -> str:
    """What an adapter's config calls its base: a hub id, or the absolute path of a folder."""
    return files.label if files.identity["kind"] == "hub" else str(files.folder.resolve())


def _save_adapter(folder: Path, model: Any, files: CheckpointFiles) -> None:
    for config in model.peft_config.values():
        config.base_model_name_or_path = base_name(files)
        config.revision = files.identity["revision"]
    model.save_pretrained(folder, selected_adapters=["default"])


def _merge(folder: Path, model: Any, recipe: Recipe, files: CheckpointFiles, chat: Chat) -> None:
    """Replaces the adapter's files by those of the merged model; a quantized base is loaded anew, unquantized."""
    if recipe.quantization is None:
        merged = _plain(model.merge_and_unload(), chat)
    else:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(
            files.folder,
            dtype=torch.bfloat16,
            use_safetensors=True,
            trust_remote_code=files.options.trust_remote_code,
        )
        merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    shutil.rmtree(folder)
    folder.mkdir()
    merged.save_pretrained(folder)


def _plain(model: Any, chat: Chat) -> Any:
    """The model with the base's token for padding, which TRL has changed."""
    model.config.get_text_config().pad_token_id = chat.tokenizer.pad_token_id
    model.generation_config.pad_token_id = chat.tokenizer.pad_token_id
    return model


def _card(training: Mapping[str, Any], recipe: Recipe, *, adapter: bool) -> str:
    template = markdown_environment(content_root() / "training").get_template("model_card.md.j2")
    metrics = [entry for entry in training["metrics"] if "rewards/margins" in entry]
    return template.render(
        training=training,
        settings=training["settings"],
        recipe=recipe,
        adapter=adapter,
        last=metrics[-1] if metrics else {},
    )
