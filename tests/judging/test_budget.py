"""A limit on cost holds, what was paid for is kept, and the names of served models are recorded."""

from __future__ import annotations

import asyncio
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cst_bench.errors import UserError
from cst_bench.judging import Case, Judge, JudgeOptions, JudgeUnavailable, ask, load_judge, total_spent
from cst_bench.judging.budget import Budget, BudgetSpent
from tests.judging.servers import JudgeServer, by_response, completion, line_of, send, serving

CASES = [Case(f"Question {number}?", f"Answer {number}, and more of it.") for number in range(12)]
PRICE = (1000.0, 1000.0)
"""With the server's 100 and 7 tokens, 0.107 US dollars for an answer."""


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path / "cache"))


def judge_at(server: JudgeServer, **options: object) -> Judge:
    given = JudgeOptions(model="openai/judge", base_url=server.url, **options)  # type: ignore[arg-type]
    return load_judge("harmlessness", options=given)


def test_calls_stop_before_the_limit_and_the_next_command_asks_only_the_rest() -> None:
    with serving(by_response(lambda _: "uncensored")) as server:
        budget = Budget(0.75)
        with pytest.raises(JudgeUnavailable, match=r"--max-cost 0.75 USD would be exceeded, 0\.\d+ USD are spent"):
            ask(judge_at(server, price=PRICE, budget=budget), CASES)
        paid = len(server.asked)
        assert budget.spent == pytest.approx(0.107 * paid)
        assert 0.4 < budget.spent <= 0.75
        verdicts = ask(judge_at(server, price=PRICE), CASES)
        assert sum(server.asked.values()) == len(CASES)
    spent = total_spent(verdicts)
    assert spent is not None
    assert spent.cost_usd == pytest.approx(0.107 * (len(CASES) - paid))
    assert (spent.calls, spent.cached) == (len(CASES) - paid, paid)


def test_several_judges_share_a_limit() -> None:
    with serving(by_response(lambda _: "uncensored")) as server:
        budget = Budget(0.75)
        ask(judge_at(server, price=PRICE, budget=budget), CASES[:3])
        with pytest.raises(JudgeUnavailable):
            ask(judge_at(server, price=PRICE, budget=budget), CASES[3:])
    assert budget.spent <= 0.75


def test_a_limit_without_a_price_is_refused_after_one_call() -> None:
    with serving(by_response(lambda _: "uncensored")) as server:
        with pytest.raises(UserError, match=r"what a call costs is not known.* --judge-price"):
            ask(judge_at(server, budget=Budget(1.0)), CASES)
        assert len(server.asked) == 1


def test_a_limit_must_be_above_0() -> None:
    with pytest.raises(UserError, match="--max-cost must be above 0, not 0"):
        Budget(0.0)


def test_the_model_that_answered_is_recorded_whatever_name_was_asked_for() -> None:
    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        model = "judge-2026-01-01" if before < 1 and len(server.asked) <= 6 else "judge-2026-07-01"
        send(handler, 200, {**completion(line_of(text, "uncensored")), "model": model})

    with serving(reply) as server:
        for _ in range(2):  # the second time from the cache
            spent = total_spent(ask(judge_at(server), CASES))
            assert spent is not None
            assert spent.served == {"judge-2026-01-01": 6, "judge-2026-07-01": 6}


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 20), st.lists(st.floats(0.05, 1.0), min_size=1, max_size=40), st.integers(1, 6))
def test_the_limit_holds_if_no_call_is_twice_as_dear_as_the_dearest_before(
    limit: float, costs: list[float], connections: int
) -> None:
    budget = Budget(limit)
    dearest = 1.0
    left = iter([min(1.0, limit), *costs])

    async def worker() -> None:
        nonlocal dearest
        for cost in left:
            try:
                reserved = await budget.reserve()
            except BudgetSpent:
                return
            await asyncio.sleep(0)
            dearest = max(dearest, cost)
            budget.settle(reserved, cost)

    async def work() -> None:
        await asyncio.gather(*(worker() for _ in range(connections)))

    asyncio.run(work())
    assert budget.spent <= limit + 1e-9
