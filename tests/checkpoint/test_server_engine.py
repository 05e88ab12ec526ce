"""A server's responses are those of generation in process, and a server that cannot give them is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cst_bench.checkpoint import Checkpoint, CheckpointOptions, load_checkpoint
from cst_bench.checkpoint.chat import conversation
from cst_bench.checkpoint.completions import KEY, CompletedTokens, CompletionsClient
from cst_bench.checkpoint.engine import GeneratedTokens, may_begin, new_row
from cst_bench.checkpoint.engine_check import check_engine, reference_responses
from cst_bench.checkpoint.generation import Generator
from cst_bench.checkpoint.sampling import Sampling
from cst_bench.checkpoint.server_engine import ServerEngine, as_generated
from cst_bench.errors import UserError
from tests.checkpoints import PROMPTS, make_checkpoint, make_thinking_checkpoint
from tests.completions import Change, CompletionsServer, serving

GREEDY = Sampling(12)


@pytest.fixture(scope="module")
def checkpoint(llama: Path) -> Checkpoint:
    return load_checkpoint(CheckpointOptions(str(llama)))


@pytest.fixture(scope="module")
def shared(llama: Path) -> Iterator[CompletionsServer]:
    with serving(llama) as server:
        yield server


@pytest.fixture
def server(shared: CompletionsServer) -> Iterator[CompletionsServer]:
    """A server that does as it should, until a test changes it."""
    shared.requests.clear()
    yield shared
    shared.change = lambda server, request, reply: reply
    shared.names, shared.max_model_len, shared.key = ("served",), 2048, None


@contextmanager
def connected(server: CompletionsServer, checkpoint: Checkpoint, name: str | None = None) -> Iterator[ServerEngine]:
    client = CompletionsClient(server.url.removesuffix("/v1"), "--generate-url")
    engine = ServerEngine(client, checkpoint.chat, checkpoint.context_length)
    try:
        engine.connect(name)
        yield engine
    finally:
        engine.close()


def prompts_of(checkpoint: Checkpoint) -> list[list[int]]:
    return [checkpoint.chat.prompt_ids(conversation("You answer in a few words.", text)) for text in PROMPTS]


def responses(engine: ServerEngine, prompts: list[list[int]], sampling: Sampling) -> list[GeneratedTokens]:
    return [future.result() for future in [engine.submit(prompt, sampling) for prompt in prompts]]


def test_responses_are_those_in_process(checkpoint: Checkpoint, server: CompletionsServer) -> None:
    prompts = prompts_of(checkpoint)
    with Generator(checkpoint) as generator:
        expected = generator.generate(prompts, GREEDY)
    with connected(server, checkpoint) as engine:
        assert responses(engine, prompts, GREEDY) == expected
        check = check_engine(engine, prompts, reference_responses(checkpoint, prompts))
    assert check is not None
    assert (check.prompts, check.equal, check.equal_first) == (len(prompts),) * 3
    assert check.tokens == check.equal_tokens > 0
    assert len({response.stop_reason for response in expected}) > 1  # some stop by themselves
    assert [request["prompt"] for request in server.requests[: len(prompts)]] == unordered(prompts, server)


def unordered(prompts: list[list[int]], server: CompletionsServer) -> list[list[int]]:
    """The prompts in the order in which the server was asked."""
    asked = [request["prompt"] for request in server.requests[: len(prompts)]]
    return sorted(prompts, key=asked.index)


def test_every_parameter_of_sampling_is_sent(checkpoint: Checkpoint, server: CompletionsServer) -> None:
    with connected(server, checkpoint) as engine:
        sampling = Sampling(5, temperature=0.7, top_p=0.9, seed=3)
        first, second = (responses(engine, prompts_of(checkpoint)[:1], sampling) for _ in range(2))
    assert first == second
    (request, _) = server.requests
    sent = {key: request[key] for key in ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop_token_ids")}
    stops = sorted(checkpoint.chat.stop_ids)
    assert sent == {"max_tokens": 5, "temperature": 0.7, "top_p": 0.9, "top_k": -1, "seed": 3, "stop_token_ids": stops}
    # or a server takes them from generation_config.json
    assert (request["repetition_penalty"], request["min_p"], request["presence_penalty"]) == (1, 0, 0)


def test_thoughts_have_tokens_of_their_own(tmp_path: Path) -> None:
    folder = make_thinking_checkpoint(tmp_path / "thinker", template_opens=True)
    checkpoint = load_checkpoint(CheckpointOptions(str(folder)))
    prompts, sampling = prompts_of(checkpoint), Sampling(4, max_think_tokens=10)
    with Generator(checkpoint) as generator:
        expected = generator.generate(prompts, sampling)
    with serving(folder) as server, connected(server, checkpoint) as engine:
        assert responses(engine, prompts, sampling) == expected
    assert len({response.thought_tokens for response in expected}) > 1


@pytest.mark.parametrize(
    ("ids", "finish", "stop_reason"),
    [([5, 6], "stop", "stop"), ([], "stop", "stop"), ([5, 6], "length", "model_length")],
)
def test_a_response_ends_as_the_server_says_where_its_tokens_do_not(
    checkpoint: Checkpoint, ids: list[int], finish: str, stop_reason: str
) -> None:
    row = new_row(checkpoint.chat, 100, [1, 2, 3], GREEDY)
    response = as_generated(row, CompletedTokens(ids, finish, None, None), checkpoint.chat.stop_ids)
    assert (response.ids, response.stop_reason, response.generated_tokens) == (ids, stop_reason, len(ids))


def test_a_prompt_that_fills_the_server_s_context_is_not_sent(
    checkpoint: Checkpoint, server: CompletionsServer
) -> None:
    prompt = prompts_of(checkpoint)[0]
    server.max_model_len = len(prompt) + 3
    with connected(server, checkpoint) as engine:
        cut = engine.submit(prompt, GREEDY).result()
        full = engine.submit([*prompt, *prompt], GREEDY).result()
    assert cut.generated_tokens <= 3
    assert (full.ids, full.stop_reason) == ([], "model_length")
    assert len(server.requests) == 1


def test_a_failed_request_is_repeated(
    checkpoint: Checkpoint, server: CompletionsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cst_bench.checkpoint.server_engine._BACKOFF", 0.01)
    server.change = lambda server, request, reply: 503 if len(server.requests) < 3 else reply
    with connected(server, checkpoint) as engine:
        assert engine.submit(prompts_of(checkpoint)[0], GREEDY).result().generated_tokens > 0
    assert len(server.requests) == 3


def test_a_request_that_may_not_begin_is_not_sent(checkpoint: Checkpoint, server: CompletionsServer) -> None:
    token = may_begin.set(lambda: False)
    try:
        with connected(server, checkpoint) as engine:
            future = engine.submit(prompts_of(checkpoint)[0], GREEDY)
    finally:
        may_begin.reset(token)
    assert future.cancelled()
    assert server.requests == []


def test_the_key_is_sent_and_a_wrong_one_named(
    checkpoint: Checkpoint, server: CompletionsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "a-key-that-stays-secret"
    with (
        pytest.raises(UserError, match=rf"status 401: the key is not accepted.*{KEY}"),
        connected(server, checkpoint),
    ):
        pass
    monkeypatch.setenv(KEY, server.key)
    with connected(server, checkpoint):
        assert f"Bearer {server.key}" in server.keys


@pytest.mark.parametrize(
    ("names", "name", "message"),
    [
        (("one", "two"), None, "it serves one, two: give one with --generate-model"),
        (("one", "two"), "three", "it serves one, two: --generate-model 'three' is not one of them"),
        ((), None, "it does not say what it serves: give one with --generate-model"),
    ],
)
def test_the_model_must_be_clear(
    checkpoint: Checkpoint, server: CompletionsServer, names: tuple[str, ...], name: str | None, message: str
) -> None:
    server.names = names
    with pytest.raises(UserError, match=re.escape(message)), connected(server, checkpoint, name):
        pass


def without_ids(server: CompletionsServer, request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    """A server that knows the standard fields only."""
    del reply["choices"][0]["token_ids"], reply["choices"][0]["prompt_token_ids"]
    return reply


def as_text(server: CompletionsServer, request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    """A server that takes a list of ids for text."""
    reply["usage"]["prompt_tokens"] = 3 * len(request["prompt"])
    del reply["choices"][0]["prompt_token_ids"]
    return reply


def with_a_template(server: CompletionsServer, request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    """A server that changes prompts, and counts what it was sent."""
    reply["choices"][0]["prompt_token_ids"] = [*request["prompt"][1:], 7]
    return reply


def broken_off(server: CompletionsServer, request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    reply["choices"][0]["finish_reason"] = "abort"
    return reply


@pytest.mark.parametrize("compared", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without_ids,
            "did not complete a prompt of token ids (a reply without token ids): use one that takes and returns",
        ),
        (as_text, "does not take token ids as they are: it was sent a prompt of"),
        (with_a_template, "and has read others: use one that takes and returns them"),
        (broken_off, "(a response that was broken off)"),
        (lambda server, request, reply: 400, "did not complete a prompt of token ids (status 400)"),
        (lambda server, request, reply: 404, "could not be asked: status 404"),
    ],
)
def test_a_server_that_does_not_take_token_ids_is_refused(
    checkpoint: Checkpoint, server: CompletionsServer, change: Change, message: str, compared: bool
) -> None:
    prompts = prompts_of(checkpoint)[:2]
    references = reference_responses(checkpoint, prompts) if compared else None
    server.change = change
    with connected(server, checkpoint) as engine, pytest.raises(UserError, match=re.escape(message)):
        check_engine(engine, prompts, references)
    assert len(server.requests) == 1


def test_another_model_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    prompts = prompts_of(checkpoint)
    other = make_checkpoint(tmp_path / "other", seed=2, max_position_embeddings=2048)
    with serving(other) as server, connected(server, checkpoint) as engine:
        with pytest.raises(
            UserError, match=r"of 8 greedy responses, [5-8] differ from those in process in their first"
        ):
            check_engine(engine, prompts, reference_responses(checkpoint, prompts))
        assert check_engine(engine, prompts, None) is None


def test_a_few_differences_are_counted(checkpoint: Checkpoint, server: CompletionsServer) -> None:
    prompts = prompts_of(checkpoint)
    references = reference_responses(checkpoint, prompts)

    def rounded(server: CompletionsServer, request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        place = {tuple(prompts[0]): 0, tuple(prompts[1]): 2}.get(tuple(request["prompt"]))
        if place is not None:
            ids = reply["choices"][0]["token_ids"]
            ids[place] = next(token for token in range(50, 60) if token != ids[place])
        return reply

    server.change = rounded
    with connected(server, checkpoint) as engine:
        check = check_engine(engine, prompts, references)
    assert check is not None
    assert (check.prompts, check.equal, check.equal_first) == (8, 6, 7)
    lost = [len(response.ids) + (response.stop_reason == "stop") for response in references[:2]]
    assert check.tokens - check.equal_tokens == lost[0] + lost[1] - 2
