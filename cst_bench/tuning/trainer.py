"""Make TRL's trainer for a recipe: load the base, build the libraries' options, pack pairs where that is exact."""

from __future__ import annotations

import copy
import gc
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench import __version__
from cst_bench.checkpoint import load_weights
from cst_bench.checkpoint.chat import Chat
from cst_bench.checkpoint.checkpoint_files import CheckpointFiles
from cst_bench.checkpoint.inspection import empty_cache
from cst_bench.checkpoint.loading import placement
from cst_bench.checkpoint.model_class import auto_class
from cst_bench.errors import UserError
from cst_bench.tuning.dataset import TokenizedRows
from cst_bench.tuning.recipe import Options, Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from trl import DPOConfig

    from cst_bench.tuning.packed import ReferenceCache, TokenizedDPOTrainer

_BASE_PRESERVING = (True, False, "gaussian", "orthogonal")
"""`init_lora_weights` that leave the base's weights unchanged, so its reference log-probabilities can be shared."""


@dataclass(frozen=True)
class Prepared:
    """A trainer that is ready to train."""

    trainer: TokenizedDPOTrainer
    packed: bool
    why_not: str | None
    """Why it does not train packed; None if it does, or if that was not requested."""


def make_trainer(
    recipe: Recipe,
    files: CheckpointFiles,
    chat: Chat,
    rows: TokenizedRows,
    *,
    seed: int,
    work: Path,
    stock: bool,
    cache: Path,
) -> Prepared:
    """Load the base and make a trainer.

    Args:
        recipe: Recipe whose sections go to the libraries.
        files: Files of the base.
        chat: Chat of the base.
        rows: Training rows as token ids.
        seed: Seed of adapter initialisation, dropout and row order.
        work: Folder of the trainer's checkpoints.
        stock: Use TRL's own forward pass.
        cache: Folder of cached reference log-probabilities.

    Raises:
        UserError: a library rejects the settings, or the recipe says `fast: on` and packed training is not possible.
    """
    from cst_bench.tuning.packed import TokenizedDPOTrainer, unsupported

    model = _load(recipe, files, chat)
    wanted = recipe.fast != "off" and not stock
    why_not = unsupported(model, recipe.trl, recipe.lora, rows.longest) if wanted else None
    replaced = False
    if wanted and why_not is None:
        packed = _make_packed(recipe, files, model, chat, rows, seed=seed, work=work, cache=cache)
        if not isinstance(packed, str):
            return Prepared(packed, True, None)
        why_not, replaced = packed, True
    if why_not is not None and recipe.fast == "on":
        raise UserError(f"{files.label} cannot be trained packed: {why_not}; use fast: auto or fast: off in the recipe")
    if replaced:
        device = model.device
        del model  # its forward pass has been replaced
        gc.collect()  # it and its trainer refer to each other, and two models may not fit in memory
        empty_cache(device)
        model = _load(recipe, files, chat)
    arguments = _arguments(recipe, model, seed, work, packed=False)
    return Prepared(_make(TokenizedDPOTrainer, recipe, model, arguments, chat, rows), False, why_not)


def _make_packed(
    recipe: Recipe,
    files: CheckpointFiles,
    model: PreTrainedModel,
    chat: Chat,
    rows: TokenizedRows,
    *,
    seed: int,
    work: Path,
    cache: Path,
) -> TokenizedDPOTrainer | str:
    """Make the packed trainer, or return why its numbers would not be TRL's; the model is of no use then."""
    from cst_bench.tuning.packed import CannotPack, PackedDPOTrainer

    arguments = _arguments(recipe, model, seed, work, packed=True)
    reference = _reference_cache(recipe, files, model, arguments, cache)
    try:
        return _make(PackedDPOTrainer, recipe, model, arguments, chat, rows, cache=reference)
    except CannotPack as error:
        return str(error)


def _load(recipe: Recipe, files: CheckpointFiles, chat: Chat) -> PreTrainedModel:
    """Load the base, in eval mode."""
    if recipe.quantization is None:
        model = load_weights(files, chat).model
    else:
        model = _load_quantized(recipe.quantization, files)
    settings = model.generation_config
    if settings is not None and not settings.do_sample and (settings.temperature, settings.top_p) != (None, None):
        settings.do_sample = True  # transformers refuses to save sampling settings without it
    return model


def _load_quantized(quantization: Options, files: CheckpointFiles) -> PreTrainedModel:
    import torch
    from transformers import BitsAndBytesConfig

    if files.gguf is not None:
        raise UserError(
            f"{files.path}: the recipe's quantization needs plain weights: write them with cst-bench convert, "
            "or train without it: --set quantization=null"
        )
    device, dtype = placement(files.options)
    if find_spec("bitsandbytes") is None:
        raise UserError(
            "the recipe's quantization needs bitsandbytes: pip install 'cst-bench[4bit]', "
            "or train without it: --set quantization=null"
        )
    options = dict(quantization)
    for name in ("bnb_4bit_compute_dtype", "bnb_4bit_quant_storage"):
        if isinstance(options.get(name), str):
            options[name] = getattr(torch, options[name], options[name])
    try:
        model = auto_class(files.folder, trust_remote_code=files.options.trust_remote_code).from_pretrained(
            files.folder,
            quantization_config=BitsAndBytesConfig(**options),
            dtype=dtype,
            device_map={"": device},
            use_safetensors=True,
            trust_remote_code=files.options.trust_remote_code,
        )
        return model.eval()
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"{files.folder}: could not load it quantized: {_line(error)}") from error


def _arguments(recipe: Recipe, model: PreTrainedModel, seed: int, work: Path, *, packed: bool) -> DPOConfig:
    """Make TRL's arguments: our defaults, the recipe's options, and what neither may change."""
    from trl import DPOConfig

    on_cpu = model.device.type == "cpu"
    defaults: Options = {
        "report_to": "none",
        "save_strategy": "steps",
        "save_steps": 0.1,
        "save_total_limit": 2,
    }
    if on_cpu:
        defaults |= {"bf16": False, "dataloader_pin_memory": False}
    if packed and not recipe.trl.get("sync_ref_model"):
        defaults["precompute_ref_log_probs"] = True
        if on_cpu:  # so that a row's log-probabilities do not depend on the rows computed with it
            defaults["precompute_ref_batch_size"] = 1
    options = {**defaults, **recipe.trl}
    try:
        return DPOConfig(**options, output_dir=str(work), seed=seed, use_cpu=on_cpu, disable_tqdm=True)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"recipe {recipe.name}: TRL rejects the options under trl: {_line(error)}") from error


def _make(
    trainer_class: type[TokenizedDPOTrainer],
    recipe: Recipe,
    model: PreTrainedModel,
    arguments: DPOConfig,
    chat: Chat,
    rows: TokenizedRows,
    **options: ReferenceCache | None,
) -> TokenizedDPOTrainer:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback

    lora = None
    if recipe.lora is not None:
        try:
            lora = LoraConfig(**recipe.lora, task_type="CAUSAL_LM")
        except (ValueError, TypeError, ImportError) as error:
            raise UserError(f"recipe {recipe.name}: PEFT rejects the options under lora: {_line(error)}") from error
    try:
        trainer = trainer_class(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(dict(rows.columns)),
            processing_class=copy.deepcopy(chat.tokenizer),  # TRL may give it a padding token
            peft_config=lora,
            **options,
        )
    except (ValueError, NotImplementedError, ImportError) as error:
        raise UserError(
            f"recipe {recipe.name}: training with these settings is not possible: {_line(error)}"
        ) from error
    trainer.remove_callback(PrinterCallback)
    return trainer


def _reference_cache(
    recipe: Recipe, files: CheckpointFiles, model: PreTrainedModel, arguments: DPOConfig, folder: Path
) -> ReferenceCache | None:
    """Return the cache of the base as it is loaded; None if the adapter's initialisation changes its weights."""
    import torch
    import transformers

    from cst_bench.tuning.packed import ReferenceCache

    if recipe.lora is not None and recipe.lora.get("init_lora_weights", True) not in _BASE_PRESERVING:
        return None
    weights: Mapping[str, object] = {
        "weights_sha256": files.identity.weights_sha256,
        "settings_sha256": files.identity.settings_sha256,
        "dtype": str(model.dtype),
        "quantization": recipe.quantization,
        "autocast": [arguments.bf16, arguments.fp16],
        "ld_alpha": arguments.ld_alpha,
        "device": model.device.type,
        "packages": [torch.__version__, transformers.__version__, __version__],
    }
    return ReferenceCache(folder, weights)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
