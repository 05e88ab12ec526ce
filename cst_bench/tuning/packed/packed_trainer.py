"""From a recipe to TRL's trainer: the base loaded, the libraries' options made, packed training where it is exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cst_bench import __version__
from cst_bench.checkpoint import load_weights
from cst_bench.checkpoint.chat import Chat
from cst_bench.checkpoint.files import CheckpointFiles
from cst_bench.checkpoint.loading import placement
from cst_bench.errors import UserError
from cst_bench.tuning.dataset import Rendered
from cst_bench.tuning.packed.reference_cache import ReferenceCache
from cst_bench.tuning.recipe import Recipe

_SAME_BASE = (True, False, "gaussian", "orthogonal")
"""`init_lora_weights` that leave the base's weights alone, so that its reference log-probabilities can be shared."""


@dataclass(frozen=True)
class Prepared:
    """A trainer, ready, and how it trains."""

    trainer: Any
    packed: bool
    why_not: str | None
    """Why it doesn't train packed, if it was to."""


def make_trainer(
    recipe: Recipe,
    files: CheckpointFiles,
    chat: Chat,
    rendered: Rendered,
    *,
    seed: int,
    work: Path,
    stock: bool,
    cache: Path,
) -> Prepared:
    """Loads the base and makes a trainer.

    Args:
        recipe: Its sections go to the libraries.
        files: Of the base.
        chat: Of the base.
        rendered: The rows.
        seed: Of everything that is drawn.
        work: Where the trainer keeps its checkpoints.
        stock: Whether to leave the forward pass to TRL.
        cache: Where reference log-probabilities are kept.

    Raises:
        UserError: a library refuses the settings, or `fast: on` can't be had.
    """
    from cst_bench.tuning.packed.packed_model import PackedDPOTrainer, RenderedDPOTrainer
    from cst_bench.tuning.packed.packing_support import CannotPack, unsupported

    model = _load(recipe, files, chat)
    wanted = recipe.fast != "off" and not stock
    why_not = unsupported(model, recipe.trl, recipe.lora, rendered.longest) if wanted else None
    if wanted and why_not is None:
        args = _arguments(recipe, model, seed, work, packed=True)
        try:
            trainer = _make(
                PackedDPOTrainer, recipe, model, args, chat, rendered, cache=_cache(recipe, files, model, args, cache)
            )
            return Prepared(trainer, True, None)
        except CannotPack as error:
            why_not = str(error)
            model = _load(recipe, files, chat)  # its forward pass was exchanged
    if why_not is not None and recipe.fast == "on":
        raise UserError(f"{files.label} can't be trained packed: {why_not}; say fast: auto or off in the recipe")
    args = _arguments(recipe, model, seed, work, packed=False)
    return Prepared(_make(RenderedDPOTrainer, recipe, model, args, chat, rendered), False, why_not)


def _load(recipe: Recipe, files: CheckpointFiles, chat: Chat) -> Any:
    """The base's model, in eval mode."""
    if recipe.quantization is None:
        model = load_weights(files, chat).model
    else:
        model = _load_quantized(recipe.quantization, files)
    settings = model.generation_config
    if settings is not None and not settings.do_sample and (settings.temperature, settings.top_p) != (None, None):
        settings.do_sample = True  # else the trained model's own config can't be saved
    return model


def _load_quantized(options: Mapping[str, Any], files: CheckpointFiles) -> Any:
    from importlib.util import find_spec

    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    device, dtype = placement(files.options)
    if find_spec("bitsandbytes") is None:
        raise UserError(
            "the recipe's quantization needs bitsandbytes: pip install 'cst-bench[4bit]', "
            "or train without it: --set quantization=null"
        )
    given = dict(options)
    for name in ("bnb_4bit_compute_dtype", "bnb_4bit_quant_storage"):
        if isinstance(given.get(name), str):
            given[name] = getattr(torch, given[name], given[name])
    try:
        return AutoModelForCausalLM.from_pretrained(
            files.folder,
            quantization_config=BitsAndBytesConfig(**given),
            dtype=dtype,
            device_map={"": device},
            use_safetensors=True,
            trust_remote_code=files.options.trust_remote_code,
        ).eval()
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"{files.folder}: can't load it quantized: {' '.join(str(error).split())}") from error


def _arguments(recipe: Recipe, model: Any, seed: int, work: Path, *, packed: bool) -> Any:
    """TRL's arguments: the recipe's over what a training here needs."""
    from trl import DPOConfig

    on_cpu = model.device.type == "cpu"
    given = dict(recipe.trl)
    ours: dict[str, Any] = {
        "report_to": "none",
        "save_strategy": "steps",
        "save_steps": 0.1,
        "save_total_limit": 2,
    }
    if on_cpu:
        ours |= {"bf16": False, "dataloader_pin_memory": False}
    if packed and not given.get("sync_ref_model"):
        ours["precompute_ref_log_probs"] = True
        if on_cpu:  # so that a row's figures don't depend on the rows that are computed with it
            ours["precompute_ref_batch_size"] = 1
    try:
        return DPOConfig(**{**ours, **given}, output_dir=str(work), seed=seed, use_cpu=on_cpu, disable_tqdm=True)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"recipe {recipe.name}: TRL refuses what is under trl: {_line(error)}") from error


def _make(trainer: Any, recipe: Recipe, model: Any, args: Any, chat: Chat, rendered: Rendered, **more: Any) -> Any:
    import copy

    from datasets import Dataset
    from peft import LoraConfig
    from transformers import PrinterCallback

    lora = None
    if recipe.lora is not None:
        try:
            lora = LoraConfig(**recipe.lora, task_type="CAUSAL_LM")
        except (ValueError, TypeError, ImportError) as error:
            raise UserError(f"recipe {recipe.name}: PEFT refuses what is under lora: {_line(error)}") from error
    try:
        made = trainer(
            model=model,
            args=args,
            train_dataset=Dataset.from_dict(dict(rendered.columns)),
            processing_class=copy.deepcopy(chat.tokenizer),  # TRL may give it a token for padding
            peft_config=lora,
            **more,
        )
    except (ValueError, NotImplementedError, ImportError) as error:
        raise UserError(f"recipe {recipe.name}: these settings can't be trained: {_line(error)}") from error
    made.remove_callback(PrinterCallback)
    return made


def _cache(recipe: Recipe, files: CheckpointFiles, model: Any, args: Any, folder: Path) -> ReferenceCache | None:
    """The file for this base as it is loaded, if the adapter leaves it as it is."""
    import torch
    import transformers

    if recipe.lora is not None and recipe.lora.get("init_lora_weights", True) not in _SAME_BASE:
        return None
    weights = {
        "weights_sha256": files.identity["weights_sha256"],
        "settings_sha256": files.identity["settings_sha256"],
        "dtype": str(model.dtype),
        "quantization": recipe.quantization,
        "autocast": [args.bf16, args.fp16],
        "ld_alpha": args.ld_alpha,
        "device": model.device.type,
        "packages": [torch.__version__, transformers.__version__, __version__],
    }
    return ReferenceCache(folder, weights)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
