"""A judge asked again: its agreement with itself, and two calibrations of what may be another model."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from cst_bench.calibration import CalibrateOptions, calibrate
from cst_bench.calibration.drift import CalibrationVerdicts, drift
from cst_bench.errors import UserError
from cst_bench.judging import JudgeOptions
from tests.cli.invoke import invoke
from tests.judging.servers import JudgeServer, completion, line_of, send, serving

ROWS = [
    {
        "prompt": f"Question {number}?",
        "response": f"Answer {number}, at some length.",
        "behaviour": label,
        "by": "human",
    }
    for number, label in enumerate(["harmless", "uncensored"] * 20)
]


@pytest.fixture
def labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    path = tmp_path / "anchor.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return path


def calibrated(labels: Path, out: str, flipped: int, model: str = "judge-june", repeat: int = 1) -> Path:
    """Calibrate a judge that is right but for the first responses, served under a name."""

    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        row = next(row for row in ROWS if str(row["response"]) in text)
        names = ["harmless", "uncensored"]
        wrong = ROWS.index(row) < flipped or (before > 0 and ROWS.index(row) < 4)
        word = names[names.index(str(row["behaviour"])) ^ wrong]
        send(handler, 200, {**completion(line_of(text, word)), "model": model})

    with serving(reply) as server:
        options = JudgeOptions(model="openai/alias", base_url=server.url, cache=labels.parent / f"cache-{out}")
        calibrate(
            CalibrateOptions("harmlessness", (labels,), judge_options=options, out=labels.parent / out, repeat=repeat)
        )
    return labels.parent / out


def test_changed_verdicts_and_the_loss_of_agreement_are_counted(
    labels: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    june, july = calibrated(labels, "june", 0), calibrated(labels, "july", 6, model="judge-july")
    result = drift(june, july)
    assert result.n == 40
    assert result.flips.value == 6 / 40
    assert result.changes == {"harmless → uncensored": 3, "uncensored → harmless": 3}
    assert result.agreement == (1.0, 34 / 40)
    assert result.agreement_change.value == pytest.approx(-6 / 40)
    assert result.served == (("judge-june",), ("judge-july",))
    outcome = invoke(capsys, monkeypatch, "judge", "drift", "june", "july")
    assert outcome.status == 1
    assert "judge-june; now judge-july" in outcome.out
    bounds = ("--max-flips", "0.2", "--max-loss", "0.2")
    assert invoke(capsys, monkeypatch, "judge", "drift", "june", "july", *bounds).status == 0
    assert invoke(capsys, monkeypatch, "judge", "drift", "june", "june").status == 0
    assert json.loads(invoke(capsys, monkeypatch, "judge", "drift", "june", "july", "--json").out)["n"] == 40


def test_verdicts_are_kept_without_texts(labels: Path) -> None:
    folder = calibrated(labels, "june", 0)
    kept = CalibrationVerdicts.read(folder)
    assert len(kept.verdicts) == 40
    assert "Answer" not in (folder / CalibrationVerdicts.FILE_NAME).read_text()


def test_folders_that_cannot_be_compared_are_one_message(labels: Path, tmp_path: Path) -> None:
    june = calibrated(labels, "june", 0)
    with pytest.raises(UserError, match=r"has no card.json: `cst-bench judge calibrate` writes one"):
        drift(june, tmp_path / "none")
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({**ROWS[0], "prompt": "Another?"}) + "\n")
    calibrate(CalibrateOptions("refusal_rules", (other,), out=tmp_path / "other"))
    with pytest.raises(UserError, match="have no labelled response in common"):
        drift(june, tmp_path / "other")


def test_a_judge_asked_several_times_is_measured_against_itself(labels: Path) -> None:
    folder = calibrated(labels, "repeated", 0, repeat=3)
    report = (folder / "report.md").read_text()
    assert "The judge was asked 3 times." in report
    card = json.loads((folder / "card.json").read_text())
    # the first four are judged otherwise whenever they are asked again: two of three pairs of verdicts differ
    assert card["retest"]["raw"]["value"] == pytest.approx((36 * 3 + 4 * 1) / (40 * 3))
    assert card["retest"]["scored"] == {"time 1": 40, "time 2": 40, "time 3": 40}
