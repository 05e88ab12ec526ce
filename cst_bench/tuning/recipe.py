"""Recipes: everything needed to train one model, except the data.

The keys under `trl:`, `lora:` and `quantization:` are options of TRL's `DPOConfig`, PEFT's `LoraConfig` and
transformers' `BitsAndBytesConfig`, and are passed to them unchanged.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_type_hints

from pydantic import AfterValidator, Field, ValidationError, create_model

from cst_bench import content
from cst_bench.content import Content
from cst_bench.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from peft import LoraConfig
    from trl import DPOConfig

FOLDER = "training/recipes"
Options = dict[str, Any]
"""Options of a library by name, or pydantic's field definitions made of them."""
NOT_IN_RECIPE: Mapping[str, str] = {
    "output_dir": "use --out",
    "seed": "use --seed",
    "save_only_model": "an interrupted training could not be continued",
    "resume_from_checkpoint": "the same command continues a training",
    "use_cpu": "use --device",
    "model_init_kwargs": "use the keys dtype and quantization",
    "trust_remote_code": "use --trust-remote-code",
    "push_to_hub": "nothing is uploaded",
    "hub_token": "nothing is uploaded",
    "hub_model_id": "nothing is uploaded",
    "remove_unused_columns": "rows are token ids already",
    "disable_tqdm": "cst-bench shows the progress",
    "eval_strategy": "`cst-bench run` evaluates",
    "do_eval": "`cst-bench run` evaluates",
    "padding_free": "use the key fast",
    "pad_token": "padding is left out or masked",
}
"""Option of `DPOConfig` → why a recipe cannot set it."""
_LORA_NOT_IN_RECIPE = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_type",
    "peft_version",
    "revision",
    "runtime_config",
    "task_type",
)


class Recipe(Content):
    """Settings of a training."""

    name: str = Field(pattern=r"^[a-z0-9_.-]+$")
    """Name in model cards; part of the output folder's name."""
    version: Annotated[int, Field(ge=1)]
    """Version; increased by every change that changes the trained weights."""
    title: str
    """Name in model cards."""
    description: str = ""
    """Purpose of the recipe."""
    source: str = ""
    """Origin of the settings."""
    base: str
    """Checkpoint to train: folder, Hub id, or `tiny`. `--base` overrides it."""
    revision: str | None = None
    """Branch, tag or commit of a Hub id."""
    method: Literal["cst", "dpo"] = "cst"
    """Configurations of the task that a file of pairs is flipped by: all, or the first. No other setting differs."""
    data: str | None = None
    """File of training rows or of pairs, relative to the recipe; `--data` overrides it."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the base's weights; `auto` is float32 on a CPU, otherwise the checkpoint's type."""
    fast: Literal["auto", "on", "off"] = "auto"
    """Pack pairs without padding: where it gives TRL's numbers; or refuse to train where it does not; or never."""
    trl: Options = Field(default_factory=dict)
    """Options of TRL's `DPOConfig`."""
    lora: Options | None = None
    """Options of PEFT's `LoraConfig`; None trains all weights."""
    quantization: Options | None = None
    """Options of `BitsAndBytesConfig` for the base."""
    changelog: dict[int, str] = Field(default_factory=dict)
    """Version → what changed."""

    def without_defaults(self) -> Options:
        """Return the keys that were set, as in a file."""
        return self.model_dump(mode="json", exclude_unset=True)


def load_recipe(name: str, changes: Iterable[str] = ()) -> tuple[Recipe, Path]:
    """Load a recipe by name or path, and return it with its file.

    Args:
        name: Name of a recipe in `training/recipes`, or path of a file.
        changes: `KEY=VALUE` settings that override the file, such as `trl.beta=0.3`; values are YAML.

    Raises:
        UserError: unknown name, or a fault in the file or in a change; the message names the nearest known key.
    """
    path = content.find(FOLDER, name, "recipe")
    checked = content.load(path, checked_recipe())
    data = checked.model_dump(mode="json", exclude_unset=True)
    for change in changes:
        data = _changed(data, change)
    recipe = Recipe.model_validate(data)
    if recipe.quantization is not None and recipe.lora is None:
        raise UserError(f"{path}: a quantized base can only be trained with LoRA: give lora too, or no quantization")
    return recipe, path


def _changed(data: Options, change: str) -> Options:
    """Return the content of a recipe with one key set, validated."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise UserError(f"--set {change!r}: must have the form --set KEY=VALUE, such as trl.beta=0.3")
    try:
        value = content.parse_yaml(f"--set {key}", text)
    except UserError:
        raise UserError(f"--set {change!r}: {text!r} is not a YAML value") from None
    parts = key.split(".")
    changed = {**data}
    section = changed
    for part in parts[:-1]:
        if not isinstance(section.get(part) or {}, dict):
            raise UserError(f"--set {change!r}: {part} is a value and has no keys")
        section[part] = dict(section.get(part) or {})
        section = section[part]
    section[parts[-1]] = value
    try:
        return checked_recipe().model_validate(changed).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        fault = error.errors()[0]
        if fault["type"] == "extra_forbidden":
            known = checked_recipe().model_json_schema()
            names = known["properties"] if len(parts) == 1 else _section(parts[0]).model_fields
            raise UserError(f"--set {change!r}: unknown key {key!r}: {did_you_mean(parts[-1], names)}") from None
        message = fault["msg"].removeprefix("Value error, ")
        raise UserError(f"--set {change!r}: {'.'.join(map(str, fault['loc'][:2]))}: {message}") from None


@lru_cache
def checked_recipe() -> type[Recipe]:
    """Make the schema that includes the libraries' options, so that a fault in them is reported like any other."""
    described = {name: field.description for name, field in Recipe.model_fields.items()}
    sections: Options = {
        "trl": (_section("trl"), Field(default_factory=dict, description=described["trl"])),
        "lora": (_section("lora") | None, Field(default=None, description=described["lora"])),
        "quantization": (_section("quantization") | None, Field(default=None, description=described["quantization"])),
    }
    return create_model("CheckedRecipe", __base__=Recipe, **sections)


@lru_cache
def _section(name: str) -> type[Content]:
    """Make the schema of a section."""
    if name == "trl":
        from trl import DPOConfig

        return _options("trl", DPOConfig, NOT_IN_RECIPE)
    if name == "lora":
        from peft import LoraConfig

        return _options("lora", LoraConfig, dict.fromkeys(_LORA_NOT_IN_RECIPE, "cst-bench sets it"))
    if name == "quantization":
        from transformers import BitsAndBytesConfig

        parameters = inspect.signature(BitsAndBytesConfig.__init__).parameters.values()
        fields: Options = {
            parameter.name: (type(parameter.default) if isinstance(parameter.default, (bool, float)) else object, None)
            for parameter in parameters
            if parameter.name != "self" and parameter.kind is not parameter.VAR_KEYWORD
        }
        return create_model("quantization", __base__=Content, **fields)
    raise UserError(f"a recipe has no section {name!r}: {did_you_mean(name, ('trl', 'lora', 'quantization'))}")


def _options(name: str, options: type[DPOConfig | LoraConfig], refused: Mapping[str, str]) -> type[Content]:
    """Make a schema of a dataclass's fields with their types; refused fields raise the reason."""
    hints = get_type_hints(options)
    fields: Options = {}
    for field in dataclasses.fields(options):
        if field.name in refused:
            refusal = Annotated[object, AfterValidator(partial(_refuse, refused[field.name]))]
            fields[field.name] = (refusal, Field(default=None, json_schema_extra={"not": {}}))  # allows no value
        elif field.init:
            hint = hints[field.name]
            fields[field.name] = (hint | str if hint == list[str] else hint, None)
    return create_model(name, __base__=Content, **fields)


def _refuse(reason: str, _: object) -> NoReturn:
    raise ValueError(f"cannot be set in a recipe: {reason}")
