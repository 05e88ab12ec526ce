"""Bad input gets one clear message and exit status 2; nothing is half written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.invoke import Outcome, invoke

Cli = Callable[..., Outcome]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run `cst-bench` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: invoke(capsys, monkeypatch, *args)


def refused(outcome: Outcome, *parts: str) -> None:
    assert outcome.status == 2, outcome
    (message,) = [line for line in outcome.err.splitlines() if line.startswith(("cst-bench:", "Error:"))]
    assert "Traceback" not in outcome.err
    for part in parts:
        assert part in message, message


def task_file(folder: Path, **data: object) -> Path:
    """Write a compliance task file."""
    path = folder / "mine.yaml"
    task = {
        "name": "mine",
        "version": 1,
        "title": "Mine",
        "description": "A test.",
        "source": "made up",
        "judge": "refusal_rules",
        "wording": "only",
        "configurations": {
            "S1": {"behaviour": "harmless", "wordings": {"only": {"system": "Be careful.", "source": "x"}}}
        },
        "generation": {"max_tokens": 4},
        "data": {"file": "rows.jsonl", **data},
    }
    path.write_text(json.dumps(task))  # JSON is YAML
    return path


def test_errors_have_no_colour_if_none_is_wanted(tmp_path: Path) -> None:
    """Run on a pseudo-terminal, where colours are the default."""
    import os
    import pty
    import subprocess
    import sys

    shown = {}
    for wanted in ("", "1"):
        ours, theirs = pty.openpty()
        environment = {**os.environ, "NO_COLOR": wanted, "TERM": "xterm-256color"}
        arguments = [sys.executable, "-m", "cst_bench", "ls", str(tmp_path / "none")]
        done = subprocess.run(arguments, stderr=theirs, stdout=theirs, env=environment, check=False)
        os.close(theirs)
        shown[wanted] = os.read(ours, 10_000).decode()
        os.close(ours)
        assert done.returncode == 2
    assert "\x1b[" in shown[""]
    assert "\x1b[" not in shown["1"]


def test_unknown_command(cli: Cli) -> None:
    refused(cli("rnu"), "unknown command 'rnu'", "did you mean run")


def test_options_that_an_api_model_would_not_get(cli: Cli) -> None:
    outcome = cli("run", "vllm/org/model", "--system-as", "user-prefix", "--stop-token", "</s>", "--out", "run")
    refused(outcome, "--system-as, --stop-token: not possible for the Inspect model vllm/org/model", "--think-tokens")
    assert not Path("run").exists()


def test_unknown_option(cli: Cli) -> None:
    refused(cli("run", "--limt", "3"), "No such option", "--limit")


def test_unknown_checkpoint(cli: Cli, tmp_path: Path) -> None:
    refused(cli("run", "./no-such-model"), "unknown checkpoint './no-such-model'")
    refused(cli("run", "nobody/nothing"), "unknown checkpoint 'nobody/nothing'", "could not load it from the Hub")
    assert not (tmp_path / "runs").exists()


def test_folder_without_config(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(cli("run", "./empty"), "no config.json")


def test_corrupt_safetensors(cli: Cli, tmp_path: Path, llama: Path) -> None:
    shutil.copytree(llama, tmp_path / "broken")
    weights = tmp_path / "broken" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(cli("run", "./broken"), "model.safetensors", "corrupt or truncated")
    assert not (tmp_path / "runs").exists()


def test_template_that_drops_the_system_prompt(cli: Cli, tmp_path: Path, llama: Path) -> None:
    template = tmp_path / "dropping.jinja"
    template.write_text(
        "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    outcome = cli("run", str(llama), "--chat-template", str(template))
    refused(outcome, "drops the system prompt", "--system-as user-prefix")
    assert not (tmp_path / "runs" / "llama-tiny").exists()
    refused(cli("doctor", str(llama), "--chat-template", str(template)), "drops the system prompt")


def test_unknown_task_and_suite(cli: Cli) -> None:
    refused(cli("run", "--task", "tiny_seald"), "unknown task 'tiny_seald'", "did you mean tiny_sealed")
    refused(cli("run", "--suite", "papr"), "unknown suite 'papr'", "did you mean paper")


def test_unknown_judge_and_wording(cli: Cli) -> None:
    refused(cli("run", "--task", "tiny_sealed", "--judge", "refusal"), "unknown judge 'refusal'", "refusal_rules")
    refused(cli("run", "--task", "tiny_sealed", "--wording", "trainin"), "wording 'trainin'", "did you mean training")


def test_a_judge_that_can_not_judge_the_task(cli: Cli) -> None:
    refused(cli("run", "--task", "tiny_sealed", "--judge", "identity_rules"), "cannot judge task tiny_sealed")


def test_yaml_with_an_unknown_key(cli: Cli, tmp_path: Path) -> None:
    path = task_file(tmp_path, promt="text")
    refused(cli("run", "--task", str(path)), f"{path}:1", "unknown key 'data.promt'", "did you mean prompt")


def test_task_file_missing(cli: Cli) -> None:
    refused(cli("run", "--task", "./mine.yaml"), "compliance task file not found: ./mine.yaml")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "data file not found"),
        ("", "the data file has no rows"),
        ('{"text": "Hello?"}\n', "no column 'prompt'"),
        ('{"prompt": "Hello?"}\n{"prompt": ""}\n', "row 2: column 'prompt' is empty"),
        ('{"prompt": "Hello?"}\n{"prompt": 3}\n', "row 2: column 'prompt' must be text"),
        ('{"prompt": "Hello?"}\n{"prompt"\n', "row 2: not valid JSON"),
    ],
)
def test_bad_data(rows: str | None, message: str, cli: Cli, tmp_path: Path) -> None:
    path = task_file(tmp_path)
    if rows is not None:
        (tmp_path / "rows.jsonl").write_text(rows)
    refused(cli("run", "--task", str(path)), "rows.jsonl", message)


def test_data_for_a_task_that_is_not_run(cli: Cli) -> None:
    refused(cli("run", "--data", "tiny_seled=rows.jsonl"), "--data tiny_seled=", "did you mean tiny_sealed")
    refused(cli("run", "--data", "rows.jsonl"), "--data TASK=PATH")


@pytest.mark.parametrize("limit", ["0", "-3"])
def test_limit_below_one(limit: str, cli: Cli) -> None:
    refused(cli("run", "--limit", limit), "Invalid value for '--limit'", f"{limit} is not in the range x>=1")


def test_a_folder_that_is_no_run(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("mine")
    refused(cli("run", "--out", "notes"), "notes holds files and is not a run folder")
    assert (tmp_path / "notes" / "diary.txt").read_text() == "mine"
    refused(cli("run", "--out", "notes/diary.txt"), "is a file")


def test_a_folder_made_with_other_settings(cli: Cli, llama: Path) -> None:
    assert cli("run", str(llama), "--task", "tiny_truthfulqa", "--limit", "2", "--out", "there").status == 0
    refused(
        cli("run", str(llama), "--task", "tiny_truthfulqa", "--limit", "3", "--out", "there"),
        "holds a run with other settings (limit: 2, not 3)",
        "--out",
    )


def test_nan_is_no_threshold(cli: Cli, tmp_path: Path) -> None:
    for verb in (("run",), ("judge", "calibrate", "refusal_rules"), ("judge", str(tmp_path))):
        refused(cli(*verb, "--min-judge-f1", "nan"), "--min-judge-f1", "nan is not a number")


def test_a_name_that_is_too_long_for_the_file_system_is_one_message(cli: Cli) -> None:
    refused(cli("run", "--task", "tiny_sealed", "--limit", "1", "--out", "x" * 300), "File name too long")
