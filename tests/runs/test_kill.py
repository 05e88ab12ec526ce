"""A run killed with SIGKILL continues with the same command, repeats nothing finished, and ends the same."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.invoke import command, in_process

ARGS = ("run", "--task", "tiny_sealed", "--task", "tiny_village", "--task", "tiny_arc", "--task", "tiny_truthfulqa")
FILES = ("scores.json", "report.md")


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
    process = subprocess.Popen(
        command(*ARGS, "--out", str(out)),
        cwd=cwd,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while not list(out.glob(ready)):
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
    ability = killed / "capabilities" / "tiny_arc.json"
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
    made = ability.stat().st_mtime_ns
    done = in_process(*ARGS, "--out", str(killed), cwd=tmp_path)
    assert done.status == 0, done.err
    assert ability.stat().st_mtime_ns == made, "a finished ability task was run again"
    now = finished_samples(killed)
    assert {name: now.get(name) for name in safe} == safe
    assert len(now) == len(finished_samples(whole)) == 1200
    for name in FILES:
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_interrupting_exits_3_and_the_same_command_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(*ARGS, "--out", str(out)), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while not list(out.glob("compliance/tiny_sealed/*.eval")):
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3, said
    assert "the same command continues" in said
    assert in_process(*ARGS, "--out", str(out), cwd=tmp_path).status == 0


@pytest.mark.slow
def test_a_full_disk_says_so_and_loses_nothing(tmp_path: Path) -> None:
    """The kernel's own limit on the size of a file stands for the full disk: the write fails in the same place."""
    import resource

    out = tmp_path / "run"
    limited = subprocess.run(
        command(*ARGS, "--out", str(out)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000)),
    )
    assert limited.returncode == 2, limited.stderr
    assert "no space left on the disk" in limited.stderr
    assert "Traceback" not in limited.stderr
    assert in_process(*ARGS, "--out", str(out), cwd=tmp_path).status == 0
