"""The kills of `make torture`, twenty of its two hundred."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cst_bench.content import content_root

KILLS = 20
VERBS = ("run", "judge RUN", "judge calibrate", "report")


@pytest.mark.slow
def test_killed_verbs_end_with_the_bytes_of_an_undisturbed_call(tmp_path: Path) -> None:
    figures = tmp_path / "torture.json"
    chosen = [part for verb in VERBS for part in ("--verb", verb)]
    command = [str(content_root() / "scripts" / "torture.py"), "--kills", str(KILLS), "--calls", "0", *chosen]
    done = subprocess.run(
        [sys.executable, *command, "--json", str(figures)], capture_output=True, text=True, timeout=590, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    verbs = json.loads(figures.read_text("utf-8"))["verbs"]
    assert list(verbs) == list(VERBS)
    assert sum(result["kills"] for result in verbs.values()) == KILLS
    for result in verbs.values():
        assert result["kills"]
        assert result["folders"]
        assert not result["different"]
        assert not result["failures"]
