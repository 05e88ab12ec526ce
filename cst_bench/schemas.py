"""JSON Schemas of the files that cst-bench reads and writes, for editors and validators.

Every schema is made from the pydantic model that reads the file, so that both agree. Models are imported when they are
asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Annotated

from pydantic import BaseModel, Field, JsonValue, TypeAdapter

from cst_bench.errors import UserError, did_you_mean

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(kind: str) -> dict[str, JsonValue]:
    """Return the JSON Schema of a kind of file.

    Args:
        kind: A key of `KINDS`. The schema of a recipe has the options of TRL, PEFT and bitsandbytes, which takes some
            seconds to import.

    Raises:
        UserError: unknown kind.
    """
    if kind not in KINDS:
        raise UserError(f"unknown kind of file {kind!r}: {did_you_mean(kind, KINDS)}")
    return {"$schema": DIALECT, **KINDS[kind]()}


def _of_model(name: str) -> Callable[[], dict[str, JsonValue]]:
    """Return a function that makes the schema of the model with a name `module:class`."""

    def make() -> dict[str, JsonValue]:
        module, _, model_name = name.partition(":")
        model: type[BaseModel] = getattr(import_module(module), model_name)
        return model.model_json_schema()

    return make


def _of_judge() -> dict[str, JsonValue]:
    """Make the schema of a judge file, whose other keys depend on its `kind`."""
    from cst_bench.judging.cascade import CascadeFile
    from cst_bench.judging.encoder import EncoderFile
    from cst_bench.judging.guard import GuardFile
    from cst_bench.judging.llm import LlmFile
    from cst_bench.judging.panel import PanelFile
    from cst_bench.judging.rules import RulesFile
    from cst_bench.judging.trained import ClassifierFile

    files = RulesFile | LlmFile | ClassifierFile | GuardFile | PanelFile | CascadeFile | EncoderFile
    schema = TypeAdapter(Annotated[files, Field(discriminator="kind")]).json_schema()
    return {"title": "Judge", "description": "A judge file; its kind decides which other keys it has.", **schema}


def _of_recipe() -> dict[str, JsonValue]:
    """Make the schema of a recipe, with the options of the libraries in its sections."""
    from cst_bench.tuning.recipe import checked_recipe

    return {**checked_recipe().model_json_schema(), "title": "Recipe"}


KINDS: Mapping[str, Callable[[], dict[str, JsonValue]]] = {
    "task": _of_model("cst_bench.compliance.compliance_task:ComplianceTask"),
    "capability": _of_model("cst_bench.capabilities.capability_task:CapabilityTask"),
    "judge": _of_judge,
    "recipe": _of_recipe,
    "suite": _of_model("cst_bench.runs.suite:Suite"),
    "reproduction": _of_model("cst_bench.reproduce.steps:Reproduction"),
    "critique": _of_model("cst_bench.preferences.self_critique:CritiqueFile"),
    "attacks": _of_model("cst_bench.calibration.robustness:AttackFile"),
    "label_set": _of_model("cst_bench.calibration.label_sets:LabelSetFile"),
    "manifest": _of_model("cst_bench.record:Manifest"),
    "scores": _of_model("cst_bench.record:Scores"),
    "outcomes": _of_model("cst_bench.record:Outcomes"),
    "receipt": _of_model("cst_bench.record:Receipt"),
}
"""Kind of file → function that makes its schema. The last four are `run.json`, `scores.json`, `outcomes.json` and
`receipt.json`."""
