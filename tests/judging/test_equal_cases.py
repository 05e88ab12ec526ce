"""Equal cases that are judged at the same time share one call, and none is lost if that call fails or is cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from cst_bench.judging import Case, JudgeUnavailable, Verdict, ask, ignore_progress, total_spent
from tests.judging.faults import choose, faulty, status
from tests.judging.servers import JudgeServer, by_response, serving, sleep_until_stopped
from tests.judging.test_llm import behaviours, judge_at

CASES = [Case("How do I bake bread?", f"{word} at the mill.") for word in ("No", "Mix", "Knead")]


@pytest.fixture(autouse=True)
def _key_and_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path / "cache"))


def slow(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
    """Answer after long enough that all connections are in use."""
    time.sleep(0.2)
    by_response(choose)(server, handler, text, before)


def test_equal_cases_are_asked_about_once(tmp_path: Path) -> None:
    with serving(slow) as server:
        verdicts = ask(judge_at(server, tmp_path, connections=12), CASES * 4)
        assert list(server.asked.values()) == [1, 1, 1]
    assert behaviours(verdicts) == [choose(case.response) for case in CASES * 4]
    spent = total_spent(verdicts)
    assert spent is not None
    assert (spent.calls, spent.cached, spent.input_tokens) == (3, 9, 300)


def test_cases_that_wait_for_an_equal_one_take_no_connection(tmp_path: Path) -> None:
    cases = [CASES[0]] * 4 + CASES[1:]
    with serving(slow) as server:
        ask(judge_at(server, tmp_path, connections=3), cases)
        assert server.most_at_a_time == 3


def test_cases_with_other_data_are_not_equal(tmp_path: Path) -> None:
    others = [Case("How do I bake rolls?", CASES[0].response), Case(CASES[0].prompt, f"{CASES[0].response}\n")]
    with serving(slow) as server:
        ask(judge_at(server, tmp_path), [CASES[0], *others, Case(CASES[0].prompt, CASES[0].response, {"verb": "bake"})])
        assert sum(server.asked.values()) == 3  # the judge is not shown the field


def test_equal_cases_of_several_calls_are_asked_about_once(tmp_path: Path) -> None:
    with serving(slow) as server:
        judge = judge_at(server, tmp_path)

        async def judge_all() -> list[list[Verdict]]:
            return await asyncio.gather(*(judge.judge([CASES[0]], ignore_progress) for _ in range(4)))

        verdicts = asyncio.run(judge_all())
        assert list(server.asked.values()) == [1]
    assert [behaviours(of_call) for of_call in verdicts] == [["harmless"]] * 4


@pytest.mark.parametrize("connections", [1, 8])
def test_when_a_call_fails_each_equal_case_is_tried_by_itself(tmp_path: Path, connections: int) -> None:
    with serving(faulty(status(503), status(503))) as server:
        judge = judge_at(server, tmp_path, retries=0, connections=connections)
        with pytest.raises(JudgeUnavailable, match="no verdict on 2 of 4 responses"):
            ask(judge, [CASES[1]] * 4)
        assert list(server.asked.values()) == [3]
        assert behaviours(ask(judge, [CASES[1]] * 4)) == ["uncensored"] * 4
        assert list(server.asked.values()) == [3]


def test_where_nothing_can_be_written_equal_cases_are_asked_about_once(tmp_path: Path) -> None:
    (tmp_path / "cache" / "judge-answers.sqlite").mkdir(parents=True)  # no cache can be opened there
    with serving(slow) as server:
        assert behaviours(ask(judge_at(server, tmp_path), [CASES[1]] * 4)) == ["uncensored"] * 4
        assert list(server.asked.values()) == [1]


def test_a_cancelled_call_leaves_its_equal_case_to_be_asked_about(tmp_path: Path) -> None:
    def hang_first(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        if before == 0:
            sleep_until_stopped(server, 30)
        else:
            by_response(choose)(server, handler, text, before)

    with serving(hang_first) as server:
        judge = judge_at(server, tmp_path, attempt_timeout=60)

        async def cancel_first() -> list[Verdict]:
            first = asyncio.create_task(_judge_one(judge.judge([CASES[0]], ignore_progress)))
            while not server.asked:
                await asyncio.sleep(0.01)
            second = asyncio.create_task(_judge_one(judge.judge([CASES[0]], ignore_progress)))
            await asyncio.sleep(0.05)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            return await second

        assert behaviours(asyncio.run(cancel_first())) == ["harmless"]
        assert list(server.asked.values()) == [2]


async def _judge_one(verdicts: Coroutine[Any, Any, list[Verdict]]) -> list[Verdict]:
    return await verdicts
