"""Starter files work as they are: each is written, then used by the verbs it is made for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cst_bench import content
from cst_bench.compliance.compliance_task import load_task
from cst_bench.errors import UserError
from cst_bench.judging import find_judge, read_judge_file
from cst_bench.starters import FOLDERS, write_starter
from cst_bench.tuning.recipe import load_recipe
from tests.cli.invoke import Outcome, invoke

Cli = Callable[..., Outcome]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run `cst-bench` in an empty folder and require that it succeeds."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> Outcome:
        outcome = invoke(capsys, monkeypatch, *args)
        assert outcome.status == 0, outcome.err
        return outcome

    return run


@pytest.mark.parametrize("kind", FOLDERS)
def test_files_are_named_and_never_overwritten(kind: str, tmp_path: Path) -> None:
    paths = write_starter(kind, "mine", tmp_path / "new")
    assert paths[0].name == "mine.yaml"
    assert sorted(paths) == sorted((tmp_path / "new").iterdir())
    assert not any("starter" in path.read_text() for path in paths)
    paths[-1].write_text("changed")
    if len(paths) > 1:
        paths[0].unlink()
    with pytest.raises(UserError, match="exists and is not overwritten"):
        write_starter(kind, "mine", tmp_path / "new")
    assert paths[-1].read_text() == "changed"
    assert len(list((tmp_path / "new").iterdir())) == 1


@pytest.mark.parametrize("name", ["My Task", "../mine", "", "mine.yaml"])
def test_a_name_that_no_file_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="use lower-case letters, digits and underscores"):
        write_starter("task", name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["on", "no", "null", "2024", "1_000", "true"])
def test_a_name_that_yaml_reads_as_something_else_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="YAML reads it as"):
        write_starter("judge", name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_starters_are_valid_and_not_listed_by_name(tmp_path: Path) -> None:
    files = {kind: str(write_starter(kind, f"my_{kind}", tmp_path)[0]) for kind in FOLDERS}
    assert load_task(files["task"])[0].name == "my_task"
    assert read_judge_file(find_judge(files["judge"])).name == "my_judge"
    assert load_recipe(files["recipe"])[0].name == "my_recipe"
    for folder in ("tasks/compliance", "judges", "training/recipes"):
        assert "starter" not in content.names(folder)


def test_a_task_runs(cli: Cli, tmp_path: Path) -> None:
    assert "Try it: cst-bench run --task mine.yaml" in cli("init", "task", "mine").out
    scores = json.loads(cli("run", "--task", "./mine.yaml", "--json").out)["compliance"]["mine"]
    assert {name: score["n"] + score["unscored"] for name, score in scores["configurations"].items()} == {
        "OPEN": 8,
        "CLOSED": 8,
    }
    assert list((tmp_path / "runs").iterdir())


def test_a_judge_judges_and_is_calibrated(cli: Cli) -> None:
    cli("init", "judge", "mine", "--out", "own")
    assert json.loads(cli("judge", "calibrate", "own/mine.yaml", "--json").out)["n"] > 100
    run = cli("run", "--task", "tiny_sealed", "--limit", "2", "--judge", "own/mine.yaml", "--json")
    judge = json.loads(run.out)["judges"]["tiny_sealed"]
    assert judge["name"] == "mine"
    assert judge["calibration"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("data", [(), ("--data", "mine.jsonl")])
def test_a_recipe_trains_a_checkpoint(data: tuple[str, ...], cli: Cli, tmp_path: Path) -> None:
    cli("init", "recipe", "mine")
    training = json.loads(cli("train", "./mine.yaml", *data, "--out", "model", "--json").out)
    assert training["steps"] == 2
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()


def test_the_verb_refuses_to_overwrite(
    cli: Cli, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("init", "task", "mine")
    outcome = invoke(capsys, monkeypatch, "init", "task", "mine")
    assert outcome.status == 2
    assert "mine.yaml exists and is not overwritten" in outcome.err
