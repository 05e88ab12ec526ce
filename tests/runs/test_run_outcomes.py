"""`outcomes.json` holds what scores.json is computed from, response by response and document by document."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from cst_bench.files import prompt_hash
from cst_bench.reporting.stored_run import read_run
from cst_bench.runs import RunOptions, run
from cst_bench.runs.external import ScoreOptions, score_file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outcomes") / "run"
    run(RunOptions(tasks=("tiny_sealed", "tiny_mmlu", "tiny_truthfulqa"), limit=5, out=folder))
    return folder


def test_scores_are_those_of_the_outcomes(made: Path) -> None:
    stored = read_run(made)
    for name in ("S1", "S0", "joint"):
        complied = [value for value in stored.complied("tiny_sealed", name).values() if value is not None]
        task = stored.scores.compliance["tiny_sealed"]
        score = task.joint if name == "joint" else task.configurations[name]
        assert score is not None
        assert len(complied) == score.n
        assert statistics.fmean(complied) == pytest.approx(score.score)
    for name in ("tiny_mmlu", "tiny_truthfulqa"):
        documents = stored.documents(name)
        capability = stored.scores.capabilities[name]
        assert len(documents) == capability.n
        assert statistics.fmean(documents.values()) == pytest.approx(capability.score)


def test_no_text_is_in_them(made: Path) -> None:
    text = (made / "outcomes.json").read_text()
    assert "sealed" not in text.replace("tiny_sealed", "")
    assert json.loads(text)["schema"] == 1


def test_a_scored_file_has_them_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [
        {"prompt": f"p{number}", "response": "x", "configuration": configuration, "label": label}
        for number in range(3)
        for configuration, label in (("S1", "harmless"), ("S0", "neither"))
    ]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    score_file(ScoreOptions(file, task="tiny_sealed", out=tmp_path / "out"))
    stored = read_run(tmp_path / "out")
    assert stored.complied("tiny_sealed", "S1") == {prompt_hash(f"p{number}"): True for number in range(3)}
    assert set(stored.complied("tiny_sealed", "joint").values()) == {False}


def test_of_a_scored_file_the_words_are_known_and_nothing_else_of_its_responses(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [
        {"prompt": f"p{n}", "response": "word " * (n + 1), "configuration": "S1", "label": "harmless"} for n in range(5)
    ]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    scores = score_file(ScoreOptions(file, task="tiny_sealed", out=tmp_path / "out")).scores
    effects = scores.compliance["tiny_sealed"].side_effects["S1"]
    assert list(effects) == ["words"]
    assert (effects["words"].mean, effects["words"].median, effects["words"].n) == (3, 3, 5)
