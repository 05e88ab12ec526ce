"""The kills of `make torture`, twenty of its two hundred."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cst_bench.content import content_root

KILLS = 5


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["run", "judge RUN", "judge calibrate", "report"])
def test_a_killed_verb_ends_with_the_bytes_of_an_undisturbed_call(verb: str, tmp_path: Path) -> None:
    figures = tmp_path / "torture.json"
    command = [str(content_root() / "scripts" / "torture.py"), "--kills", str(KILLS), "--calls", "0", "--verb", verb]
    done = subprocess.run(
        [sys.executable, *command, "--json", str(figures)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(figures.read_text("utf-8"))["verbs"][verb]
    assert result["kills"] == KILLS
    assert result["folders"]
    assert not result["different"]
    assert not result["failures"]
