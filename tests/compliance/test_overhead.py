"""What a response costs beside the model is measured on Inspect itself, without asking the judge where that costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cst_bench.compliance.compliance_task import load_task
from cst_bench.compliance.data import load_prompts
from cst_bench.compliance.inspect_task import ResponseSettings
from cst_bench.compliance.overhead import measure_overhead
from cst_bench.judging import Case, Judge, Verdict, load_judge


@pytest.mark.parametrize("judging", [True, False])
def test_the_judge_is_asked_only_where_it_may_be(
    judging: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    judge: Judge = load_judge("tiny_sealed")
    asked: list[Case] = []
    original = judge.judge

    async def recorded(cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        asked.extend(cases)
        return await original(cases, count)

    monkeypatch.setattr(judge, "judge", recorded)
    task, path = load_task("tiny_sealed")
    settings = ResponseSettings((task.wording,), task.generation, samples=3)
    overhead = measure_overhead(task, load_prompts(task, path, limit=2), judge, settings, judging=judging)
    assert overhead.response > 0
    assert (overhead.verdict > 0) == judging
    assert bool(asked) == judging, "a response of the measurement should be one that judges are asked about"
    assert not list(tmp_path.iterdir())
