"""SIGINT or SIGTERM finishes what is in flight, twice stops at once; both exit with 3, and the same command goes on."""

from __future__ import annotations

import re
import shlex
import signal
import zipfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from cst_bench.runs import RunOptions, run
from tests.calibration.labelled import rows, write_rows
from tests.cli.interrupted import AGAIN, running
from tests.cli.invoke import in_process
from tests.judging.servers import JudgeServer, by_response, completion, send, serving
from tests.runs.test_kill import FILES, finished_samples

pytestmark = pytest.mark.slow
RUN = ("run", "--task", "tiny_sealed", "--limit", "20", "--seed", "7", "--batch-size", "4")
CRITIQUE = ("data", "critique", "--task", "tiny_sealed", "--critique", "tiny_harmless", "--limit", "12")


def in_flight(said: str) -> int:
    """Return how many pieces of work were said to be in flight."""
    match = re.search(r"interrupted: finishing the [a-z ]+ in flight \((\d+)\)", said)
    assert match is not None, said
    return int(match[1])


def has_samples(folder: Path, count: int) -> bool:
    """Return whether a log below a folder has that many samples; one that is being written may be unreadable."""
    logs = [path for path in folder.rglob("*.eval") if zipfile.is_zipfile(path)]
    names = [name for path in logs for name in zipfile.ZipFile(path).namelist()]
    return sum(name.startswith("samples/") for name in names) >= count


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    assert in_process(*RUN, "--out", "run", cwd=folder).status == 0
    return folder / "run"


@pytest.mark.parametrize(
    ("number", "twice", "background"),
    [
        (signal.SIGINT, False, False),
        (signal.SIGINT, True, False),
        (signal.SIGTERM, False, True),
    ],
)
def test_an_interrupted_run_keeps_what_was_in_flight_and_ends_as_one_that_never_was(
    number: signal.Signals, twice: bool, background: bool, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a run"
    with running(*RUN, "--out", str(out), cwd=tmp_path, ignore_sigint=background) as process:
        process.wait_until(lambda: has_samples(out, 8))
        if background:
            process.interrupt(signal.SIGINT)  # ignored
        process.interrupt(number, twice=twice)
        assert process.status() == 3, process.said
    safe = finished_samples(out)
    assert 8 <= len(safe) < 60
    if not twice:
        assert len(safe) >= in_flight(process.said) > 0
    last = process.said.strip().splitlines()[-1]
    said, _, again = last.partition(": cst-bench ")
    assert said == "cst-bench: interrupted; the same command continues"
    assert shlex.split(again) == [*RUN, "--out", str(out)]
    assert in_process(*shlex.split(again), cwd=tmp_path).status == 0
    now = finished_samples(out)
    assert {name: now.get(name) for name in safe} == safe, "a finished response was generated again"
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_an_interrupted_self_critique_finishes_its_conversations(tmp_path: Path) -> None:
    assert in_process(*CRITIQUE, "--batch-size", "4", "--out", "whole", cwd=tmp_path).status == 0
    out = tmp_path / "out"
    args = (*CRITIQUE, "--batch-size", "4", "--out", "out")
    with running(*args, cwd=tmp_path) as process:
        process.wait_until(lambda: has_samples(out, 1))
        process.interrupt(signal.SIGTERM)
        assert process.status() == 3, process.said
    assert has_samples(out, in_flight(process.said))
    assert in_process(*args, cwd=tmp_path).status == 0
    for name in ("pairs.jsonl", "README.md"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


class SlowJudge:
    """An endpoint that answers when it is told to."""

    def __init__(self) -> None:
        self.holds = True

    def __call__(self, server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        while self.holds and not server.stopping.wait(0.02):
            pass
        by_response(lambda response: "harmless" if "cannot" in response else "uncensored")(
            server, handler, text, before
        )


@pytest.fixture
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a-key-that-must-stay-secret")


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("verb", ["judge RUN", "judge calibrate"])
@pytest.mark.parametrize("twice", [False, True])
def test_calls_of_a_judge_in_flight_are_finished_and_paid_for_once(verb: str, twice: bool, tmp_path: Path) -> None:
    judge = SlowJudge()
    with serving(judge) as server:
        asked = ("--judge-model", "judge", "--judge-base-url", server.url)
        args: tuple[str, ...] = ("judge", "calibrate", "harmlessness", "--labels", "labels.jsonl", *asked)
        if verb == "judge RUN":
            run(RunOptions(tasks=("tiny_sealed",), judges=("refusal_rules",), limit=8, out=tmp_path / "run"))
            args = ("judge", "run", "--judge", "harmlessness", *asked)
        else:
            write_rows(tmp_path / "labels.jsonl", rows())
        with running(*args, cwd=tmp_path) as process:
            process.wait_until(lambda: sum(server.asked.values()) == 8)  # as many as it makes at a time
            process.interrupt(twice=twice)
            if not twice:
                process.wait_until(lambda: AGAIN in process.said)
                judge.holds = False
            assert process.status() == 3, process.said
        assert in_flight(process.said) == 8
        assert "the same command continues: cst-bench judge" in process.said
        first = dict(server.asked)
        assert sum(first.values()) == 8
        judge.holds = False
        done = in_process(*args, "--json", cwd=tmp_path)
        assert done.status == 0, done.err
        paid_again = [text for text, times in first.items() if server.asked[text] > times]
    assert len(server.asked) > len(first)
    assert paid_again == (list(first) if twice else [])


@pytest.mark.usefixtures("_cache")
def test_responses_of_an_api_in_flight_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = True

    def talk(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        while slow and len(server.asked) > 4 and not server.stopping.wait(0.02):
            pass
        send(handler, 200, completion("I cannot help with that."))

    with serving(talk) as server:
        monkeypatch.setenv("LOCAL_BASE_URL", server.url)
        monkeypatch.setenv("LOCAL_API_KEY", "none")
        chosen = ("--task", "tiny_sealed", "--judge", "refusal_rules", "--limit", "20")
        args = ("run", "openai-api/local/model", *chosen, "--out", "run")
        with running(*args, cwd=tmp_path) as process:
            process.wait_until(lambda: has_samples(tmp_path / "run", 4) and len(server.asked) > 4)
            process.interrupt()
            process.wait_until(lambda: AGAIN in process.said)
            slow = False
            assert process.status() == 3, process.said
        safe = finished_samples(tmp_path / "run")
        assert 60 > len(safe) >= in_flight(process.said) > 0
        assert in_process(*args, cwd=tmp_path).status == 0
        now = finished_samples(tmp_path / "run")
        assert len(now) == 60
        assert {name: now[name] for name in safe} == safe
