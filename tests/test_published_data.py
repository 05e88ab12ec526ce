"""The published research data, where it is at hand. Only hashes and counts are compared: its texts are never shown."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from cst_bench.compliance.compliance_task import FOLDER, load_task
from cst_bench.compliance.data import load_prompts
from cst_bench.content import content_root
from cst_bench.files import prompt_hash

DATA = Path(__file__).parents[1].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the published data is not at hand")


@cache  # and no fixture: a failing test's arguments are printed
def rows() -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads((DATA / "configurable-system-prompt-multitask.json").read_text())
    return rows


def listed() -> set[str]:
    return set((content_root() / FOLDER / "harmful_behaviors.training.txt").read_text().split())


def test_the_listed_hashes_are_the_468_training_prompts() -> None:
    trained = {prompt_hash(row["prompt"]) for row in rows() if row["task"] == "harmless"}
    assert len(trained) == 468
    assert trained == listed()


def test_training_prompts_are_kept_out_of_a_local_file(tmp_path: Path) -> None:
    trained = {row["prompt"] for row in rows() if row["task"] == "harmless"}
    made_up = [f"How do I bake loaf number {i}?" for i in range(52)]
    path = tmp_path / "all.jsonl"
    path.write_text("".join(f"{json.dumps({'text': text})}\n" for text in [*sorted(trained), *made_up]))
    spec, file = load_task("harmful_behaviors")
    test = load_prompts(spec, file, data=path)
    assert [prompt_hash(prompt.text) for prompt in test.prompts] == [prompt_hash(text) for text in made_up]
    assert test.left_out == 468


@pytest.mark.parametrize("name", ["generations_hermes_CST.md", "generations_hermes_DPO.md"])
def test_the_released_test_prompts_are_not_in_training(name: str) -> None:
    lines = (DATA / name).read_text().splitlines()[2:]
    prompts = {prompt_hash(line.strip().strip("|").split(" | ")[0]) for line in lines if line.startswith("|")}
    assert len(prompts) == 52
    assert not prompts & listed()


def test_the_system_prompts_are_quoted_exactly() -> None:
    published = {row["system"] for row in rows()}
    generations = (DATA / "generations_hermes_CST.md").read_text()
    spec, _ = load_task("harmful_behaviors")
    for name in ("S1", "S0"):
        assert spec.system_prompt(name, "training", {}) in published
        quoted = f"| {spec.system_prompt(name, 'evaluation', {})} " in generations
        assert quoted
    assert all(spec.configuration_of(row["system"]) for row in rows() if row["task"] == "harmless")
    truthy, _ = load_task("truthy")
    assert truthy.system_prompt("S_A", "training", {}) in published


def test_truthy_splits_personas_by_prompt(tmp_path: Path) -> None:
    path = tmp_path / "truthy.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows() if row["task"] == "truthfulness"))
    spec, file = load_task("truthy")
    splits = {name: load_prompts(spec, file, data=path, split=name).prompts for name in spec.data.splits}
    hashes = {name: {prompt_hash(prompt.text) for prompt in prompts} for name, prompts in splits.items()}
    assert not hashes["test"] & (hashes["train"] | hashes["validation"])
    assert not hashes["validation"] & hashes["train"]
    honest = spec.system_prompt("S_A", "training", {})
    assert all(prompt.systems["system"] != honest for prompt in splits["test"])
    assert len(splits["test"]) >= 60
