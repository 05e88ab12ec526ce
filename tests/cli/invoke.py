"""Run the command line as a user does, in this process or in another one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from cst_bench.cli import main


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


def invoke(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> Outcome:
    """Run `cst-bench ARGS` in this process."""
    monkeypatch.setattr(sys, "argv", ["cst-bench", *args])
    with pytest.raises(SystemExit) as stop:
        main()
    captured = capsys.readouterr()
    return Outcome(int(stop.value.code or 0), captured.out, captured.err)


def command(*args: str) -> list[str]:
    """Return the command line of `cst-bench ARGS` for a subprocess."""
    return [sys.executable, "-m", "cst_bench", *args]


def in_process(*args: str, cwd: Path) -> Outcome:
    """Run `cst-bench ARGS` in a subprocess."""
    done = subprocess.run(command(*args), cwd=cwd, capture_output=True, text=True, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)
