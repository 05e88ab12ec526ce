"""`cst-bench compare` as a user and as a CI job call it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.invoke import invoke
from tests.reporting.stored_runs import make_run

BASE = {"S1": 0.7, "S0": 0.85, "S_RP": 0.8, "S_A": 0.95}


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    make_run(tmp_path / "a", "base", BASE)
    make_run(tmp_path / "b", "trained", {**BASE, "S0": 0.1}, method="dpo")
    return str(tmp_path / "a"), str(tmp_path / "b")


def test_a_gate_that_holds_is_status_1_after_all_is_written(
    tmp_path: Path, runs: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ("--junit", str(tmp_path / "junit.xml"), "--out", str(tmp_path / "compare.md"))
    done = invoke(capsys, monkeypatch, "compare", *runs, "--fail-if", "S0 < -0.05", "--fail-if", "S1 < -0.9", *files)
    assert done.status == 1
    assert "S0 < -0.05: failed (S0.difference is -0.7500)" in done.out
    assert "S1 < -0.9: passed" in done.out
    assert max(map(len, done.out.split("bold:")[0].splitlines())) <= 80
    assert "\x1b" not in done.out
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().get("failures") == "1"
    assert "# trained minus base" in (tmp_path / "compare.md").read_text()
    assert invoke(capsys, monkeypatch, "compare", *runs, "--fail-if", "S1 < -0.9").status == 0


@pytest.mark.parametrize("option", ["--out", "--junit"])
def test_a_place_that_cannot_be_written_is_one_message(
    tmp_path: Path,
    runs: tuple[str, str],
    option: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("x")
    done = invoke(capsys, monkeypatch, "compare", *runs, option, str(tmp_path / "file" / "x.md"))
    assert done.status == 2
    assert done.err.startswith(f"cst-bench: {tmp_path / 'file'}")
    assert "Traceback" not in done.err


def test_control_sequences_in_names_never_reach_the_terminal(
    tmp_path: Path, runs: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "evil", "\x1b[31mred\x1b]0;title\x07 [bold]b[/nothing]", BASE, method="cst")
    for arguments in (
        ("compare", runs[0], str(tmp_path / "evil")),
        ("ls", str(tmp_path)),
        ("report", str(tmp_path / "evil"), "--out", str(tmp_path / "[bold]o[/nothing]")),
    ):
        done = invoke(capsys, monkeypatch, *arguments)
        assert done.status == 0, done.err
        assert "\x1b" not in done.out
        assert "\x07" not in done.out
    assert "[bold]o[/nothing]" in done.out


def test_json_holds_everything(
    runs: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = invoke(capsys, monkeypatch, "compare", *runs, "--json", "--fail-if", "S0 < -0.05")
    read = json.loads(done.out)
    assert done.status == 1
    assert read["scores"]["harmful_behaviors/S0"]["difference"] == pytest.approx(-0.75)
    assert len(read["scores"]["harmful_behaviors/S0"]["lost"]) == 30 + len(
        read["scores"]["harmful_behaviors/S0"]["gained"]
    )
    assert read["gates"][0]["failed"] is True


def test_bad_input_is_status_2_and_nothing_is_written(
    tmp_path: Path, runs: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "compare.md"
    for wrong in (
        ("compare", *runs, "--fail-if", "S9 < 0", "--out", str(out)),
        ("compare", *runs, "--fail-if", "S0 <", "--out", str(out)),
        ("compare", runs[0], str(tmp_path / "none"), "--out", str(out)),
    ):
        assert invoke(capsys, monkeypatch, *wrong).status == 2
        assert not out.exists()
