"""Estimates of decoding: what is counted is what the generator does; no time is compared with a clock."""

from __future__ import annotations

import functools
from concurrent.futures import Future
from dataclasses import replace
from threading import Event

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cst_bench.checkpoint import Checkpoint
from cst_bench.checkpoint.chat import conversation
from cst_bench.checkpoint.decoding import DecodeBatch
from cst_bench.checkpoint.decoding_check import check_work, checked_mode
from cst_bench.checkpoint.decoding_modes import CheckedModes
from cst_bench.checkpoint.decoding_rates import (
    Decoding,
    DecodingRates,
    Lengths,
    measure_decoding,
    simulate_batch,
    step_model,
)
from cst_bench.checkpoint.engine import GeneratedTokens
from cst_bench.checkpoint.generation import Generator, response_row
from cst_bench.checkpoint.sampling import Sampling, SamplingRow
from tests.checkpoints import PROMPTS

GREEDY = Sampling(max_tokens=24)


@pytest.fixture
def llama(loaded: dict[str, Checkpoint]) -> Checkpoint:
    return loaded["llama"]


def prompts(checkpoint: Checkpoint) -> list[list[int]]:
    return [checkpoint.chat.prompt_ids(conversation("You answer in a few words.", user)) for user in PROMPTS]


def rows_of(checkpoint: Checkpoint) -> list[SamplingRow]:
    return [response_row(checkpoint, prompt, GREEDY) for prompt in prompts(checkpoint)]


@pytest.mark.parametrize("capacity", [10**6, 200])
def test_the_simulation_counts_what_the_generator_does(
    llama: Checkpoint, monkeypatch: pytest.MonkeyPatch, capacity: int
) -> None:
    monkeypatch.setattr("cst_bench.checkpoint.generation._ROWS", {"cpu": 3})
    monkeypatch.setattr("cst_bench.checkpoint.generation.token_capacity", lambda _: capacity)
    asked = prompts(llama) * 2
    with Generator(llama) as generator:
        generator.generate(asked, GREEDY)  # so that how to decode is checked
    forward, begun, go_on = llama.model.forward, Event(), Event()
    passes: list[tuple[torch.Tensor, torch.Tensor]] = []

    @functools.wraps(forward)
    def recorded(**inputs: torch.Tensor) -> object:
        if begun.is_set():
            passes.append((inputs["input_ids"], inputs["attention_mask"]))
        else:
            begun.set()
            go_on.wait(60)
        return forward(**inputs)

    with Generator(llama) as generator:
        monkeypatch.setattr(llama.model, "forward", recorded)
        generator.submit(asked[0], Sampling(max_tokens=1))  # the others wait until it has ended
        assert begun.wait(60)
        futures: list[Future[GeneratedTokens]] = [generator.submit(prompt, GREEDY) for prompt in asked]
        go_on.set()
        responses = [future.result(60) for future in futures]
    reading = [mask for ids, mask in passes if ids.shape[1] > 1]
    steps = [mask for ids, mask in passes if ids.shape[1] == 1]
    lengths = [Lengths(response.prompt_tokens, response.generated_tokens, 24) for response in responses]
    assert len({row.generated for row in lengths}) > 2, "the responses should differ in length"
    assert simulate_batch(lengths, 3, capacity) == Decoding(
        prompt_tokens=sum(int(mask.sum()) for mask in reading),
        steps=len(steps),
        rows=sum(mask.shape[0] for mask in steps),
        columns=sum(mask.numel() for mask in steps),
        cached=max(mask.shape[0] for mask in steps) * max(mask.shape[1] for mask in steps),
    )


@given(
    st.lists(st.builds(Lengths, st.integers(1, 50), st.integers(1, 20), st.just(20)), max_size=30),
    st.integers(1, 9),
    st.integers(1, 500),
)
def test_every_response_is_decoded_whatever_the_places(responses: list[Lengths], places: int, capacity: int) -> None:
    work = simulate_batch(responses, places, capacity)
    assert work.prompt_tokens == sum(row.prompt for row in responses)
    assert work.rows == sum(row.generated - 1 for row in responses)
    assert work.steps <= work.rows <= work.steps * places


def test_a_step_model_is_recovered_from_its_own_times() -> None:
    step, row, column = 0.05, 0.002, 1e-5

    def seconds(rows: int, columns: int) -> tuple[int, int, float]:
        return rows, columns, step + rows * (row + columns * column)

    assert step_model(seconds(64, 16), seconds(16, 16), seconds(64, 256)) == pytest.approx((step, row, column))


@given(*[st.floats(0, 10)] * 3)
def test_no_noise_makes_a_part_of_a_step_negative(many: float, few: float, long: float) -> None:
    step, row, column = step_model((64, 16, many), (16, 16, few), (64, 256, long))
    assert min(step, row, column) >= 0
    assert step + 64 * (row + 16 * column) <= max(many, long) + 1e-9


def test_time_is_the_sum_over_what_is_done() -> None:
    rates = DecodingRates(2, 1000, "compact", prompt_token=1.0, step=10.0, row=100.0, column=1000.0)
    alone = Lengths(prompt=3, generated=3, limit=3)  # two steps after the prompt's, of 4 and 5 columns
    assert rates.seconds([alone]) == 3 * 1 + 2 * 10 + 2 * 100 + 9 * 1000
    assert rates.seconds([alone, alone]) == 6 * 1 + 2 * 10 + 4 * 100 + 18 * 1000
    assert rates.seconds([]) == 0
    assert rates.seconds([alone] * 50_000) == pytest.approx(25_000 * rates.seconds([alone, alone]))


def test_static_batches_end_before_the_next_begins() -> None:
    rates = DecodingRates(2, 1000, "padded", prompt_token=1.0, step=10.0, row=0.0, column=0.0)
    lengths = [Lengths(2, generated, 9) for generated in (3, 9, 5)]
    assert rates.simulate(lengths) == Decoding(6, steps=8 + 4, rows=16 + 4, columns=2 * 52 + 18, cached=20)
    assert DecodingRates(2, 1000, "alone", 1.0, 10.0, 0.0, 0.0).simulate(lengths).steps == 2 + 8 + 4


def test_the_check_of_decoding_is_counted(llama: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, forward = rows_of(llama), llama.model.forward
    reading, steps = 0, 0

    @functools.wraps(forward)
    def recorded(**inputs: torch.Tensor) -> object:
        nonlocal reading, steps
        mask, width = inputs.get("attention_mask"), inputs["input_ids"].shape[1]
        reading += int(inputs["input_ids"].numel() if mask is None else mask.sum()) if width > 1 else 0
        steps += width == 1
        return forward(**inputs)

    tokens, expected = check_work(llama, rows, 10**6)
    monkeypatch.setattr(llama.model, "forward", recorded)
    assert checked_mode(replace(llama, modes=CheckedModes()), rows, 10**6) == "compact"
    assert tokens == reading
    assert expected - 3 <= steps <= expected  # the first token of each of three batches comes from its prompts


def test_copies_of_a_row_are_decoded_like_it(llama: Checkpoint) -> None:
    prompt = prompts(llama)[0]
    batch = DecodeBatch(llama.model, frozenset())
    batch.add([SamplingRow(prompt, GREEDY)])
    batch.repeat([SamplingRow(prompt, GREEDY, generated=list(batch.rows[0].generated)) for _ in range(3)])
    rows = list(batch.rows)
    while batch.rows:
        batch.step()
    assert len(rows) == 4
    assert len(rows[0].generated) == 24
    assert all(row.generated == rows[0].generated for row in rows)


def test_measuring_decodes_the_responses_themselves_and_changes_nothing(llama: Checkpoint) -> None:
    with Generator(llama) as generator:
        expected = generator.generate(prompts(llama), GREEDY)
    modes, state, weights = repr(llama.modes), torch.get_rng_state(), dict(llama.model.state_dict())
    rows = rows_of(llama)
    rates = measure_decoding(llama, rows, seconds=0.01)
    begun = [(row, response) for row, response in zip(rows, expected, strict=True) if row.generated]
    assert begun
    for row, response in begun:
        ids = [*response.ids, *row.generated[-1:]]  # without the token that ends it
        assert row.generated == ids[: len(row.generated)]
    assert rates.mode == "compact"
    assert min(rates.step, rates.row, rates.column) >= 0
    assert rates.prompt_token > 0
    assert rates.seconds([Lengths(20, 10, 24)]) > 0
    assert repr(llama.modes) == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, weights[name]) for name, weight in llama.model.state_dict().items())
    with Generator(llama) as generator:
        assert generator.generate(prompts(llama), GREEDY) == expected


def test_a_model_that_is_decoded_by_generate_is_measured_as_that(loaded: dict[str, Checkpoint]) -> None:
    mamba = loaded["mamba"]
    modes = repr(mamba.modes)
    rates = measure_decoding(mamba, rows_of(mamba), seconds=0.01)
    assert rates.mode != "compact"
    assert rates.seconds([Lengths(20, 10, 24)] * 3) > 0
    assert repr(mamba.modes) == modes
