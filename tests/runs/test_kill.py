"""A run killed with SIGKILL continues with the same command, repeats nothing finished, and ends the same."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cst_bench.compliance.logs import finished_responses
from tests.cli.invoke import command, in_process

TASKS = ("--task", "tiny_sealed", "--task", "tiny_village", "--task", "tiny_arc", "--task", "tiny_truthfulqa")
ARGS = ("run", *TASKS, "--seed", "7")
"""Responses are sampled. With this seed no draw is within 4e-7 of a boundary between two tokens, where the rounding of
other batches, 1e-7, would decide."""
FILES = ("outcomes.json", "scores.json", "report.md")


def finished_samples(out: Path) -> dict[str, str]:
    """The responses that are safe on disk: sample id → the unique id that Inspect gave to its execution."""
    from inspect_ai.log import read_eval_log

    found = {}
    for path in sorted(out.glob("compliance/*/*.eval")):
        for sample in read_eval_log(str(path)).samples or []:
            if sample.error is None:
                found[f"{path.parent.name}/{sample.id}"] = str(sample.uuid)
    return found


def kill_when(ready: str, out: Path, cwd: Path, wait: float) -> None:
    """Starts the run and kills it, with everything that it started, some seconds after a file of that name is there."""
    kill_once(lambda: bool(list(out.glob(ready))), out, cwd, wait)


def kill_when_more(known: int, out: Path, cwd: Path) -> None:
    """Starts the run and kills it, with everything that it started, once more responses than these are in a log."""

    def more() -> bool:
        with suppress(Exception):  # a log that is just being written
            return sum(map(finished_responses, out.glob("compliance/*"))) > known
        return False

    kill_once(more, out, cwd, 0.0)


def kill_once(ready: Callable[[], bool], out: Path, cwd: Path, wait: float) -> None:
    process = subprocess.Popen(
        command(*ARGS, "--out", str(out)),
        cwd=cwd,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while not ready():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_killed_runs_end_as_one_that_never_was(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert in_process(*ARGS, "--out", str(whole), cwd=tmp_path).status == 0
    capability = killed / "capabilities" / "tiny_arc.json"
    safe: dict[str, str] = {}
    seen = []
    for ready, wait in [
        ("compliance/tiny_sealed/*.eval", 1.5),
        ("compliance/tiny_sealed/*.eval", 4.0),
        ("compliance/tiny_village/*.eval", 1.5),
        ("capabilities/tiny_arc.json", 0.3),
    ]:
        kill_when(ready, killed, tmp_path, wait)
        now = finished_samples(killed)
        assert {name: now.get(name) for name in safe} == safe, "a finished response was generated again"
        safe = now
        seen.append(len(now))
    assert seen[2] > 0, seen
    made = capability.stat().st_mtime_ns
    done = in_process(*ARGS, "--out", str(killed), cwd=tmp_path)
    assert done.status == 0, done.err
    assert capability.stat().st_mtime_ns == made, "a finished capability task was run again"
    now = finished_samples(killed)
    assert {name: now.get(name) for name in safe} == safe
    assert len(now) == len(finished_samples(whole)) == 1200
    for name in FILES:
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_a_clock_that_goes_back_between_kills_loses_no_response(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    safe: dict[str, str] = {}
    ahead = time.time() + 3600
    for _ in range(3):
        kill_when_more(len(safe), killed, tmp_path)
        now = finished_samples(killed)
        assert len(now) > len(safe)
        assert {name: now.get(name) for name in safe} == safe, "a finished response was generated again"
        safe = now
        for number, log in enumerate(sorted(killed.glob("compliance/*/*.eval"))):  # the later, the earlier by the clock
            os.utime(log, (ahead - 60 * number, ahead - 60 * number))
    done = in_process(*ARGS, "--out", str(killed), cwd=tmp_path)
    assert done.status == 0, done.err
    now = finished_samples(killed)
    assert {name: now.get(name) for name in safe} == safe
    assert len(now) == 1200


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 1 MB of room; only root can make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("can't mount a small file system here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def no_room(status: int, said: str) -> None:
    assert status == 2, said
    assert "no space left on the disk" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_full_disk_says_so_and_loses_nothing(small_disk: Path) -> None:
    out = small_disk / "run"
    outcome = in_process(*ARGS, "--out", str(out), cwd=small_disk.parent)
    no_room(outcome.status, outcome.err)
    safe = finished_samples(out)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    outcome = in_process(*ARGS, "--out", str(out), cwd=small_disk.parent)
    assert outcome.status == 0, outcome.err
    now = finished_samples(out)
    assert {name: now.get(name) for name in safe} == safe
