"""The judge of a task: its own, another where the key of that judge's model is not set, in the task's behaviours."""

from __future__ import annotations

from pathlib import Path

import pytest

from cst_bench.compliance.compliance_task import ComplianceTask, load_task
from cst_bench.compliance.task_judge import default_judge, supporting
from cst_bench.errors import UserError
from cst_bench.judging import JudgeOptions, load_judge


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> tuple[ComplianceTask, Path]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    spec, path = load_task("harmful_behaviors")
    return spec.model_copy(update={"judge_without_key": "refusal_rules"}), path


def test_without_a_key_another_judge_is_used_and_said(task: tuple[ComplianceTask, Path]) -> None:
    chosen = default_judge(*task, JudgeOptions())
    assert (chosen.judge.name, chosen.source) == ("refusal_rules", "refusal_rules")
    assert chosen.note is not None
    assert chosen.note.startswith("harmful_behaviors is judged by refusal_rules instead: judge harmlessness: could not")
    assert "OPENAI_API_KEY" in chosen.note


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("sk-a-key", JudgeOptions()),
        (None, JudgeOptions(base_url="http://127.0.0.1:1/v1")),
        (None, JudgeOptions(model="mockllm/model")),
    ],
)
def test_with_a_key_or_a_model_named_the_tasks_judge_is_used(
    key: str | None, options: JudgeOptions, task: tuple[ComplianceTask, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    chosen = default_judge(*task, options)
    assert (chosen.judge.name, chosen.note) == ("harmlessness", None)


def test_a_model_that_is_named_is_not_replaced(task: tuple[ComplianceTask, Path]) -> None:
    with pytest.raises(UserError, match="could not use the Inspect model 'openai/gpt-4o'"):
        default_judge(*task, JudgeOptions(model="openai/gpt-4o"))


def test_the_judge_for_no_key_is_not_part_of_what_a_task_is(task: tuple[ComplianceTask, Path]) -> None:
    assert task[0].sha256 == task[0].model_copy(update={"judge_without_key": None}).sha256


def test_a_judge_of_other_behaviours_is_refused(task: tuple[ComplianceTask, Path]) -> None:
    with pytest.raises(UserError, match="cannot judge task t, which asks for helped"):
        supporting(load_judge("refusal_rules"), "t", ["helped"], [])
