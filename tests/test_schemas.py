"""JSON Schemas of files: they accept every file of the project, refuse what the models refuse, and explain the keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import JsonValue

from cst_bench import content
from cst_bench.errors import UserError
from cst_bench.judging.find import KINDS as JUDGE_KINDS
from cst_bench.record import Manifest, Outcomes, Scores
from cst_bench.schemas import KINDS, json_schema
from cst_bench.starters import FOLDERS
from tests.cli.invoke import invoke
from tests.reporting.stored_runs import make_run

CONTENT = {
    "task": ("tasks/compliance", "tasks/starter"),
    "capability": ("tasks/capabilities",),
    "judge": ("judges", "judges/starter"),
    "recipe": ("training/recipes", "training/starter"),
    "suite": ("tasks/suites",),
    "reproduction": ("training/reproductions",),
    "critique": ("training/critiques",),
    "attacks": ("judges/attacks",),
    "label_set": ("judges/label_sets",),
}


def faults(kind: str, value: JsonValue) -> list[str]:
    return [error.message for error in Draft202012Validator(json_schema(kind)).iter_errors(value)]


def load(path: Path) -> JsonValue:
    """Load a YAML file as JSON, whose keys are text."""
    value: JsonValue = json.loads(json.dumps(yaml.safe_load(path.read_text(encoding="utf-8"))))
    return value


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind == "recipe" else kind for kind in KINDS]
)
def test_schema_is_valid_and_explains_every_key(kind: str) -> None:
    schema = json_schema(kind)
    Draft202012Validator.check_schema(schema)
    definitions = {} if kind == "recipe" else schema.get("$defs", {})  # TRL, PEFT and bitsandbytes document their own
    assert isinstance(definitions, dict)
    unexplained = [
        f"{name}.{key}"
        for name, model in {kind: schema, **definitions}.items()
        if isinstance(model, dict) and isinstance(properties := model.get("properties", {}), dict)
        for key, value in properties.items()
        if isinstance(value, dict) and not value.get("description")
    ]
    assert not unexplained


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        pytest.param(kind, path, id=path.stem, marks=[pytest.mark.slow] if kind == "recipe" else [])
        for kind, folders in CONTENT.items()
        for folder in folders
        for path in sorted((content.content_root() / folder).glob("*.yaml"))
    ],
)
def test_files_of_the_project_are_accepted_and_unknown_keys_refused(kind: str, path: Path) -> None:
    value = load(path)
    assert faults(kind, value) == []
    assert isinstance(value, dict)
    assert faults(kind, {**value, "unknown_key": 1})


@pytest.mark.slow
def test_options_that_a_recipe_cannot_set_are_refused() -> None:
    recipe = load(content.content_root() / "training/starter/starter.yaml")
    assert isinstance(recipe, dict)
    assert faults("recipe", {**recipe, "trl": {"beta": 0.2}}) == []
    assert faults("recipe", {**recipe, "trl": {"output_dir": "here"}})
    assert faults("recipe", {**recipe, "trl": {"betta": 0.2}})


def test_every_kind_of_judge_has_its_keys() -> None:
    schema = json_schema("judge")
    assert isinstance(schema["discriminator"], dict)
    assert schema["discriminator"]["mapping"].keys() == JUDGE_KINDS.keys()  # type: ignore[union-attr]


@pytest.mark.parametrize(("kind", "record"), [("manifest", Manifest), ("scores", Scores), ("outcomes", Outcomes)])
def test_files_of_a_run_are_accepted(kind: str, record: type[Manifest | Scores | Outcomes], tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", "model", {"S1": 0.7, "S0": 0.85, "S_RP": 0.8, "S_A": 0.95})
    value = json.loads((folder / record.FILE_NAME).read_text())
    assert faults(kind, value) == []
    assert faults(kind, {**value, "schema": 0})
    del value["schema"]
    assert faults(kind, value) == ["'schema' is a required property"]


def test_stored_runs_of_this_and_earlier_versions_are_accepted() -> None:
    stored = sorted((content.content_root() / "reports").glob("*/runs/*/run.json"))
    assert stored
    for path in stored:
        assert faults("manifest", json.loads(path.read_text("utf-8"))) == [], path


def test_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown kind of file 'tsk': did you mean task"):
        json_schema("tsk")


def test_starters_have_a_schema() -> None:
    assert set(FOLDERS) <= set(KINDS)


def test_the_verb_prints_or_writes_the_schema(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = json.loads(invoke(capsys, monkeypatch, "schema", "suite").out)
    assert printed == json_schema("suite")
    assert invoke(capsys, monkeypatch, "schema", "suite", "--out", "suite.schema.json").status == 0
    assert json.loads((tmp_path / "suite.schema.json").read_text()) == printed
    assert invoke(capsys, monkeypatch, "schema", "nothing").status == 2
