"""Labels by people: blind, random, resumable, and in the scores once the run is judged again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cst_bench.errors import UserError
from cst_bench.record import Scores
from cst_bench.runs import JudgeRunOptions, RunOptions, judge_run, run
from cst_bench.runs.labelling import add_label, answered, choose, import_labels, read_run_labels
from tests.cli.invoke import invoke


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "run"
    run(RunOptions(tasks=("tiny_sealed",), limit=25, out=folder))
    return folder


@pytest.fixture
def finished(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def test_the_order_is_random_the_same_each_time_and_takes_turns_between_configurations(finished: Path) -> None:
    order = [one.key for one in choose(finished)]
    assert len(order) == len(set(order)) == 50
    assert order == [one.key for one in choose(finished)]
    assert order != [one.key for one in choose(finished, seed=1)]
    assert order[:7] == [one.key for one in choose(finished, n=7)]
    assert {key[2] for key in order} == {"S1", "S0"}
    assert all({first[2], second[2]} == {"S1", "S0"} for first, second in zip(order[::2], order[1::2]))
    assert [key[1] for key in order[::2]] != sorted(key[1] for key in order[::2])


def test_what_is_shown_holds_no_verdict_and_what_is_kept_no_text(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = iter("12us3q")
    monkeypatch.setattr("click.getchar", lambda: next(keys))
    done = invoke(capsys, monkeypatch, "judge", "label", str(finished), "--n", "6", "--by", "anna")
    assert done.status == 0
    chosen = choose(finished, n=6)
    rows = [json.loads(line) for line in (finished / "labels.jsonl").read_text().splitlines()]
    assert [(row["behaviour"], row["by"]) for row in rows] == [
        ("harmless", "anna"),
        (None, "anna"),
        ("neither", "anna"),
    ]
    assert [row["prompt_id"] for row in rows] == [one.key[1] for one in chosen[:3]]
    assert "3 of 6 left" in done.out
    assert "1 harmless  2 uncensored  3 neither" in done.out
    kept = (finished / "labels.jsonl").read_text()
    assert not any(one.response in kept for one in chosen)
    assert len(answered(finished)) == 3
    again = iter("q")
    monkeypatch.setattr("click.getchar", lambda: next(again))
    assert "4 of 6" in invoke(capsys, monkeypatch, "judge", "label", str(finished), "--n", "6").out


def test_a_run_judged_again_has_its_scores_corrected_by_the_labels(finished: Path) -> None:
    before = Scores.read(finished).compliance["tiny_sealed"].configurations
    for one in choose(finished, n=40):
        add_label(finished, one, "harmless", "anna")
    scores = judge_run(JudgeRunOptions(finished)).scores.compliance["tiny_sealed"].configurations
    assert scores["S1"].score == before["S1"].score
    s1, s0 = scores["S1"].corrected, scores["S0"].corrected
    assert s1 is not None
    assert s0 is not None
    assert (s1.method, s1.labelled, s1.score) == ("ppi++", 20, 1.0)
    assert s0.score == 0.0
    assert s0.interval is not None
    assert s0.interval[1] < 0.3
    assert "ppi++" in (finished / "report.md").read_text()


def test_labels_can_be_given_elsewhere(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "todo.jsonl"
    assert invoke(capsys, monkeypatch, "judge", "label", str(finished), "--n", "4", "--export", str(out)).status == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert all("verdict" not in row and row["behaviour"] == "" for row in rows)
    rows[0]["behaviour"], rows[2]["behaviour"] = "harmless", "neither"
    out.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    done = invoke(capsys, monkeypatch, "judge", "label", str(finished), "--import", str(out), "--by", "bo")
    assert "2 labels imported" in done.out
    assert sorted(read_run_labels(finished).values()) == ["harmless", "neither"]
    for change, message in [
        ({"behaviour": "lovely"}, "'lovely' is not one of harmless, uncensored, neither"),
        ({"behaviour": "harmless", "response": "another"}, "its response differs from the one of this run"),
        ({"behaviour": "harmless", "prompt_id": "0"}, "this run has no response tiny_sealed, 0"),
    ]:
        out.write_text(json.dumps({**rows[1], **change}))
        with pytest.raises(UserError, match=message):
            import_labels(finished, out, "bo")
    assert len(read_run_labels(finished)) == 2


def test_the_plan_says_how_many(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = invoke(capsys, monkeypatch, "judge", "label", str(finished), "--plan", "--width", "0.2")
    assert done.status == 0
    assert "S1" in done.out
    assert not (finished / "labels.jsonl").exists()


def test_bad_input_is_one_message(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        choose(tmp_path)
    with pytest.raises(UserError, match="did you mean tiny_sealed"):
        choose(finished, tasks=("tiny_seald",))
    (finished / "labels.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"labels\.jsonl:1: not a label"):
        read_run_labels(finished)
