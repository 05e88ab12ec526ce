"""Scores in a model card: what else is in the card stays as it is, to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from cst_bench.errors import UserError
from cst_bench.reporting.model_card import update_model_card
from cst_bench.reporting.stored_run import StoredRun, read_run
from tests.reporting.stored_runs import make_run

RATES = {"S1": 0.7, "S0": 0.85, "S_RP": 0.8, "S_A": 0.95}
CARD = """---
license: mit  # as its base
tags: [a,  b]
---
# My model

--- not metadata ---
"""


@pytest.fixture
def run(tmp_path: Path) -> StoredRun:
    return read_run(make_run(tmp_path / "run", "me/my-cst", RATES, method="cst"))


def test_huggingfaces_own_classes_read_the_scores_back(tmp_path: Path, run: StoredRun) -> None:
    path = tmp_path / "README.md"
    update_model_card(path, run)
    data = ModelCard.load(path).data
    assert data.model_name == "me/my-cst"
    results = {(one.dataset_name, one.metric_name): one for one in data.eval_results}
    assert len(results) == 4 + 2 + 4  # configurations, joint compliance, capabilities
    s1 = results["harmful_behaviors", "S1"]
    assert (s1.metric_type, s1.metric_value, s1.dataset_type, s1.dataset_split) == (
        *("compliance", 0.7),
        *("org/data", "test"),
    )
    interval = run.scores.compliance["harmful_behaviors"].configurations["S1"].interval
    assert interval is not None
    assert s1.metric_args["interval_95"] == pytest.approx(list(interval), abs=1e-4)
    assert (s1.metric_args["n"], s1.metric_args["judge"]) == (40, "openai/gpt-4")
    assert results["MMLU", "MMLU"].metric_type == "acc"
    assert all(one.verified is None for one in data.eval_results)


def test_all_else_stays_and_a_second_time_changes_nothing(tmp_path: Path, run: StoredRun) -> None:
    path = tmp_path / "README.md"
    path.write_text(CARD)
    update_model_card(path, run)
    text = path.read_text()
    before, after = CARD.split("---\n# My model")
    assert text.startswith(before)
    assert text.endswith(f"---\n# My model{after}")
    update_model_card(path, run)
    assert path.read_text() == text


def test_results_of_others_are_kept_and_our_own_replaced(tmp_path: Path, run: StoredRun) -> None:
    path = tmp_path / "README.md"
    theirs = {
        "task": {"type": "x"},
        "dataset": {"name": "d", "type": "d"},
        "metrics": [{"type": "acc", "value": 0.5}],
    }
    index = {"model-index": [{"name": "named", "results": [theirs]}, {"name": "second", "results": []}]}
    path.write_text(f"---\nlicense: mit\n{yaml.safe_dump(index)}tags: [x]\n---\ntext\n")
    update_model_card(path, run)
    update_model_card(path, read_run(make_run(tmp_path / "again", "me/my-cst", {**RATES, "S1": 0.9}, method="cst")))
    block = yaml.safe_load(path.read_text().split("---\n")[1])
    first, second = block["model-index"]
    assert (first["name"], second["name"], block["tags"], block["license"]) == ("named", "second", ["x"], "mit")
    assert first["results"][0] == theirs
    s1 = [m["value"] for one in first["results"] for m in one["metrics"] if m.get("name") == "S1"]
    assert s1 == [0.9]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("---\na: [1\n---\n", "not valid YAML"),
        ("---\n- a\n---\n", "must be keys and values, not list"),
        ("---\nmodel-index: 3\n---\n", "must be a list of models"),
        ("---\nmodel-index:\n- name: m\n  results: {a: 1}\n---\n", "results of its model-index must be a list"),
        ("---\n{license: mit}\n---\n", "put each key on its own line"),
    ],
)
def test_a_broken_card_is_refused_and_left_alone(tmp_path: Path, run: StoredRun, text: str, said: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        update_model_card(path, run)
    assert path.read_text() == text


@pytest.mark.parametrize(
    "text",
    [
        "---\nlicense: mit\nmodel-index:\n- name: m\n  results: []\n# a note\ntags: [x]\n---\nText\n",
        "---\nlicense: mit\nmodel-index:\n- name: m\n  results: []\n\n# the last\n---\nText\n",
        "---\r\nlicense: mit\r\n---\r\nText\r\n",
        "\ufeff---\nlicense: mit\n---\nText\n",
    ],
)
def test_remarks_and_line_ends_stay(tmp_path: Path, run: StoredRun, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(text.encode())
    update_model_card(path, run)
    made = path.read_bytes().decode()
    metadata = yaml.safe_load(made.removeprefix("\ufeff").split("---")[1])
    assert sum(len(one["metrics"]) for one in metadata["model-index"][0]["results"]) == 10
    for line in text.splitlines(keepends=True):
        if not line.startswith(("model-index", "- name", "  results")):
            assert line in made
    assert ("\r\n" in text) is ("\n" not in made.replace("\r\n", ""))


def test_two_tasks_of_one_data_set_stay_two(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", "m", {"S1": 0.5})
    update_model_card(tmp_path / "README.md", read_run(folder))
    results: list[Any] = ModelCard.load(tmp_path / "README.md").data.eval_results
    found = {(one.dataset_config, one.metric_name) for one in results}
    assert {("harmful_behaviors", "S1"), ("truthy", "S_A"), ("mmlu", "MMLU")} <= found


def test_nothing_scored_makes_no_result_and_no_crash(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "none", "m", RATES, unscored=list(RATES), capabilities={}))
    with pytest.raises(UserError, match="no score"):
        update_model_card(tmp_path / "README.md", run)
    assert not (tmp_path / "README.md").exists()
