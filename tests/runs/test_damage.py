"""Files of a run that are damaged, missing or only readable: one message, and nothing that was finished is lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cst_bench.errors import UserError
from cst_bench.record import CompliancePart, Manifest
from cst_bench.reporting.stored_run import read_run, read_runs
from cst_bench.runs import JudgeRunOptions, RunOptions, judge_run, run
from cst_bench.runs.label_file import FILE, add_label, answered, read_run_labels
from cst_bench.runs.labelling import choose
from tests.cli.invoke import in_process, invoke
from tests.reporting.stored_runs import make_run

OPTIONS = RunOptions(tasks=("tiny_sealed", "tiny_truthfulqa"), limit=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "run"
    run(RunOptions(tasks=OPTIONS.tasks, limit=OPTIONS.limit, out=folder))
    return folder


@pytest.fixture
def finished(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def log_of(folder: Path) -> Path:
    (log,) = folder.rglob("*.eval")
    return log


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def odd_metric(path: Path) -> None:
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({**json.loads(first), "acc": "1e999"}), *rest]))


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (cut, "compliance/*/*.eval"),
        (Path.unlink, "compliance/*/*.eval"),
        (cut, "capabilities/tiny_truthfulqa.json"),
        (cut, "capabilities/tiny_truthfulqa.samples.jsonl"),
        (odd_metric, "capabilities/tiny_truthfulqa.samples.jsonl"),
        (Path.unlink, "capabilities/tiny_truthfulqa.samples.jsonl"),
        (cut, "run.json"),
    ],
)
def test_judging_refuses_a_damaged_file_by_name_and_leaves_the_run_finished(
    finished: Path, damage: Callable[[Path], None], name: str
) -> None:
    (path,) = finished.glob(name)
    manifest = (finished / "run.json").read_bytes()
    damage(path)
    for _ in range(2):  # the first has changed nothing
        with pytest.raises(UserError, match=rf"{path.name}.*(restore|make the run again)") as caught:
            judge_run(JudgeRunOptions(finished, judges=("refusal_rules",)))
        assert "\n" not in str(caught.value)
    if name != "run.json":
        assert (finished / "run.json").read_bytes() == manifest


def test_a_log_that_was_deleted_is_made_again(finished: Path) -> None:
    scores = (finished / "scores.json").read_bytes()
    manifest = Manifest.read(finished)
    status = manifest.status.model_copy(update={"run": "running"})
    manifest.model_copy(update={"status": status}).write(finished)
    log = log_of(finished)
    cut(log)
    options = RunOptions(tasks=OPTIONS.tasks, limit=OPTIONS.limit, out=finished)
    with pytest.raises(UserError, match="delete it and repeat the command"):
        run(options)
    log.unlink()
    assert not run(options).was_finished
    assert (finished / "scores.json").read_bytes() == scores


def test_a_log_that_would_exhaust_memory_is_not_read(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cst_bench.compliance.stored_samples.MAX_PART_BYTES", 100)
    with pytest.raises(UserError, match=r"\.eval: .* is damaged \(.* unpacks to more than 1 GiB\): restore it"):
        judge_run(JudgeRunOptions(finished, judges=("refusal_rules",)))


def test_a_cut_log_of_a_killed_call_is_one_message(finished: Path) -> None:
    manifest = Manifest.read(finished)
    manifest.status.compliance["tiny_sealed"] = CompliancePart()
    status = manifest.status.model_copy(update={"run": "running"})
    manifest.model_copy(update={"status": status}).write(finished)
    cut(log_of(finished))
    with pytest.raises(UserError, match=r"\.eval: the log with the responses is damaged .*delete it"):
        run(RunOptions(tasks=OPTIONS.tasks, limit=OPTIONS.limit, out=finished))


def test_a_finished_run_is_only_read(finished: Path) -> None:
    """Nothing is written, not even the lock, so that a folder on a read-only file system works."""
    (finished / ".lock").unlink(missing_ok=True)
    before = {path: path.stat().st_mtime_ns for path in [finished, *finished.rglob("*")]}
    assert run(RunOptions(tasks=OPTIONS.tasks, limit=OPTIONS.limit, out=finished)).was_finished
    assert {path: path.stat().st_mtime_ns for path in [finished, *finished.rglob("*")]} == before


def test_a_damaged_run_is_left_out_of_a_report_over_others_unless_it_is_named(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "whole", "whole", {})
    damaged = make_run(tmp_path / "runs" / "damaged", "damaged", {})
    cut(damaged / "scores.json")
    runs, notes = read_runs([tmp_path / "runs"])
    assert [one.label for one in runs] == ["whole"]
    assert len(notes) == 1
    assert f"{damaged} is left out: {damaged / 'scores.json'}" in notes[0]
    with pytest.raises(UserError, match=r"scores\.json"):
        read_runs([damaged])
    (tmp_path / "runs" / "pipe").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "runs" / "pipe" / "run.json")  # reading it would wait for ever
        assert len(read_runs([tmp_path / "runs"])[1]) == 2


@pytest.mark.parametrize("end", ['{"task": "tiny_sealed", "pro', '{"task": "tiny_sealed", "prompt_id": "\xff'])
def test_a_label_whose_writing_was_cut_off_is_asked_for_again(finished: Path, end: str) -> None:
    first, second, third = choose(finished, n=3)
    for response in (first, second):
        add_label(finished, response, "harmless", "me")
    with (finished / FILE).open("a", encoding="utf-8") as file:
        file.write(end)
    assert answered(finished, "me") == {first.key, second.key}
    add_label(finished, third, "neither", "me")
    assert set(read_run_labels(finished).votes) == {first.key, second.key, third.key}
    assert len((finished / FILE).read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("a#b", "misreads '#'"),
        ("what?", "misreads '?'"),
        ("per%41cent/run", "misreads '%41'"),
        ("two\nlines", "control character"),
        ("file:x", "is an address"),
        ("file:///tmp/x", "is an address"),
        ("s3://bucket/x", "is an address"),
    ],
)
def test_a_folder_that_would_be_another_one_is_refused_before_any_work(
    out: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke(capsys, monkeypatch, "run", "--task", "tiny_sealed", "--limit", "1", "--out", out)
    assert done.status == 2
    assert message in done.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_leading_tilde_and_a_percent_sign_are_names_as_any_other(tmp_path: Path) -> None:
    done = in_process("run", "--task", "tiny_sealed", "--limit", "1", "--out", "~x/50%", cwd=tmp_path)
    assert done.status == 0, done.err
    assert read_run(tmp_path / "~x" / "50%").label
    assert [path.name for path in tmp_path.iterdir()] == ["~x"]
