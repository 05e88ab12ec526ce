from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from pathlib import Path
from threading import Event, Thread
from time import sleep

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cst_bench.checkpoint import Checkpoint, CheckpointOptions, load_checkpoint
from cst_bench.checkpoint.chat import conversation
from cst_bench.checkpoint.decoding import DecodeBatch, can_compact
from cst_bench.checkpoint.engine import GeneratedTokens, may_begin
from cst_bench.checkpoint.generation import Generator
from cst_bench.checkpoint.sampling import Sampling, SamplingRow, choose
from cst_bench.errors import UserError
from tests.checkpoints import PROMPTS, make_checkpoint

GREEDY = Sampling(max_tokens=24)
SAMPLED = Sampling(max_tokens=24, temperature=0.9, top_p=0.95, top_k=50, seed=3)


def prompts(checkpoint: Checkpoint) -> list[list[int]]:
    return [checkpoint.chat.prompt_ids(conversation("You answer in a few words.", user)) for user in PROMPTS]


def by_transformers(checkpoint: Checkpoint, prompt: list[int], max_tokens: int = 24) -> list[int]:
    """Return the tokens that `generate` gives to this prompt alone."""
    output = checkpoint.model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=max_tokens,
        eos_token_id=sorted(checkpoint.chat.stop_ids),
        pad_token_id=0,
    )
    tokens: list[int] = output[0, len(prompt) :].tolist()
    return tokens


@pytest.fixture
def rows_of_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows a batch, so that eight requests refill it."""
    monkeypatch.setattr("cst_bench.checkpoint.generation._ROWS", {"cpu": 3})


@pytest.fixture
def llama(loaded: dict[str, Checkpoint]) -> Checkpoint:
    return loaded["llama"]


@pytest.fixture
def model_calls(llama: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], None]]]:
    """Yield a list whose functions are called, one before each forward pass: the one seam of the fault tests."""
    faults: list[Callable[[], None]] = []
    forward = llama.model.forward

    @functools.wraps(forward)
    def faulty(*args: object, **kwargs: object) -> object:
        if faults:
            faults.pop(0)()
        return forward(*args, **kwargs)

    monkeypatch.setattr(llama.model, "forward", faulty)
    yield faults
    faults.clear()


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def out_of_cpu_memory() -> None:
    torch.empty(2**50)


def nothing() -> None:
    pass


ARCHITECTURES = ["llama", "mistral", "qwen2", "gemma", "gpt_neox", "mamba", "adapter"]


@pytest.mark.usefixtures("rows_of_3")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_tokens_are_those_of_transformers_row_by_row(loaded: dict[str, Checkpoint], name: str) -> None:
    checkpoint = loaded[name]
    asked = prompts(checkpoint)
    with Generator(checkpoint) as generator:
        responses = generator.generate(asked, GREEDY)
    expected = [by_transformers(checkpoint, prompt) for prompt in asked]
    for mine, theirs in zip(responses, expected):
        ended = theirs[-1] in checkpoint.chat.stop_ids
        assert mine.ids == (theirs[:-1] if ended else theirs)
        assert mine.stop_reason == ("stop" if ended else "max_tokens")
        assert mine.generated_tokens == len(theirs)
    assert [mine.prompt_tokens for mine in responses] == [len(prompt) for prompt in asked]
    assert len({tuple(theirs) for theirs in expected}) > 1


def test_llamas_responses_end_turns_and_run_out_of_tokens(llama: Checkpoint) -> None:
    with Generator(llama) as generator:
        reasons = {response.stop_reason for response in generator.generate(prompts(llama), Sampling(8))}
    assert reasons == {"stop", "max_tokens"}


def test_the_sliding_window_is_shorter_than_the_prompts(loaded: dict[str, Checkpoint]) -> None:
    checkpoint = loaded["mistral"]
    assert checkpoint.model.config.sliding_window < min(map(len, prompts(checkpoint)))


def test_an_adapter_changes_what_its_base_says(loaded: dict[str, Checkpoint]) -> None:
    asked = prompts(loaded["llama"])
    with Generator(loaded["llama"]) as base, Generator(loaded["adapter"]) as adapter:
        assert base.generate(asked, GREEDY) != adapter.generate(asked, GREEDY)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "gpt_neox"])
def test_prompt_ids_are_those_of_the_chat_template(loaded: dict[str, Checkpoint], name: str) -> None:
    checkpoint = loaded[name]
    messages = conversation("You answer in a few words.", PROMPTS[0])
    theirs = checkpoint.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
    assert checkpoint.chat.prompt_ids(messages) == theirs["input_ids"]


@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_sampled_responses_do_not_depend_on_batch_size_or_order(
    loaded: dict[str, Checkpoint], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = loaded[name]
    asked = prompts(checkpoint)
    seen = []
    for rows, order in ((1, range(8)), (3, range(8)), (8, range(8)), (3, [5, 2, 7, 0, 1, 6, 4, 3])):
        monkeypatch.setattr("cst_bench.checkpoint.generation._ROWS", {"cpu": rows})
        with Generator(checkpoint) as generator:
            responses = generator.generate([asked[index] for index in order], SAMPLED)
        seen.append(dict(zip(order, responses)))
    assert seen[0] == seen[1] == seen[2] == seen[3]
    with Generator(checkpoint) as generator:
        other_seed = generator.generate(asked, Sampling(24, temperature=0.9, top_p=0.95, top_k=50, seed=4))
        greedy = generator.generate(asked, GREEDY)
    assert list(seen[0].values()) not in (other_seed, greedy)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "gpt_neox"])
def test_greedy_responses_do_not_depend_on_batch_size_or_threads(
    loaded: dict[str, Checkpoint], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, threads = loaded[name], torch.get_num_threads()
    asked = prompts(checkpoint)
    seen = []
    try:
        for rows, count in ((1, 1), (3, 1), (8, 1), (8, 2), (3, 2)):
            monkeypatch.setattr("cst_bench.checkpoint.generation._ROWS", {"cpu": rows})
            torch.set_num_threads(count)
            with Generator(checkpoint) as generator:
                seen.append([response.ids for response in generator.generate(asked, GREEDY)])
    finally:
        torch.set_num_threads(threads)
    assert all(responses == seen[0] for responses in seen)


def test_prompts_draw_their_own_numbers() -> None:
    """Were they the same for all prompts, the responses' errors would not be independent of each other."""
    rows = [SamplingRow([prompt], Sampling(1, temperature=1.0)) for prompt in range(64)]
    assert len(set(choose(torch.zeros(64, 1000), rows))) > 32


def test_greedy_and_sampled_rows_share_a_batch(llama: Checkpoint) -> None:
    asked = prompts(llama)
    with Generator(llama) as generator:
        alone = [generator.submit(prompt, kind).result() for prompt in asked for kind in (GREEDY, SAMPLED)]
        futures = [generator.submit(prompt, kind) for prompt in asked for kind in (GREEDY, SAMPLED)]
        assert [future.result() for future in futures] == alone


def test_each_row_has_its_own_length(llama: Checkpoint) -> None:
    asked = prompts(llama)
    with Generator(llama) as generator:
        futures = [generator.submit(prompt, Sampling(length)) for length, prompt in enumerate(asked, 1)]
        responses = [future.result() for future in futures]
    for length, (prompt, mine) in enumerate(zip(asked, responses), 1):
        theirs = by_transformers(llama, prompt, length)
        assert mine.generated_tokens == len(theirs) <= length


@pytest.mark.parametrize("room", [0, 1, 4])
def test_responses_end_where_the_context_does(llama: Checkpoint, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = prompts(llama)[1]  # its response doesn't end by itself
    monkeypatch.setattr(llama, "context_length", len(prompt) + room)
    with Generator(llama) as generator:
        response = generator.generate([prompt], GREEDY)[0]
    assert response == GeneratedTokens(
        by_transformers(llama, prompt)[:room], "model_length", prompt_tokens=len(prompt), generated_tokens=room
    )


def test_a_response_that_ends_by_itself_in_the_last_place_has_stopped(
    llama: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = prompts(llama)[3]
    theirs = by_transformers(llama, prompt)
    monkeypatch.setattr(llama, "context_length", len(prompt) + len(theirs))
    with Generator(llama) as generator:
        assert generator.generate([prompt], GREEDY)[0].stop_reason == "stop"


@pytest.mark.usefixtures("rows_of_3")
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("calls_before", [0, 1, 4, 9])
@pytest.mark.parametrize("fault", [out_of_memory, out_of_cpu_memory])
def test_running_out_of_memory_loses_nothing(
    llama: Checkpoint,
    model_calls: list[Callable[[], None]],
    sampling: Sampling,
    calls_before: int,
    fault: Callable[[], None],
) -> None:
    asked = prompts(llama)
    with Generator(llama) as generator:
        expected = generator.generate(asked, sampling)
        model_calls.extend([*[nothing] * calls_before, fault])
        assert generator.generate(asked, sampling) == expected
        assert not model_calls
        assert generator.rows == 1


@pytest.mark.parametrize("method", ["_keep", "_merge"])
def test_running_out_of_memory_after_the_choice_of_tokens_loses_nothing(
    llama: Checkpoint, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that ended with that choice are done: they must not be decoded again."""
    asked = prompts(llama)
    with Generator(llama) as generator:
        for sampling in (Sampling(1), Sampling(9), GREEDY, SAMPLED):
            expected = generator.generate(asked, sampling)
            failures = [torch.OutOfMemoryError("CUDA out of memory")]
            real = getattr(DecodeBatch, method)

            def faulty(
                *args: object,
                real: Callable[..., object] = real,
                failures: list[torch.OutOfMemoryError] = failures,
            ) -> object:
                if failures:
                    raise failures.pop()
                return real(*args)

            with monkeypatch.context() as patched:
                patched.setattr(DecodeBatch, method, faulty)
                assert generator.generate(asked, sampling) == expected
            generator.rows = 3


@pytest.mark.usefixtures("rows_of_3")
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_running_out_of_memory_in_a_static_batch_loses_nothing(
    llama: Checkpoint,
    model_calls: list[Callable[[], None]],
    sampling: Sampling,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = prompts(llama)
    with Generator(llama) as generator:
        expected = generator.generate(asked, sampling)
    monkeypatch.setattr(llama.model, "_is_stateful", True, raising=False)
    with Generator(llama) as generator:
        model_calls.extend([*[nothing] * 4, out_of_memory])
        assert generator.generate(asked, sampling) == expected


def test_no_memory_for_a_single_row_is_an_error(llama: Checkpoint, model_calls: list[Callable[[], None]]) -> None:
    with Generator(llama) as generator:
        model_calls.extend([out_of_memory] * 20)
        with pytest.raises(torch.OutOfMemoryError):
            generator.generate(prompts(llama)[:2], GREEDY)


def test_a_fault_of_the_model_reaches_the_caller_and_the_generator_goes_on(
    llama: Checkpoint, model_calls: list[Callable[[], None]]
) -> None:
    def fault() -> None:
        raise RuntimeError("the weights are haunted")

    asked = prompts(llama)
    with Generator(llama) as generator:
        expected = generator.generate(asked, GREEDY)
        model_calls.extend([nothing, nothing, fault])
        with pytest.raises(RuntimeError, match="haunted"):
            generator.generate(asked, GREEDY)
        assert generator.generate(asked, GREEDY) == expected


@pytest.mark.usefixtures("rows_of_3")
def test_closing_cancels_what_waits(llama: Checkpoint, model_calls: list[Callable[[], None]]) -> None:
    reached, go_on = Event(), Event()

    def wait() -> None:
        reached.set()
        go_on.wait(60)

    generator = Generator(llama)
    model_calls.append(wait)
    futures = [generator.submit(prompt, GREEDY) for prompt in prompts(llama)]
    reached.wait(60)
    go_on.set()
    generator.close()
    assert all(future.done() for future in futures)
    with pytest.raises(CancelledError):
        futures[-1].result(0)
    generator.close()


def test_a_closed_generator_takes_no_more_requests(llama: Checkpoint) -> None:
    generator = Generator(llama)
    generator.close()
    with pytest.raises(RuntimeError, match="closed"):
        generator.submit(prompts(llama)[0], GREEDY)


@pytest.mark.usefixtures("rows_of_3")
@pytest.mark.parametrize("static", [False, True])
def test_requests_given_up_by_their_caller_do_no_harm_to_others(
    llama: Checkpoint, model_calls: list[Callable[[], None]], static: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inspect cancels when a sample's time limit is over: running requests (the first) and waiting ones."""
    asked = prompts(llama)
    if static:
        monkeypatch.setattr(llama.model, "_is_stateful", True, raising=False)
    with Generator(llama) as generator:
        expected = generator.generate(asked, GREEDY)
        futures: list[Future[GeneratedTokens]] = []

        def cancel() -> None:
            for index in (0, 4, 5, 6, 7):
                futures[index].cancel()

        hold = Event()

        def wait() -> None:
            hold.wait(60)

        model_calls.extend([wait, cancel])
        futures.extend(generator.submit(prompt, GREEDY) for prompt in asked)
        hold.set()
        assert [futures[index].result(60) for index in (1, 2, 3)] == expected[1:4]
        assert generator.generate(asked, GREEDY) == expected


def test_short_memory_means_fewer_rows_and_the_same_tokens(llama: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = prompts(llama)
    with Generator(llama) as generator:
        expected = generator.generate(asked, GREEDY)
    widths: list[int] = []
    forward = llama.model.forward

    @functools.wraps(forward)
    def counted(**inputs: torch.Tensor) -> object:
        widths.append(len(inputs["input_ids"]))
        return forward(**inputs)

    monkeypatch.setattr(llama.model, "forward", counted)
    monkeypatch.setattr("cst_bench.checkpoint.generation.token_capacity", lambda _: 170)
    with Generator(llama) as generator:
        assert generator.generate(asked, GREEDY) == expected
    assert max(widths) <= 3


def test_a_cache_that_cannot_be_cut_is_decoded_statically(loaded: dict[str, Checkpoint]) -> None:
    assert not can_compact(loaded["mamba"].model)
    assert all(can_compact(loaded[name].model) for name in ARCHITECTURES if name != "mamba")


@pytest.mark.usefixtures("rows_of_3")
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_static_batches_give_the_tokens_of_moving_ones(
    llama: Checkpoint, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prompts(llama)
    with Generator(llama) as generator:
        expected = generator.generate(asked, sampling)
    monkeypatch.setattr(llama.model, "_is_stateful", True, raising=False)
    with Generator(llama) as generator:
        assert generator.generate(asked, sampling) == expected


def test_static_batches_take_nothing_from_the_checkpoints_generation_config(
    llama: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen's has a repetition penalty; `transformers` fills what we leave open from there."""
    asked = prompts(llama)
    with Generator(llama) as generator:
        expected = generator.generate(asked, GREEDY)
    monkeypatch.setattr(llama.model, "_is_stateful", True, raising=False)
    for name, value in (("repetition_penalty", 5.0), ("no_repeat_ngram_size", 1), ("min_new_tokens", 20)):
        monkeypatch.setattr(llama.model.generation_config, name, value)
    with Generator(llama) as generator:
        assert generator.generate(asked, GREEDY) == expected


def test_a_context_can_be_filled_to_its_last_token(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(
        CheckpointOptions(name=str(make_checkpoint(tmp_path / "model", "gpt_neox", max_position_embeddings=40)))
    )
    asked = [prompt for prompt in prompts(checkpoint) if len(prompt) < 40]
    with Generator(checkpoint) as generator:
        responses = generator.generate(asked, Sampling(100))
    assert {response.stop_reason for response in responses} <= {"stop", "model_length"}
    assert max(response.prompt_tokens + response.generated_tokens for response in responses) == 40


def test_a_step_on_a_cpu_does_not_use_sdpa(llama: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = prompts(llama)
    batch = DecodeBatch(llama.model, frozenset())
    rows = [SamplingRow(prompt, Sampling(4)) for prompt in asked]
    batch.add(rows)

    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("SDPA was called")

    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.functional, "scaled_dot_product_attention", unexpected)
        while batch.rows:
            batch.step()
    for row in rows:
        theirs = by_transformers(llama, row.prompt, 4)
        assert row.generated[: len(theirs)] == theirs


def test_a_model_keeps_its_own_attention_after_a_step_that_fails(
    llama: Checkpoint, model_calls: list[Callable[[], None]]
) -> None:
    def fault() -> None:
        assert llama.model.config._attn_implementation != "sdpa"
        raise RuntimeError("the weights are haunted")

    with Generator(llama) as generator:
        generator.generate(prompts(llama), GREEDY)
        model_calls.extend([nothing, fault])
        with pytest.raises(RuntimeError, match="haunted"):
            generator.generate(prompts(llama), GREEDY)
    assert llama.model.config._attn_implementation == "sdpa"


@pytest.mark.usefixtures("rows_of_3")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_rows_together_get_the_probabilities_of_each_alone(tmp_path: Path, implementation: str, dtype: str) -> None:
    """Grouped heads, of a model whose attention is replaced and of one whose is not."""
    folder = make_checkpoint(tmp_path / "model", "llama", num_attention_heads=4, num_key_value_heads=2)
    checkpoint = load_checkpoint(CheckpointOptions(name=str(folder), dtype=dtype))
    checkpoint.model.set_attn_implementation(implementation)
    asked = prompts(checkpoint)
    forced = [[3 + index, 5, 7, 11] for index in range(len(asked))]
    seen: dict[int, list[torch.Tensor]] = {}

    def record(logits: torch.Tensor, rows: Sequence[SamplingRow]) -> list[int]:
        tokens = []
        for row, probabilities in zip(rows, logits.float().softmax(-1)):
            index = asked.index(row.prompt)
            seen.setdefault(index, []).append(probabilities)
            tokens.append(forced[index][len(seen[index]) - 1])
        return tokens

    batch = DecodeBatch(checkpoint.model, frozenset(), record)
    batch.add([SamplingRow(prompt, Sampling(4)) for prompt in asked[:5]])
    batch.step()
    batch.add([SamplingRow(prompt, Sampling(4)) for prompt in asked[5:]])
    while batch.rows:
        batch.step()
    for index, prompt in enumerate(asked):
        ids = torch.tensor([prompt + forced[index][:3]])
        with torch.inference_mode():
            alone = checkpoint.model(input_ids=ids).logits[0, -4:].float().softmax(-1)
        difference = (torch.stack(seen[index]) - alone).abs().sum(-1).max()
        assert difference < (1e-4 if dtype == "float32" else 0.1)


LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=12)


@given(LOGITS, st.floats(0.01, 5), st.integers(0, 2**32))
def test_top_k_of_one_is_greedy(logits: list[float], temperature: float, seed: int) -> None:
    row = SamplingRow([1], Sampling(1, temperature=temperature, top_k=1, seed=seed))
    tensor = torch.tensor([logits])
    assert choose(tensor, [row]) == choose(tensor, [SamplingRow([1], Sampling(1))]) == [int(tensor.argmax())]


@given(LOGITS, st.floats(0.05, 1), st.integers(1, 12), st.integers(0, 2**32))
def test_no_token_outside_top_p_and_top_k_is_chosen(logits: list[float], top_p: float, top_k: int, seed: int) -> None:
    tensor = torch.tensor([logits])
    probabilities = tensor.softmax(-1).double()[0].tolist()
    chosen = choose(tensor, [SamplingRow([1], Sampling(1, temperature=1.0, top_p=top_p, top_k=top_k, seed=seed))])[0]
    likelier = [value for value in probabilities if value > probabilities[chosen]]
    assert sum(likelier) < top_p + 1e-9
    assert len(likelier) < top_k


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=6), st.floats(0.5, 2))
def test_tokens_are_as_frequent_as_probable(logits: list[float], temperature: float) -> None:
    n = 4000
    rows = [SamplingRow([1], Sampling(1, temperature=temperature, seed=seed)) for seed in range(n)]
    chosen = choose(torch.tensor([logits]).expand(n, -1), rows)
    for token, probability in enumerate((torch.tensor(logits) / temperature).softmax(-1).tolist()):
        deviation = (probability * (1 - probability) / n) ** 0.5
        assert abs(chosen.count(token) / n - probability) < 5 * deviation + 1e-9


def test_rows_with_and_without_cuts_are_sampled_side_by_side() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).expand(3, -1)
    for seed in range(50):
        kinds = (Sampling(1, 1.0, seed=seed), Sampling(1, 1.0, top_k=2, seed=seed), Sampling(1))
        rows = [SamplingRow([1], kind) for kind in kinds]
        together = choose(logits, rows)
        alone = [choose(logits[:1], [SamplingRow([1], kind)])[0] for kind in kinds]
        assert together[1:] == alone[1:]
        assert together[1] in (2, 3)
        assert together[2] == 3


@pytest.mark.parametrize(
    "wrong", [{"max_tokens": 0}, {"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": 0}], ids=str
)
def test_senseless_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        Sampling(**{"max_tokens": 1, **wrong})  # type: ignore[arg-type]


def test_closing_ends_a_static_batch_within_a_step(
    llama: Checkpoint, model_calls: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama.model, "_is_stateful", True, raising=False)
    reached, go_on = Event(), Event()

    def wait() -> None:
        reached.set()
        go_on.wait(60)

    generator = Generator(llama)
    asked = prompts(llama)[:1]
    generator.generate(asked, GREEDY)  # with the check of how it is to be decoded
    model_calls.extend([wait, *[nothing] * 24])
    future = generator.submit(asked[0], GREEDY)
    assert reached.wait(60)
    closing = Thread(target=generator.close)
    closing.start()
    while not _is_closed(generator, asked[0]):
        sleep(0.01)
    go_on.set()
    closing.join(60)
    assert len(model_calls) == 24
    with pytest.raises(RuntimeError, match="closed"):
        future.result(0)


def _is_closed(generator: Generator, prompt: list[int]) -> bool:
    try:
        generator.submit(prompt, GREEDY)
    except RuntimeError:
        return True
    return False


@pytest.mark.usefixtures("rows_of_3")
def test_a_request_that_may_not_begin_is_left_and_the_others_are_answered(llama: Checkpoint) -> None:
    asked = prompts(llama)
    with Generator(llama) as generator:
        expected = generator.generate(asked, GREEDY)
        refused = []
        for prompt in asked[:4]:
            token = may_begin.set(lambda: False)
            refused.append(generator.submit(prompt, GREEDY))
            may_begin.reset(token)
        assert generator.generate(asked, GREEDY) == expected
        assert not any(future.done() for future in refused)
