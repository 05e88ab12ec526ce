"""`cst-bench ls`, `cst-bench view` and `cst-bench report --generations` on a run of the embedded checkpoint."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from cst_bench.errors import UserError
from cst_bench.reporting.listing import list_runs
from cst_bench.reporting.response_table import write_generations
from cst_bench.reporting.stored_run import read_run
from cst_bench.runs import RunOptions, run
from cst_bench.table_files import read_any
from cst_bench.workfolder import locked
from tests.cli.invoke import command, invoke
from tests.reporting.stored_runs import make_run

RATES = {"S1": 0.7, "S0": 0.85, "S_RP": 0.8, "S_A": 0.95}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viewed") / "run"
    run(RunOptions(tasks=("tiny_sealed",), limit=3, out=folder))
    return folder


def test_runs_are_listed_whatever_their_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    make_run(runs / "a" / "done", "[red]me[/red]", RATES)
    half = make_run(runs / "half", "half", RATES) / "run.json"
    manifest = json.loads(half.read_text())
    manifest["status"] = {
        "run": "running",
        "compliance": {"harmful_behaviors": {"state": "judged"}},
        "capabilities": {},
    }
    half.write_text(json.dumps(manifest))
    (runs / "broken").mkdir()
    (runs / "broken" / "run.json").write_text('{"settings": 3')
    (runs / "model").mkdir()
    (runs / "model" / "training.json").write_text("{}")
    listed = {Path(run.folder).name: run for run in list_runs([runs])}
    assert {name: run.state for name, run in listed.items()} == {
        "done": "finished",
        "half": "interrupted",
        "broken": "unreadable",
    }
    assert listed["half"].at == "responses of truthy"
    assert listed["done"].scores["S1"] == 0.7
    with locked(runs / "half"):
        assert {Path(run.folder).name: run.state for run in list_runs([runs])}["half"] == "running"
    done = invoke(capsys, monkeypatch, "ls", str(runs))
    assert done.status == 0
    assert max(map(len, done.out.splitlines())) <= 80
    assert "[red]me[/red]" in done.out
    read = json.loads(invoke(capsys, monkeypatch, "ls", str(runs), "--json").out)
    assert {run["state"] for run in read} == {"finished", "interrupted", "unreadable"}
    assert invoke(capsys, monkeypatch, "ls", str(tmp_path / "none")).status == 2
    (tmp_path / "empty").mkdir()
    assert "No runs here" in invoke(capsys, monkeypatch, "ls", str(tmp_path / "empty")).out


def test_folders_may_be_named_from_here_and_from_the_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "here" / "a", "one", RATES)
    make_run(tmp_path / "there" / "b", "two", RATES)
    monkeypatch.chdir(tmp_path)
    done = invoke(capsys, monkeypatch, "ls", "here", str(tmp_path / "there"))
    assert done.status == 0
    assert "here/a" in done.out
    assert "there/b" in done.out


def test_generations_hide_texts_unless_asked(made: Path, tmp_path: Path) -> None:
    stored = read_run(made)
    hidden = [path.read_text() for path in write_generations([stored], tmp_path / "hidden", show_text=False)]
    shown = write_generations([stored], tmp_path / "shown", show_text=True)
    assert [path.name for path in shown] == ["run-tiny_sealed.md", "run-tiny_sealed-no-system-prompt.md"]
    rows = [{name: str(value) for name, value in row.values.items()} for row in read_any(shown[0])]
    assert [row["configuration"] for row in rows] == ["S1", "S0"] * 3
    assert {row["behaviour"] for row in rows} <= {"harmless", "uncensored", "neither"}
    for row in rows:
        asked = stored.configurations("tiny_sealed")[row["configuration"]]
        assert row["verdict"] == ("complies" if row["behaviour"] == asked else "does not comply")
        assert not any(row["prompt"] in text or row["response"] in text for text in hidden)


def test_a_table_of_responses_is_scored_like_the_run(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, _ = write_generations([read_run(made)], tmp_path, show_text=True)
    done = invoke(capsys, monkeypatch, "score", str(table), "--task", "tiny_sealed", "--json")
    assert done.status == 0, done.err
    scored = json.loads(done.out)["compliance"]["tiny_sealed"]["configurations"]
    stored = read_run(made).scores.compliance["tiny_sealed"].configurations
    assert {name: scored[name]["score"] for name in ("S1", "S0")} == {name: stored[name].score for name in ("S1", "S0")}


def test_no_response_breaks_out_of_its_row(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the responses of a real log by a hostile one: the only seam that is faked."""
    import inspect_ai.log

    hostile = "x | y\n| a | b |\n<img src=x onerror=y> [l](http://e.x) ![i](x.png) `c` **b** http://e.x"
    read = inspect_ai.log.read_eval_log_samples_by_id

    def poisoned(path: str, keys: list[tuple[str | int, int]]) -> list[inspect_ai.log.EvalSample]:
        samples = read(path, keys)
        for sample in samples:
            sample.output.completion = hostile
        return samples

    monkeypatch.setattr(inspect_ai.log, "read_eval_log_samples_by_id", poisoned)
    table, _ = write_generations([read_run(made)], tmp_path, show_text=True)
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(table.read_text())
    assert sum(token.type == "tr_open" for token in tokens) == 1 + 6
    children = [child for token in tokens for child in token.children or []]
    assert not {child.type for child in children} & {"link_open", "image", "code_inline", "strong_open"}
    assert {child.content for child in children if child.type == "html_inline"} <= {"<br>"}
    assert {row.values["response"] for row in read_any(table)} == {hostile}


def test_runs_of_one_name_do_not_overwrite_each_other(made: Path, tmp_path: Path) -> None:
    for parent in "ab":
        shutil.copytree(made, tmp_path / parent / "run")
    runs = [read_run(tmp_path / parent / "run") for parent in "ab"]
    written = write_generations(runs, tmp_path / "out", show_text=False)
    assert len({path.name for path in written}) == len(list((tmp_path / "out").iterdir())) == 4


def test_a_run_without_responses_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = read_run(make_run(tmp_path / "run", "m", RATES))
    with pytest.raises(UserError, match="responses of harmful_behaviors are missing"):
        write_generations([stored], tmp_path / "out", show_text=False)
    for folder in (tmp_path / "run", tmp_path / "none"):
        assert invoke(capsys, monkeypatch, "view", str(folder)).status == 2


@pytest.mark.slow
def test_the_viewer_serves_the_logs_of_the_run_and_ends_with_ctrl_c(made: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        command("view", str(made), "--port", str(port)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        listed = _get(f"http://127.0.0.1:{port}/api/logs", process)
        assert "tiny-sealed" in listed
    finally:
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert b"Traceback" not in output, output


def _get(url: str, process: subprocess.Popen[bytes]) -> str:
    for _ in range(300):
        assert process.poll() is None
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} did not answer")
