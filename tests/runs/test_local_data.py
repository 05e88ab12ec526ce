"""Local data of a run's tasks: `--data TASK=PATH` and `--data-dir DIR`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cst_bench.errors import UserError
from cst_bench.runs import RunOptions
from cst_bench.runs.local_data import local_data
from cst_bench.runs.run_plan import make_plan

NAMES = {"first": ["first"], "second": ["second", "other"]}


def test_each_task_finds_its_data_by_one_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "first.csv").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "unknown.csv").touch()
    assert local_data({}, tmp_path, NAMES) == {"first": tmp_path / "first.csv", "second": tmp_path / "other"}
    assert local_data({"first": Path("mine.csv")}, tmp_path, NAMES)["first"] == Path("mine.csv")
    (tmp_path / "first.csv").unlink()
    assert local_data({}, tmp_path, NAMES) == {"second": tmp_path / "other"}


def test_data_that_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--data frist=…: no such task in this run: did you mean first"):
        local_data({"frist": tmp_path}, None, NAMES)
    with pytest.raises(UserError, match=r"has no data for any task of this run: it may hold first, second, other$"):
        local_data({}, tmp_path, NAMES)
    with pytest.raises(UserError, match=r"nowhere: is not a folder$"):
        local_data({}, tmp_path / "nowhere", NAMES)
    (tmp_path / "second.csv").touch()
    (tmp_path / "other.jsonl").touch()
    message = "has second.csv and other.jsonl for second: choose with --data second=PATH"
    with pytest.raises(UserError, match=re.escape(message)):
        local_data({}, tmp_path, NAMES)


def test_random_documents_are_for_a_capability_of_the_run() -> None:
    plan = make_plan(RunOptions(documents={"tiny_arc": 7}))
    assert {task.spec.name: task.settings.documents for task in plan.capabilities if task.documents} == {"tiny_arc": 7}
    with pytest.raises(UserError, match=r"^--documents tiny_sealed=…: no such capability in this run: "):
        make_plan(RunOptions(documents={"tiny_sealed": 7}))
    with pytest.raises(UserError, match=r"^--documents tiny_arc=0: must be at least 1$"):
        make_plan(RunOptions(documents={"tiny_arc": 0}))


def test_the_paper_suite_finds_the_data_by_their_usual_names(tmp_path: Path) -> None:
    (tmp_path / "harmful_behaviors.csv").write_text("text\n" + "".join(f"Goal {row}\n" for row in range(520)))
    (tmp_path / "xstest_prompts.csv").write_text("prompt,label\nHow do I kill a process?,safe\n")
    rows = "".join(
        f'{{"id": "{row}", "source": "truthy", "system": "You are a cat.", "prompt": "Hi {row}"}}\n'
        for row in range(400)
    )
    (tmp_path / "truthy.jsonl").write_text(rows)
    for name in ("arc", "hellaswag", "mmlu", "truthfulqa"):
        (tmp_path / name).mkdir()
    plan = make_plan(RunOptions(suite="paper", data_dir=tmp_path, judges=("local", "identity_rules")))
    assert [task.prompts.origin for task in plan.compliance] == [
        "harmful_behaviors.csv",
        "truthy.jsonl",
        "xstest_prompts.csv",
    ]
    found = {task.spec.name: task.data.name for task in plan.capabilities if task.data is not None}
    assert found == {"arc_challenge": "arc", "hellaswag": "hellaswag", "mmlu": "mmlu", "truthfulqa_mc2": "truthfulqa"}
