"""A task of many responses is written into several logs, and everything that reads them gives what one log gives.

The one seam: a log has at most 9 responses here.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cst_bench.record import CompliancePart, Manifest, Outcomes, Scores, Spent, Usage
from cst_bench.reporting import read_run
from cst_bench.reporting.response_table import write_generations
from cst_bench.reporting.run_check import check_run
from cst_bench.runs import JudgeRunOptions, RunOptions, judge_run, run
from cst_bench.runs.run_folder import read_folder
from cst_bench.runs.to_label import responses_to_label
from tests.cli.invoke import invoke

TASK = "tiny_sealed"


def options(out: Path) -> RunOptions:
    return RunOptions(tasks=(TASK,), limit=7, out=out)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "run"
    run(options(folder))
    return folder


@pytest.fixture
def several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cst_bench.compliance.inspect_task.LOG_RESPONSES", 9)
    run(options(tmp_path / "run"))
    return tmp_path / "run"


def logs(folder: Path) -> list[Path]:
    return [folder / log for log in Manifest.read(folder).status.compliance[TASK].logs]


def test_results_are_those_of_one_log(one: Path, several: Path, tmp_path: Path) -> None:
    assert [log.parent.name for log in logs(one)] == [TASK]
    assert [log.parent.name for log in logs(several)] == ["part-1", "part-2", "part-3"]
    assert Scores.read(several) == Scores.read(one)
    assert Outcomes.read(several) == Outcomes.read(one)
    of_one, of_several = (Manifest.read(folder).status.compliance[TASK] for folder in (one, several))
    assert of_several.responses == of_one.responses == 21
    assert of_several.usage == of_one.usage
    assert check_run(several).state == "intact"
    tables = [
        [path.read_text() for path in write_generations([read_run(folder)], tmp_path / name, show_text=True)]
        for name, folder in (("several", several), ("one", one))
    ]
    assert tables[0] == tables[1]
    keys = [response.key for response in responses_to_label(read_folder(several), TASK)]
    assert sorted(keys) == sorted(response.key for response in responses_to_label(read_folder(one), TASK))


def test_a_log_that_is_missing_is_made_again_and_no_other(several: Path, one: Path) -> None:
    first, second, third = logs(several)
    manifest = Manifest.read(several)
    manifest.status.compliance[TASK] = CompliancePart()
    manifest.model_copy(update={"status": manifest.status.model_copy(update={"run": "running"})}).write(several)
    shutil.rmtree(second.parent)
    kept = {log: log.stat().st_mtime_ns for log in (first, third)}
    run(options(several))
    assert all(log.is_file() for log in kept)
    assert Scores.read(several) == Scores.read(one)
    again = logs(several)
    assert [again[0], again[2]] == [first, third]
    assert again[1].parent == second.parent


def test_they_are_judged_again_and_shown(several: Path, one: Path, tmp_path: Path) -> None:
    judge_run(JudgeRunOptions(several, judges=("refusal_rules",)))
    shutil.copytree(one, tmp_path / "one")
    judge_run(JudgeRunOptions(tmp_path / "one", judges=("refusal_rules",)))
    assert Scores.read(several) == Scores.read(tmp_path / "one")
    assert check_run(several).state == "intact"


def test_a_damaged_log_is_named(
    several: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = logs(several)[1]
    damaged.write_bytes(damaged.read_bytes()[:-40])
    done = invoke(capsys, monkeypatch, "verify", str(several))
    assert done.status == 2
    assert "part-2" in done.out + done.err


def test_a_part_of_versions_with_one_log_is_read() -> None:
    assert CompliancePart.model_validate({"state": "generated", "log": "a.eval"}).logs == ("a.eval",)
    assert CompliancePart.model_validate({"state": "pending", "log": None}).logs == ()


def test_costs_of_several_logs_add_up() -> None:
    used = [
        Usage(input_tokens=1, output_tokens=2, stop_reasons={"stop": 1}, thoughts=None),
        Usage(input_tokens=10, output_tokens=20, stop_reasons={"stop": 1, "max_tokens": 2}, thoughts=3),
    ]
    assert Usage.total(used) == Usage(
        input_tokens=11, output_tokens=22, stop_reasons={"max_tokens": 2, "stop": 2}, thoughts=3
    )
    spent = [
        Spent(calls=1, cached=0, input_tokens=5, output_tokens=1, cost_usd=0.5, served={"a": 1}),
        Spent(calls=2, cached=1, input_tokens=6, output_tokens=2, cost_usd=None, served={"a": 2}),
    ]
    assert Spent.total(spent) == Spent(
        calls=3, cached=1, input_tokens=11, output_tokens=3, cost_usd=None, served={"a": 3}
    )
    assert Spent.total([]) is None
