"""`cst-bench run` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cst_bench.record import Scores
from tests.cli.invoke import in_process, invoke


def test_run_ends_with_the_table_and_the_path_of_the_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, llama: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = invoke(
        capsys, monkeypatch, "run", str(llama), "--task", "tiny_sealed", "--task", "tiny_arc", "--limit", "2"
    )
    assert outcome.status == 0, outcome.err
    assert "S1" in outcome.out
    assert outcome.out.splitlines()[-1] == "Report: runs/llama-custom/report.md"
    assert (tmp_path / "runs/llama-custom/report.md").is_file()
    assert max(map(len, outcome.out.splitlines())) <= 80
    assert "\x1b" not in outcome.out + outcome.err
    again = invoke(
        capsys, monkeypatch, "run", str(llama), "--task", "tiny_sealed", "--task", "tiny_arc", "--limit", "2"
    )
    assert again.status == 0
    assert "this run is finished, nothing to do" in again.err


def test_json_prints_scores_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, llama: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = invoke(capsys, monkeypatch, "run", str(llama), "--task", "tiny_truthfulqa", "--limit", "2", "--json")
    assert json.loads(outcome.out)["schema"] == Scores.schema_number()


@pytest.mark.slow
def test_run_works_from_any_folder_in_a_process_of_its_own(tmp_path: Path) -> None:
    outcome = in_process("run", "--limit", "2", cwd=tmp_path)
    assert outcome.status == 0, outcome.err
    assert "Report: runs/tiny-tiny/report.md" in outcome.out


@pytest.mark.slow
def test_inspect_s_own_command_finds_tasks_and_provider(tmp_path: Path) -> None:
    inspect = Path(sys.executable).parent / "inspect"
    command = [
        str(inspect),
        "eval",
        "cst_bench/tiny_sealed",
        "--model",
        "cst/tiny",
        "--limit",
        "6",
        "--display",
        "plain",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (log,) = (tmp_path / "logs").glob("*.eval")
    from inspect_ai.log import read_eval_log

    read = read_eval_log(str(log))
    assert read.status == "success"
    assert read.results is not None
    assert set(read.results.scores[0].metrics) == {"S1", "S0", "joint"}
