"""`cst-bench doctor` as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cst_bench.checkpoint.api import key_variable
from tests.cli.invoke import invoke

KEY = "sk-a-secret-that-stays-one"


def test_every_check_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
    outcome = invoke(capsys, monkeypatch, "doctor", str(llama))
    assert outcome.status == 0
    for check in ("chat template", "system prompt", "BOS", "training prefix", "assistant turn", "end of turn"):
        assert f"{check}:" in outcome.out
    assert "Memory:" in outcome.out
    assert "estimate" not in outcome.out


def test_keys_are_set_or_not_and_never_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, llama: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HF_TOKEN", f"hf_{KEY}")
    outcome = invoke(capsys, monkeypatch, "doctor", str(llama))
    assert "OPENAI_API_KEY: set\n" in outcome.out
    assert "HF_TOKEN: set\n" in outcome.out
    assert KEY not in outcome.out + outcome.err
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("HF_TOKEN_PATH", "/nowhere")
    outcome = invoke(capsys, monkeypatch, "doctor", str(llama))
    assert "OPENAI_API_KEY: not set: the judges harmlessness, helpfulness, persona need it" in outcome.out
    assert "export OPENAI_API_KEY=" in outcome.out


def test_the_key_of_an_api_model_is_among_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOCAL_API_KEY", raising=False)
    monkeypatch.setenv("LOCAL_BASE_URL", "http://127.0.0.1:9/v1")
    outcome = invoke(capsys, monkeypatch, "doctor", "openai-api/local/talker")
    assert "LOCAL_API_KEY: not set: openai-api/local/talker needs it" in outcome.out
    monkeypatch.setenv("LOCAL_API_KEY", KEY)
    outcome = invoke(capsys, monkeypatch, "doctor", "openai-api/local/talker", "--task", "tiny_sealed", "--limit", "2")
    assert outcome.status == 0, outcome.err
    assert "LOCAL_API_KEY: set\n" in outcome.out
    assert "estimate: 6 responses, up to 6 calls of openai-api/local/talker" in outcome.out


@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("openai/gpt-4", "OPENAI_API_KEY"),
        ("openai-api/my-host/llama", "MY_HOST_API_KEY"),
        ("vllm/org/name", None),
    ],
)
def test_the_variable_of_a_key_is_named_by_its_provider(model: str, variable: str | None) -> None:
    assert key_variable(model) == variable


def test_options_on_tasks_need_tasks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, llama: Path
) -> None:
    outcome = invoke(capsys, monkeypatch, "doctor", str(llama), "--limit", "3")
    assert outcome.status == 2
    assert "--limit is about the tasks of a run: name them with --suite or --task" in outcome.err


def test_a_run_is_estimated_by_its_tasks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, llama: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cst_bench.runs.estimate._DECODING_SECONDS", 0.0)
    monkeypatch.setattr("cst_bench.runs.estimate._SCORING_SECONDS", 0.0)
    arguments = ("--task", "tiny_sealed", "--task", "tiny_truthfulqa", "--limit", "2")
    outcome = invoke(capsys, monkeypatch, "doctor", str(llama), *arguments)
    assert outcome.status == 0, outcome.err
    table = outcome.out[outcome.out.index("What the run costs") :]
    for text in ("start", "Sealed things", "6 responses", "2 documents", "in all", "GB of memory"):
        assert text in table
    assert max(map(len, outcome.out[: outcome.out.index("estimate:")].splitlines()[-12:])) <= 80
    assert not list(tmp_path.iterdir())
