"""Write a trained checkpoint: weights in safetensors, tokenizer, recipe, metrics and a model card."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cst_bench.checkpoint.chat import Chat
from cst_bench.checkpoint.checkpoint_files import TRAINING, CheckpointFiles
from cst_bench.checkpoint.merging import merge_adapter
from cst_bench.files import file_digest, write_json, write_text
from cst_bench.templates import markdown_environment, training_templates
from cst_bench.tuning.recipe import Recipe

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel
    from trl import DPOTrainer


def write_result(
    folder: Path,
    trainer: DPOTrainer,
    recipe: Recipe,
    files: CheckpointFiles,
    chat: Chat,
    training: dict[str, Any],
    *,
    merge: bool,
) -> None:
    """Write all files of a trained checkpoint, and add the hash of its weights to `training`.

    Args:
        folder: Folder to create.
        trainer: Trainer that has finished.
        recipe: Recipe that was used.
        files: Files of the base.
        chat: Chat of the base, whose tokenizer is saved with the weights.
        training: Content of `training.json`.
        merge: Write a whole model instead of an adapter.
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
    write_text(folder / "recipe.yaml", yaml.safe_dump(recipe.without_defaults(), sort_keys=False, allow_unicode=True))
    write_text(folder / "README.md", _card(training, recipe, adapter=hasattr(model, "peft_config") and not merge))
    write_json(folder / TRAINING, training)


def base_name(files: CheckpointFiles) -> str:
    """Return the name of the base in an adapter's config: a Hub id, or the absolute path of a folder or GGUF file."""
    return files.label if files.identity.kind == "hub" else str(files.path.resolve())


def _save_adapter(folder: Path, model: PeftModel, files: CheckpointFiles) -> None:
    for config in model.peft_config.values():
        config.base_model_name_or_path = base_name(files)
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)  # a set's order differs from process to process
        config.revision = files.identity.revision
    model.save_pretrained(folder, selected_adapters=["default"])


def _merge(folder: Path, model: PeftModel, recipe: Recipe, files: CheckpointFiles, chat: Chat) -> None:
    """Replace the adapter's files by those of the merged model; a quantized base is loaded again, unquantized."""
    if recipe.quantization is None:
        merged = _plain(merge_adapter(model, folder), chat)
    else:
        import torch
        from peft import PeftModel

        from cst_bench.checkpoint.model_class import auto_class

        base = auto_class(files.folder, trust_remote_code=files.options.trust_remote_code).from_pretrained(
            files.folder,
            dtype=torch.bfloat16,
            use_safetensors=True,
            trust_remote_code=files.options.trust_remote_code,
        )
        merged = merge_adapter(PeftModel.from_pretrained(base, str(folder)), folder)
    shutil.rmtree(folder)
    folder.mkdir()
    merged.save_pretrained(folder)


def _plain(model: PreTrainedModel, chat: Chat) -> PreTrainedModel:
    """Restore the base's padding token, which TRL has changed."""
    model.config.get_text_config().pad_token_id = chat.tokenizer.pad_token_id
    model.generation_config.pad_token_id = chat.tokenizer.pad_token_id
    return model


def _card(training: Mapping[str, Any], recipe: Recipe, *, adapter: bool) -> str:
    """Render the model card."""
    template = markdown_environment(training_templates()).get_template("model_card.md.j2")
    metrics = [entry for entry in training["metrics"] if "rewards/margins" in entry]
    return template.render(
        training=training,
        settings=training["settings"],
        recipe=recipe,
        adapter=adapter,
        last=metrics[-1] if metrics else {},
    )
