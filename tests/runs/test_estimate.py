"""Estimates of runs: what is counted is what the run then does, and a run is the same with and without one.

Times are never compared with a clock: where a test needs responses to end, the clock counts its own readings.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cst_bench.checkpoint import CheckpointFiles, CheckpointOptions
from cst_bench.checkpoint.evaluated_model import EvaluatedModel
from cst_bench.checkpoint.memory import MemoryNeed
from cst_bench.compliance.overhead import ResponseOverhead
from cst_bench.judging import JudgeOptions
from cst_bench.progress import Silent
from cst_bench.record import Manifest
from cst_bench.runs import RunOptions, make_plan, run
from cst_bench.runs.estimate import RunEstimate, TaskEstimate, duration, estimate_run, rough_seconds
from cst_bench.runs.run_folder import read_folder

TASKS = ("tiny_sealed", "tiny_truthfulqa")
RESULTS = ("scores.json", "outcomes.json", "report.md")


@pytest.fixture
def counting_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give decoding a clock that a reading advances by a microsecond, so that it ends whatever the machine."""
    readings = count(1)
    clock = SimpleNamespace(monotonic=lambda: next(readings) * 1e-6)
    monkeypatch.setattr("cst_bench.checkpoint.decoding_rates.time", clock)
    monkeypatch.setattr("cst_bench.runs.estimate._DECODING_SECONDS", 0.05)


def options(checkpoint: Path | str, out: Path | None = None, **changes: Any) -> RunOptions:
    given: dict[str, Any] = {"tasks": TASKS, "limit": 3, **changes}
    return RunOptions(CheckpointOptions(name=str(checkpoint)), out=out, **given)


def estimate(given: RunOptions, folder: Path | None = None) -> RunEstimate:
    model = EvaluatedModel(given.checkpoint, Silent())
    return estimate_run(make_plan(given), model, None if folder is None else read_folder(folder))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the embedded checkpoint."""
    out = tmp_path_factory.mktemp("runs") / "run"
    run(options("tiny", out))
    return out


@pytest.mark.usefixtures("counting_clock")
def test_what_is_counted_is_what_the_run_does(finished: Path) -> None:
    responses, documents = estimate(options("tiny")).tasks
    part = Manifest.read(finished).status.compliance["tiny_sealed"]
    assert part.usage is not None
    assert responses.tokens is not None
    assert responses.samples == part.responses == 9
    assert responses.tokens - responses.response_tokens == part.usage.input_tokens
    assert responses.response_tokens == part.usage.output_tokens
    assert documents.samples == 3
    assert documents.tokens
    assert (responses.seconds or 0) > 0
    assert (documents.seconds or 0) > 0


def test_a_response_that_does_not_end_in_the_time_is_taken_to_be_as_long_as_it_may_be(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cst_bench.runs.estimate._DECODING_SECONDS", 0.0)
    made = estimate(options(llama, tasks=("tiny_sealed",)))
    limit = make_plan(options(llama)).compliance[0].generation.max_tokens
    assert made.unfinished > 0
    assert made.tasks[0].response_tokens >= limit * made.unfinished
    assert "at most" in made.summary
    assert any("upper bound" in remark for remark in made.remarks)


def test_only_what_is_left_is_estimated(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    given = options("tiny")
    model = EvaluatedModel(given.checkpoint, Silent())
    with monkeypatch.context() as patch:
        patch.setattr("cst_bench.checkpoint.evaluated_model.load_weights", None)  # nothing of a model is left to do
        assert estimate_run(make_plan(given), model, read_folder(folder)).lines == []
    (folder / "capabilities" / "tiny_truthfulqa.json").unlink()
    made = estimate(options("tiny"), folder)
    assert [(task.unit, task.samples) for task in made.tasks] == [("responses", 0), ("documents", 3)]
    (folder / Manifest.read(folder).status.compliance["tiny_sealed"].logs[0]).unlink()
    assert [task.samples for task in estimate(options("tiny"), folder).tasks] == [9, 3]


def test_a_run_is_the_same_with_and_without_an_estimate(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cst_bench.cli.console import ConsoleProgress, make_console

    monkeypatch.setattr("cst_bench.runs.evaluate._WORTHWHILE", 0.0)
    shown: list[str] = []
    progress = ConsoleProgress(make_console())
    monkeypatch.setattr(progress, "note", shown.append)
    run(options("tiny", tmp_path / "run"), progress)
    (line,) = [note for note in shown if note.startswith("estimate:")]
    assert "9 responses" in line
    assert "3 documents" in line
    assert shown.index(line) < next(index for index, note in enumerate(shown) if "responses: done" in note)
    for name in RESULTS:
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes(), name
    assert files_of(tmp_path / "run") == files_of(finished)
    assert "estimate" not in (tmp_path / "run" / "run.json").read_text()


def files_of(folder: Path) -> set[str]:
    """Return the files of a run, without the names that Inspect draws for its logs."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".eval"}


def test_a_small_run_and_one_that_nobody_watches_are_not_measured(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cst_bench.cli.console import ConsoleProgress, make_console

    def measured(*_: object) -> RunEstimate:
        raise AssertionError("measured")

    monkeypatch.setattr("cst_bench.runs.estimate.estimate_run", measured)
    run(options(llama, tmp_path / "small", tasks=("tiny_truthfulqa",)), ConsoleProgress(make_console()))
    monkeypatch.setattr("cst_bench.runs.evaluate._WORTHWHILE", 0.0)
    run(options(llama, tmp_path / "unwatched", tasks=("tiny_truthfulqa",)))


@pytest.mark.parametrize(
    ("changes", "responses"),
    [({}, 9), ({"reference": False}, 6), ({"samples": 2, "temperature": 0.7}, 18), ({"wordings": ("all",)}, 27)],
)
def test_responses_are_counted_as_they_are_asked_for(
    changes: dict[str, Any], responses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("LOCAL_API_KEY", "none")
    given = options("openai-api/local/talker", tasks=("tiny_sealed",), **changes)
    assert estimate(given).calls == {"openai-api/local/talker": responses}


def test_a_large_model_makes_a_run_worth_measuring(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = options(llama, tasks=("tiny_sealed",), limit=None)
    plan = make_plan(given)
    assert 0 < rough_seconds(plan, EvaluatedModel(given.checkpoint, Silent())) < 60
    monkeypatch.setattr(CheckpointFiles, "parameter_count", 7_000_000_000)
    assert rough_seconds(plan, EvaluatedModel(given.checkpoint, Silent())) > 60


def test_calls_of_an_api_model_and_of_a_judge_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-key-of-anyone")
    given = options("openai/gpt-4o", judges=("harmlessness",), judge_options=JudgeOptions(model="openai/gpt-4-turbo"))
    made = estimate(given)
    assert made.calls == {"openai/gpt-4o": 9, "the judge's model openai/gpt-4-turbo": 9}
    assert made.seconds is None
    assert made.memory is None
    assert made.summary == (
        "estimate: 9 responses, up to 9 calls of openai/gpt-4o, up to 9 calls of the judge's model openai/gpt-4-turbo"
    )


def test_a_judge_that_asks_a_model_is_not_asked_to_measure(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-key-of-anyone")
    judging: list[bool] = []

    def measured(*_: object, judging: bool, asked: list[bool] = judging) -> ResponseOverhead:
        asked.append(judging)
        return ResponseOverhead()

    monkeypatch.setattr("cst_bench.runs.estimate.measure_overhead", measured)
    monkeypatch.setattr("cst_bench.runs.estimate._NEGLIGIBLE", 0.0)
    estimate(options(llama, tasks=("tiny_sealed",), judges=("harmlessness",)))
    estimate(options(llama, tasks=("tiny_sealed",)))
    assert judging == [False, True]


def test_the_line_of_an_estimate() -> None:
    tasks = (
        TaskEstimate("Harmful Behaviors", "responses", 1556, 420_000, 326_760, 800.0),
        TaskEstimate("ARC", "documents", 1400, 900_000, seconds=60.0),
    )
    need = MemoryNeed("memory", 1_900_000_000, 8_000_000_000)
    made = RunEstimate(tasks, memory=need, decoded=9)
    assert made.lines == [
        "estimate: about 0:14:00 and 1.9 GB of memory: 1,556 responses of about 210 tokens, 1,400 documents"
    ]
    bound = replace(made, unfinished=4, memory=replace(need, free=1_000_000_000))
    assert "1,556 responses of at most 210 tokens" in bound.summary
    remarks: Sequence[str] = bound.remarks
    assert "4 of 9 responses did not end" in remarks[0]
    assert "only 1.0 GB of memory are free" in remarks[1]
    assert "--dtype bfloat16" in remarks[1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0:00:01"), (43.4, "0:00:43"), (114, "0:01:50"), (860, "0:14:00"), (90_000, "1 day, 1:00:00")],
)
def test_a_time_has_no_more_digits_than_an_estimate_is_worth(seconds: float, text: str) -> None:
    assert duration(seconds) == text
