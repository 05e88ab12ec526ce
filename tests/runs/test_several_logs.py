"""A task of many responses is written into several logs, and everything that reads them gives what one log gives.

The seam: a log has at most 9 responses here.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from inspect_ai import Task
from inspect_ai.model import Model

from cst_bench.compliance.judged_log import responses_digest
from cst_bench.errors import Interrupted
from cst_bench.record import CompliancePart, Manifest, Scores, Spent, Usage
from cst_bench.reporting import read_run
from cst_bench.reporting.response_table import write_generations
from cst_bench.reporting.run_check import check_run
from cst_bench.runs import JudgeRunOptions, RunOptions, judge_run, run
from cst_bench.runs.run_folder import read_folder
from cst_bench.runs.to_label import responses_to_label
from tests.cli.invoke import invoke

TASK = "tiny_sealed"


FILES = ("outcomes.json", "scores.json", "report.md")


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
    assert all((several / name).read_bytes() == (one / name).read_bytes() for name in FILES)
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


def test_bytes_are_those_of_one_log_with_several_wordings_and_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []
    for most in (5000, 40):
        monkeypatch.setattr("cst_bench.compliance.inspect_task.LOG_RESPONSES", most)
        folders.append(tmp_path / str(most))
        run(RunOptions(tasks=(TASK,), limit=5, samples=2, temperature=0.8, wordings=("all",), out=folders[-1]))
    assert len(logs(folders[0])) == 1
    assert len(logs(folders[1])) > 2
    for name in FILES:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def reopen(folder: Path, **part: object) -> None:
    """Write a manifest that says that the task is at an earlier state."""
    manifest = Manifest.read(folder)
    before = manifest.status.compliance[TASK]
    manifest.status.compliance[TASK] = CompliancePart.model_validate({**dict(before), **part})
    manifest.model_copy(update={"status": manifest.status.model_copy(update={"run": "running"})}).write(folder)


@pytest.mark.parametrize("state", ["pending", "generated", "judged"])
def test_a_log_that_is_missing_is_made_again_and_no_other(several: Path, one: Path, state: str) -> None:
    first, second, third = logs(several)
    made = {log: responses_digest(log) for log in (first, third)}
    reopen(several, state=state, **({"logs": ()} if state == "pending" else {}))
    shutil.rmtree(second.parent)
    first.with_suffix(".tmp.eval").write_bytes(first.read_bytes()[:-100])  # of a judging that was killed
    run(options(several))
    again = logs(several)
    assert [again[0], again[2]] == [first, third]
    assert again[1].parent == second.parent
    assert [path.name for path in first.parent.glob("*.eval")] == [first.name]
    assert (several / "scores.json").read_bytes() == (one / "scores.json").read_bytes()
    assert {log: responses_digest(log) for log in (first, third)} == made


def test_they_are_judged_again_and_shown(several: Path, one: Path, tmp_path: Path) -> None:
    judge_run(JudgeRunOptions(several, judges=("refusal_rules",)))
    shutil.copytree(one, tmp_path / "one")
    judge_run(JudgeRunOptions(tmp_path / "one", judges=("refusal_rules",)))
    assert Scores.read(several) == Scores.read(tmp_path / "one")
    assert check_run(several).state == "intact"


def test_damaged_verdicts_of_one_log_are_made_again(several: Path, one: Path) -> None:
    damaged = logs(several)[1]
    with zipfile.ZipFile(damaged, "a") as archive:
        archive.writestr("damage", b"")
    assert check_run(several).state == "damaged"
    judge_run(JudgeRunOptions(several))
    assert check_run(several).state == "intact"
    assert (several / "scores.json").read_bytes() == (one / "scores.json").read_bytes()


def test_responses_that_fail_do_not_keep_other_logs_from_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cst_bench.compliance import logs as module

    monkeypatch.setattr("cst_bench.compliance.inspect_task.LOG_RESPONSES", 9)
    generate, failing = module.generate, [True]

    def faulty(task: Task, model: Model, folder: Path, count: Callable[[int], None]) -> Path:
        log = generate(task, model, folder, count)
        if folder.name == "part-1" and failing.pop():
            raise module.ResponsesFailed("a response failed", gave_up=False)
        return log

    monkeypatch.setattr(module, "generate", faulty)
    with pytest.raises(Interrupted, match="a response failed"):
        run(options(tmp_path / "run"))
    assert [path.name for path in sorted((tmp_path / "run" / "compliance" / TASK).iterdir())] == [
        "part-1",
        "part-2",
        "part-3",
    ]
    failing.append(False)
    run(options(tmp_path / "run"))
    assert check_run(tmp_path / "run").state == "intact"


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
