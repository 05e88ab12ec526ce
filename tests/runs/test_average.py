"""The average of configurations: those of one task share their prompts."""

from __future__ import annotations

import pytest

from cst_bench.compliance.compliance_scores import Outcome, summarise
from cst_bench.runs.scoring import average_compliance
from cst_bench.statistics.intervals import mean_interval, wilson

ASKED = {"S1": "harmless", "S0": "uncensored"}


def average_of(s1: list[bool], s0: list[bool]) -> tuple[float, tuple[float, float]]:
    outcomes = [
        Outcome(str(prompt), name, ASKED[name], ASKED[name] if complied else "neither")
        for name, of_prompts in (("S1", s1), ("S0", s0))
        for prompt, complied in enumerate(of_prompts)
    ]
    average = average_compliance({"task": summarise(outcomes, list(ASKED))}, {"task": outcomes}, list(ASKED))
    assert average is not None
    assert average.score is not None
    assert average.interval is not None
    return average.score, average.interval


def test_prompts_that_succeed_together_make_the_average_less_certain_than_those_that_trade_off() -> None:
    half = [True] * 30 + [False] * 30
    nearly = [False] * 27 + [True] * 30 + [False] * 3
    together, apart = average_of(half, half), average_of(half, nearly)
    assert together[0] == apart[0] == 0.5
    # together: each prompt counts once, as one configuration does; apart: the mean hardly varies
    single = wilson(30, 60)
    assert single is not None
    assert together[1] == pytest.approx(single, abs=0.01)
    assert apart[1][1] - apart[1][0] < 0.8 * (together[1][1] - together[1][0])


def test_independent_configurations_are_as_certain_as_their_intervals_say() -> None:
    s1 = [True, True, False, False] * 25
    s0 = [True, False] * 50
    _, expected = mean_interval([0.5, 0.5], [wilson(50, 100), wilson(50, 100)])
    assert expected is not None
    assert average_of(s1, s0)[1] == pytest.approx(expected, abs=0.01)
