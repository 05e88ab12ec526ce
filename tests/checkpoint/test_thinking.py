"""Checkpoints that think: real ones with random weights, which make the markers of a thought likely tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from inspect_ai.model import ChatMessageUser, ContentReasoning, ContentText, GenerateConfig, ModelOutput, get_model

from cst_bench.checkpoint import Checkpoint, CheckpointOptions, find_checkpoint, load_chat, load_checkpoint
from cst_bench.checkpoint.chat import Chat, conversation
from cst_bench.checkpoint.decoding import decode_static
from cst_bench.checkpoint.gate import require, run_gate
from cst_bench.checkpoint.generation import Generator
from cst_bench.checkpoint.provider import inspect_model
from cst_bench.checkpoint.sampling import Sampling, SamplingRow
from cst_bench.checkpoint.thoughts import DEFAULT_THINK_TOKENS, KNOWN_THINK_TOKENS, ThinkTokens
from cst_bench.errors import GateError, UserError
from cst_bench.preferences.training_rows import TrainingRow
from cst_bench.tuning.dataset import tokenize
from tests.checkpoints import PROMPTS, make_checkpoint, make_thinking_checkpoint

SYSTEM = "You answer in a few words."
ANSWER, THOUGHT = 12, 20
"""Most tokens of an answer and of a thought."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("thinking")
    return {
        "opened": make_thinking_checkpoint(root / "opened", template_opens=True, seed=3),
        "special": make_thinking_checkpoint(root / "special", template_opens=True, special=True, seed=3),
        "by itself": make_thinking_checkpoint(root / "by-itself", template_opens=False, seed=3),
    }


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> dict[str, Checkpoint]:
    return {name: load_checkpoint(CheckpointOptions(str(folder))) for name, folder in folders.items()}


def ids(chat: Chat, text: str) -> list[int]:
    encoded: list[int] = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    return encoded


@pytest.mark.parametrize("pair", KNOWN_THINK_TOKENS)
def test_markers_are_found_in_the_template(pair: ThinkTokens, tmp_path: Path) -> None:
    folder = make_thinking_checkpoint(tmp_path / "model", template_opens=False, think_tokens=pair)
    assert load_chat(find_checkpoint(CheckpointOptions(str(folder)))).think_tokens == pair


def test_markers_are_those_given_and_a_plain_checkpoint_has_none(folders: dict[str, Path], tmp_path: Path) -> None:
    options = CheckpointOptions(str(folders["opened"]), think_tokens=("<a>", "</a>"))
    assert load_chat(find_checkpoint(options)).think_tokens == ("<a>", "</a>")
    plain = make_checkpoint(tmp_path / "plain")
    assert load_chat(find_checkpoint(CheckpointOptions(str(plain)))).think_tokens is None
    with pytest.raises(UserError, match="two different texts"):
        CheckpointOptions(think_tokens=("<a>", "<a>"))
    with pytest.raises(UserError, match="max_think_tokens must be at least 1"):
        CheckpointOptions(max_think_tokens=0)


@pytest.mark.parametrize("name", ["opened", "special"])
def test_a_template_that_opens_a_thought_is_evaluated_and_not_trained(loaded: dict[str, Checkpoint], name: str) -> None:
    chat = loaded[name].chat
    checks = run_gate(chat)
    require(checks, name)
    assert {check.name: check.state for check in checks if check.state != "ok"} == {"training prefix": "warning"}
    assert chat.opens_thought(chat.prompt_ids(conversation(SYSTEM, "Hello!")))
    row = TrainingRow(SYSTEM, "Hello!", "Yes.", "No.", "task", "S1")
    with pytest.raises(GateError, match="renders the prompt differently once it is answered"):
        tokenize([row], chat, None, "refuse")


def test_a_model_that_opens_its_thoughts_itself_passes_with_no_warning(loaded: dict[str, Checkpoint]) -> None:
    chat = loaded["by itself"].chat
    assert {check.state for check in run_gate(chat)} == {"ok"}
    assert not chat.opens_thought(chat.prompt_ids(conversation(SYSTEM, "Hello! <think>")))


@pytest.mark.parametrize("name", ["opened", "special", "by itself"])
def test_thoughts_and_answers_have_tokens_of_their_own(loaded: dict[str, Checkpoint], name: str) -> None:
    checkpoint = loaded[name]
    prompts = [checkpoint.chat.prompt_ids(conversation(SYSTEM, prompt)) for prompt in PROMPTS]
    with Generator(checkpoint) as generator:
        limited = generator.generate(prompts, Sampling(ANSWER, max_think_tokens=THOUGHT))
        unlimited = generator.generate(prompts, Sampling(100))
    for prompt, response, whole in zip(prompts, limited, unlimited):
        split = checkpoint.chat.response(response.ids, opened=checkpoint.chat.opens_thought(prompt))
        assert response.ids == whole.ids[: len(response.ids)]
        assert response.thought_tokens <= THOUGHT
        assert response.generated_tokens - response.thought_tokens <= ANSWER
        assert not any(marker in split.answer for marker in DEFAULT_THINK_TOKENS)
        if response.stop_reason == "max_tokens":
            full = (response.thought_tokens, response.generated_tokens - response.thought_tokens)
            assert full in ((THOUGHT, 0), (response.thought_tokens, ANSWER))
            assert split.unfinished or full[1] == ANSWER
    if name == "special":  # the weights that think longest
        assert max(response.thought_tokens for response in limited) == THOUGHT


def test_static_batches_have_the_same_limits(loaded: dict[str, Checkpoint]) -> None:
    checkpoint = loaded["special"]
    prompts = [checkpoint.chat.prompt_ids(conversation(SYSTEM, prompt)) for prompt in PROMPTS]
    sampling = Sampling(ANSWER, max_think_tokens=THOUGHT)
    with Generator(checkpoint) as generator:
        expected = [response.thought_tokens for response in generator.generate(prompts, sampling)]
    rows = [SamplingRow(prompt, sampling, markers=checkpoint.chat) for prompt in prompts]
    decode_static(checkpoint.model, rows, checkpoint.chat.stop_ids, "padded")
    assert [row.thought_tokens for row in rows] == expected
    assert all(row.ended(checkpoint.chat.stop_ids) for row in rows)


def test_the_context_ends_thoughts_and_answers_alike(tmp_path: Path) -> None:
    folder = make_thinking_checkpoint(
        tmp_path / "model", template_opens=True, special=True, seed=3, max_position_embeddings=60
    )
    checkpoint = load_checkpoint(CheckpointOptions(str(folder)))
    prompt = checkpoint.chat.prompt_ids(conversation(SYSTEM, PROMPTS[0]))
    with Generator(checkpoint) as generator:
        (response,) = generator.generate([prompt], Sampling(ANSWER, max_think_tokens=500))
    assert (response.stop_reason, response.generated_tokens) == ("model_length", 60 - len(prompt))


def grown(chat: Chat, prompt: Sequence[int], response: Sequence[int], sampling: Sampling) -> SamplingRow:
    """Return a row that gets a response's tokens until it has ended."""
    row = SamplingRow(list(prompt), sampling, markers=chat)
    for token in response:
        row.append(token)
        if row.ended(chat.stop_ids):
            break
    return row


def test_a_thought_that_the_model_opens_has_its_own_tokens(loaded: dict[str, Checkpoint]) -> None:
    chat = loaded["by itself"].chat
    prompt = chat.prompt_ids(conversation(SYSTEM, "Hello!"))
    sampling = Sampling(5, max_think_tokens=30)
    words = ids(chat, "abcdefghijklmnopqrstuvwxyz" * 3)
    thought = ids(chat, "<think>hm hm hm</think>")
    assert len(grown(chat, prompt, words, sampling).generated) == 5
    row = grown(chat, prompt, [*thought, *words], sampling)
    assert (row.thought_tokens, len(row.generated)) == (len(thought), len(thought) + 5)
    row = grown(chat, prompt, [*ids(chat, "<think>"), *words], sampling)
    assert (row.thought_tokens, len(row.generated)) == (30, 30)


def test_markers_of_several_tokens_are_seen(tmp_path: Path) -> None:
    """As gpt-oss has them; and markers that a tokenizer has no tokens for."""
    folder = make_checkpoint(tmp_path / "plain")
    for pair in (("<reasoning>", "</reasoning>"), ("<|im_start|>thought", "<|im_start|>answer")):
        chat = load_chat(find_checkpoint(CheckpointOptions(str(folder), think_tokens=pair)))
        thought = ids(chat, f"{pair[0]}hm hm hm{pair[1]}")
        words = ids(chat, "abcdefghijklmnopqrstuvwxyz")
        row = grown(chat, [1], [*thought, *words], Sampling(20, max_think_tokens=90))
        assert (row.thought_tokens, len(row.generated)) == (len(thought), len(thought) + 20)
        split = chat.response([*thought, *words])
        assert (split.answer, split.thoughts) == ("abcdefghijklmnopqrstuvwxyz", ("hm hm hm",))


def test_inspect_gets_thoughts_beside_the_answer(loaded: dict[str, Checkpoint]) -> None:
    checkpoint = loaded["opened"]
    model = inspect_model(checkpoint)

    async def outputs() -> list[ModelOutput]:
        config = GenerateConfig(max_tokens=ANSWER)
        return [await model.generate([ChatMessageUser(content=prompt)], config=config) for prompt in PROMPTS]

    answers = 0
    for output in asyncio.run(outputs()):
        content = output.choices[0].message.content
        assert isinstance(content, list)
        assert isinstance(content[0], ContentReasoning)
        assert isinstance(content[-1], ContentText)
        assert content[-1].text == output.completion
        assert output.usage is not None
        assert output.usage.reasoning_tokens
        answers += bool(output.completion)
    assert answers
    model.api.close()


def test_options_come_as_model_arguments(folders: dict[str, Path]) -> None:
    model = get_model(
        f"cst/{folders['opened']}", memoize=False, think_tokens=["<think>", "</think>"], max_think_tokens=3
    )
    output = asyncio.run(model.generate("Hello!", config=GenerateConfig(max_tokens=5)))
    assert output.usage is not None
    assert (output.usage.reasoning_tokens or 0) <= 3
    model.api.close()
