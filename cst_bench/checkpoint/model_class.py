"""Class that a checkpoint is loaded with: a causal language model, or an image-text model that is given text only."""

from __future__ import annotations

from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.errors import UserError

if TYPE_CHECKING:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel


def auto_class(
    folder: Path, *, gguf_file: str | None = None, trust_remote_code: bool
) -> type[AutoModelForCausalLM] | type[AutoModelForImageTextToText]:
    """Return transformers' auto class that loads a checkpoint to continue text.

    That is `AutoModelForCausalLM` for all but image-text models without a text-only class of their own, such as
    `mistral3`. transformers itself reports a config that it does not know.

    Args:
        folder: Folder with config.json, or with the GGUF file.
        gguf_file: Name of a GGUF file.
        trust_remote_code: Allow code of the checkpoint.

    Raises:
        UserError: the model cannot continue text without an image, or is an encoder-decoder model.
    """
    import transformers
    from transformers.models.auto import modeling_auto

    config = transformers.AutoConfig.from_pretrained(folder, gguf_file=gguf_file, trust_remote_code=trust_remote_code)
    own_code = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    name = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(config.model_type)
    if own_code or name is None or config.model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        causal: type[AutoModelForCausalLM] = transformers.AutoModelForCausalLM
        return causal
    if (reason := _not_for_text(config, getattr(transformers, name))) is not None:
        raise UserError(f"{folder}: {name} cannot be evaluated on text: {reason}")
    image_text: type[AutoModelForImageTextToText] = transformers.AutoModelForImageTextToText
    return image_text


def _not_for_text(config: PreTrainedConfig, model: type[PreTrainedModel]) -> str | None:
    """Return why an image-text model cannot continue text alone; None if it can, as far as its forward says."""
    text = config.get_text_config()
    if config.is_encoder_decoder or text.is_encoder_decoder:
        return "it is an encoder-decoder model"
    if getattr(text, "use_bidirectional_attention", None) is True:
        return "tokens of its prompt attend to later ones"
    required = [
        parameter.name
        for parameter in signature(model.forward).parameters.values()
        if parameter.default is Parameter.empty
        and parameter.kind is Parameter.POSITIONAL_OR_KEYWORD
        and parameter.name not in ("self", "input_ids")
    ]
    return f"it needs {', '.join(required)} with each input" if required else None
