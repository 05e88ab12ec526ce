"""The schema of a recipe: everything that is needed to train one model, the data aside.

What stands under `trl:`, `lora:` and `quantization:` has the names of TRL's `DPOConfig`, PEFT's `LoraConfig` and
transformers' `BitsAndBytesConfig`, and goes to them as it is.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import yaml
from pydantic import AfterValidator, Field, ValidationError, create_model

from cst_bench import content
from cst_bench.content import Content
from cst_bench.errors import UserError, did_you_mean

FOLDER = "training/recipes"
OWN: Mapping[str, str] = {
    "output_dir": "--out says it",
    "seed": "--seed says it",
    "save_only_model": "a training that was cut off could not be continued as it was",
    "resume_from_checkpoint": "the same command continues a training",
    "use_cpu": "--device says it",
    "model_init_kwargs": "dtype and quantization say it",
    "trust_remote_code": "--trust-remote-code says it",
    "push_to_hub": "nothing is uploaded",
    "hub_token": "nothing is uploaded",
    "hub_model_id": "nothing is uploaded",
    "remove_unused_columns": "rows are token ids already",
    "disable_tqdm": "cst-bench draws the progress",
    "eval_strategy": "`cst-bench run` evaluates",
    "do_eval": "`cst-bench run` evaluates",
    "padding_free": "fast says it",
    "pad_token": "padding is left out, or masked",
}
"""Options of `DPOConfig` that a recipe doesn't set, and why."""
_OWN_LORA = ("peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "peft_version",
             "auto_mapping", "runtime_config")  # fmt: skip


class Recipe(Content):
    """How to train one model."""

    name: str = Field(pattern=r"^[a-z0-9_.-]+$")
    version: Annotated[int, Field(ge=1)]
    title: str
    description: str = ""
    source: str = ""
    """Where the settings come from."""
    base: str
    """Checkpoint: folder, hub id, or `tiny`. `--base` gives another."""
    revision: str | None = None
    """Of a hub id."""
    method: Literal["cst", "dpo"] = "cst"
    """Which configurations of a task the rows are of, where the data is a file of pairs. All other settings are the
    same for both."""
    data: str | None = None
    """A file of training rows or of pairs, by its path from the recipe's own; `--data` gives another."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the base's weights; auto is float32 on a CPU, else the checkpoint's own."""
    fast: Literal["auto", "on", "off"] = "auto"
    """Pairs packed without padding: where it gives TRL's numbers, or else not at all, or never."""
    trl: dict[str, Any] = Field(default_factory=dict)
    """Options of TRL's `DPOConfig`."""
    lora: dict[str, Any] | None = None
    """Options of PEFT's `LoraConfig`; without, all weights are trained."""
    quantization: dict[str, Any] | None = None
    """Options of `BitsAndBytesConfig` for the base."""
    changelog: dict[int, str] = Field(default_factory=dict)

    def as_given(self) -> dict[str, Any]:
        """The recipe's own keys, without defaults, as they stand in a file."""
        return self.model_dump(mode="json", exclude_unset=True)


def load_recipe(name: str, changes: Iterable[str] = ()) -> tuple[Recipe, Path]:
    """A recipe by name or path, and its file.

    Args:
        name: Of a recipe in `training/recipes`, or the path of a file.
        changes: `KEY=VALUE`, such as `trl.beta=0.3`, put over what the file says; a value is YAML.

    Raises:
        UserError: unknown name, or a fault in the file or in a change, with the nearest known key.
    """
    path = content.find(FOLDER, name, "recipe")
    checked = content.load(path, _checked())
    data = checked.model_dump(mode="json", exclude_unset=True)
    for change in changes:
        data = _changed(data, change)
    recipe = Recipe.model_validate(data)
    if recipe.quantization is not None and recipe.lora is None:
        raise UserError(f"{path}: quantization is for a base that LoRA is trained on: give lora too, or leave it out")
    return recipe, path


def _changed(data: dict[str, Any], change: str) -> dict[str, Any]:
    """The recipe with one key set, checked."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise UserError(f"--set {change!r}: must have the form --set KEY=VALUE, such as trl.beta=0.3")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"--set {change!r}: {text!r} is not a YAML value") from None
    parts = key.split(".")
    changed = {**data}
    place = changed
    for part in parts[:-1]:
        if not isinstance(place.get(part) or {}, dict):
            raise UserError(f"--set {change!r}: {part} is a value, and has no keys")
        place[part] = dict(place.get(part) or {})
        place = place[part]
    place[parts[-1]] = value
    try:
        return _checked().model_validate(changed).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        fault = error.errors()[0]
        if fault["type"] == "extra_forbidden":
            known = _checked().model_json_schema()
            names = known["properties"] if len(parts) == 1 else _section(parts[0]).model_fields
            raise UserError(f"--set {change!r}: unknown key {key!r}: {did_you_mean(parts[-1], names)}") from None
        message = fault["msg"].removeprefix("Value error, ")
        raise UserError(f"--set {change!r}: {'.'.join(map(str, fault['loc'][:2]))}: {message}") from None


@lru_cache
def _checked() -> type[Recipe]:
    """The schema with the libraries' own options in it, so that a fault in them has its line and the nearest name."""
    sections: dict[str, Any] = {
        "trl": (_section("trl"), Field(default_factory=dict)),
        "lora": (_section("lora") | None, None),
        "quantization": (_section("quantization") | None, None),
    }
    return create_model("CheckedRecipe", __base__=Recipe, **sections)


@lru_cache
def _section(name: str) -> type[Content]:
    if name == "trl":
        from trl import DPOConfig

        return _options("trl", DPOConfig, OWN)
    if name == "lora":
        from peft import LoraConfig

        return _options("lora", LoraConfig, dict.fromkeys(_OWN_LORA, "cst-bench sets it"))
    if name == "quantization":
        from transformers import BitsAndBytesConfig

        parameters = inspect.signature(BitsAndBytesConfig.__init__).parameters.values()
        fields: dict[str, Any] = {
            p.name: (type(p.default) if isinstance(p.default, (bool, float)) else Any, None)
            for p in parameters
            if p.name != "self" and p.kind is not p.VAR_KEYWORD
        }
        return create_model("quantization", __base__=Content, **fields)
    raise UserError(f"a recipe has no section {name!r}: {did_you_mean(name, ('trl', 'lora', 'quantization'))}")


def _options(name: str, options: Any, own: Mapping[str, str]) -> type[Content]:
    """A schema of a dataclass' fields, by their own types; those that are `own` are refused with the reason."""
    hints = get_type_hints(options)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        if field.name in own:
            fields[field.name] = (Annotated[Any, AfterValidator(partial(_refuse, own[field.name]))], None)
        elif field.init:
            hint = hints[field.name]
            fields[field.name] = (hint | str if hint == list[str] else hint, None)
    return create_model(name, __base__=Content, **fields)


def _refuse(reason: str, _: Any) -> Any:
    raise ValueError(f"is not for a recipe: {reason}")
