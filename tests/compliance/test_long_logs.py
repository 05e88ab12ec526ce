"""Long logs are judged and read in chunks: no more than a chunk of samples is in memory, and logs grow linearly."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest
from inspect_ai.log import EvalSample, read_eval_log

from cst_bench.compliance import stored_samples
from cst_bench.compliance.inspect_task import compliance
from cst_bench.compliance.judged_log import judge_log, read_outcomes
from cst_bench.compliance.logs import generate, usage
from cst_bench.compliance.stored_samples import read_samples
from cst_bench.judging import Case, Judge, JudgeUnavailable, Verdict, load_judge
from tests.compliance.own import model, write_task

CHUNK = 10


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_samples, "CHUNK", CHUNK)


def write_log(folder: Path, prompts: int) -> tuple[Path, Judge]:
    """Generate three responses to each prompt; return the log and the task's judge."""
    folder.mkdir()
    _, path = write_task(folder, [{"prompt": f"Prompt {number:03}?"} for number in range(prompts)])
    replies = model(lambda system, prompt: "yes, of course" if "1" in prompt else "no, never")
    log = generate(compliance(str(path)), replies, folder / "log", lambda _: None)
    return log, load_judge(str(folder / "judge.yaml"))


def count_samples() -> int:
    """Count the samples that are held in memory, by whatever holds them."""
    gc.collect()
    return sum(type(thing) is EvalSample for thing in gc.get_objects())


class Watching:
    """A judge that counts the samples in memory whenever it is asked, and while its verdicts are written."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._written = 0
        self.name, self.version, self.kind = judge.name, judge.version, judge.kind
        self.behaviours, self.fields, self.reserved = judge.behaviours, judge.fields, judge.reserved
        self.details = judge.details
        self.asked: list[int] = []
        self.in_memory: list[int] = []

    @property
    def identity(self) -> str:
        """Return the judge's identity, which the scorer writes into each sample."""
        self._written += 1
        if self._written % CHUNK == CHUNK // 2:
            self.in_memory.append(count_samples())
        return self._judge.identity

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        """Return the judge's verdicts."""
        self.asked.append(len(cases))
        self.in_memory.append(count_samples())
        return await self._judge.judge(cases, count)


def test_judging_holds_no_more_than_a_chunk_of_samples(tmp_path: Path) -> None:
    log, judge = write_log(tmp_path / "task", 13)
    before = count_samples()
    watching = Watching(judge)
    outcomes, _ = judge_log(log, cast(Judge, watching))
    assert watching.asked == [CHUNK] * 3 + [9]
    assert len(watching.in_memory) == 4 + 4
    assert max(watching.in_memory) - before <= CHUNK + 2
    assert len(outcomes) == 39
    assert read_outcomes(log) == outcomes


def test_reading_holds_no_more_than_a_chunk_of_samples(tmp_path: Path) -> None:
    log, _ = write_log(tmp_path / "task", 13)
    before = count_samples()
    in_memory = [count_samples() - before for at, _ in enumerate(read_samples(log)) if at % CHUNK == CHUNK // 2]
    assert len(in_memory) == 4
    assert 0 < max(in_memory) <= CHUNK
    assert usage(log).stop_reasons == {"stop": 39}


def test_chunks_change_neither_the_order_nor_the_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, judge = write_log(tmp_path / "task", 9)
    outcomes, _ = judge_log(log, judge)
    samples = read_eval_log(str(log)).samples or []
    assert [sample.id for sample in read_samples(log)] == [sample.id for sample in samples]
    assert [(sample.scores or {})["behaviour"].answer for sample in samples] == [o.behaviour for o in outcomes]
    monkeypatch.setattr(stored_samples, "CHUNK", 1000)
    assert judge_log(log, judge)[0] == outcomes
    assert {outcome.behaviour for outcome in outcomes} == {"yes", "no"}


def test_a_judge_that_is_lost_after_a_chunk_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    class Lost(Watching):
        async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
            if self.asked:
                raise JudgeUnavailable("gone")
            return await super().judge(cases, count)

    log, judge = write_log(tmp_path / "task", 9)
    content = log.read_bytes()
    with pytest.raises(JudgeUnavailable):
        judge_log(log, cast(Judge, Lost(judge)))
    assert log.read_bytes() == content
    assert list(log.parent.glob("*.eval")) == [log]


def test_logs_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    sizes = {}
    for prompts in (5, 40):
        log, judge = write_log(tmp_path / str(prompts), prompts)
        judge_log(log, judge)
        sizes[prompts] = log.stat().st_size
    assert sizes[40] < 8 * sizes[5]
