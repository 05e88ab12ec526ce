from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import (
    ChatMessage,
    ChatMessageSystem,
    ChatMessageUser,
    ContentImage,
    ContentText,
    GenerateConfig,
    Model,
    ModelOutput,
    get_model,
)
from inspect_ai.solver import generate
from inspect_ai.tool import ToolInfo

from cst_bench.checkpoint import Checkpoint
from cst_bench.checkpoint.chat import conversation
from cst_bench.checkpoint.generation import Generator
from cst_bench.checkpoint.provider import inspect_model
from cst_bench.checkpoint.sampling import Sampling
from cst_bench.errors import GateError, UserError
from tests.checkpoints import PROMPTS

SYSTEM = "You answer in a few words."
INPUT: list[ChatMessage] = [ChatMessageSystem(content=SYSTEM), ChatMessageUser(content=PROMPTS[0])]


def task(repeats: int = 1) -> Task:
    samples = [
        Sample(input=[ChatMessageSystem(content=SYSTEM), ChatMessageUser(content=prompt)], id=f"{repeat}-{index}")
        for repeat in range(repeats)
        for index, prompt in enumerate(PROMPTS)
    ]
    return Task(dataset=MemoryDataset(samples), solver=generate(), config=GenerateConfig(max_tokens=12))


def run(model: Model, folder: Path, repeats: int = 1) -> EvalLog:
    log = inspect_eval(task(repeats), model=model, log_dir=str(folder), display="none")[0]
    assert log.status == "success", log.error
    return log


def outputs(log: EvalLog) -> list[ModelOutput]:
    assert log.samples is not None
    return [sample.output for sample in sorted(log.samples, key=lambda sample: str(sample.id))]


def expected(checkpoint: Checkpoint) -> list[tuple[str, str, int, int]]:
    """Return text, stop reason and usage from the generator itself."""
    prompts = [checkpoint.chat.prompt_ids(conversation(SYSTEM, prompt)) for prompt in PROMPTS]
    with Generator(checkpoint) as generator:
        responses = generator.generate(prompts, Sampling(12))
    return [
        (checkpoint.chat.response(tokens.ids).answer, tokens.stop_reason, tokens.prompt_tokens, tokens.generated_tokens)
        for tokens in responses
    ]


def seen(output: ModelOutput) -> tuple[str, str, int, int]:
    assert output.usage is not None
    assert output.usage.total_tokens == output.usage.input_tokens + output.usage.output_tokens
    return output.completion, output.stop_reason, output.usage.input_tokens, output.usage.output_tokens


def ask(
    model: Model, messages: list[ChatMessage] = INPUT, tools: Sequence[ToolInfo] = (), **config: Any
) -> ModelOutput:
    return asyncio.run(model.generate(messages, tools=list(tools), config=GenerateConfig(max_tokens=12, **config)))


def test_an_evaluation_gives_text_stop_reason_and_usage(loaded: dict[str, Checkpoint], tmp_path: Path) -> None:
    model = inspect_model(loaded["llama"])
    log = run(model, tmp_path)
    model.api.close()
    assert [seen(output) for output in outputs(log)] == expected(loaded["llama"])
    assert {output.stop_reason for output in outputs(log)} == {"stop", "max_tokens"}
    assert log.eval.model == "cst/llama"
    assert log.eval.model_args == {}


def test_a_folder_can_be_named_to_inspect(
    folders: dict[str, Path], loaded: dict[str, Checkpoint], tmp_path: Path
) -> None:
    model = get_model(f"cst/{folders['llama']}")
    log = run(model, tmp_path)
    model.api.close()
    assert [seen(output) for output in outputs(log)] == expected(loaded["llama"])


def test_options_come_as_model_arguments(folders: dict[str, Path], loaded: dict[str, Checkpoint]) -> None:
    model = get_model(f"cst/{folders['gemma']}", system_as="user-prefix", stop_token="<eos>", batch_size=2)
    assert seen(ask(model)) == expected(loaded["gemma"])[0]
    assert model.api.max_connections() == 4
    model.api.close()


def test_the_gate_stops_a_named_folder(folders: dict[str, Path]) -> None:
    with pytest.raises(GateError, match="System role not supported"):
        get_model(f"cst/{folders['gemma']}", memoize=False)


def test_an_unknown_option_is_told(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="the cst provider has no option 'stop_tokens': did you mean stop_token"):
        get_model(f"cst/{folders['llama']}", memoize=False, stop_tokens="x")


def test_two_checkpoints_answer_their_own_requests(loaded: dict[str, Checkpoint], tmp_path: Path) -> None:
    models = [inspect_model(loaded[name]) for name in ("llama", "qwen2", "adapter")]

    async def all_at_once() -> list[list[ModelOutput]]:
        config = GenerateConfig(max_tokens=12)
        rounds = [
            model.generate([ChatMessageSystem(content=SYSTEM), ChatMessageUser(content=prompt)], config=config)
            for prompt in PROMPTS
            for model in models
        ]
        answers = await asyncio.gather(*rounds)
        return [answers[index :: len(models)] for index in range(len(models))]

    for name, answers in zip(("llama", "qwen2", "adapter"), asyncio.run(all_at_once())):
        assert [seen(output) for output in answers] == expected(loaded[name])
    for model in models:
        model.api.close()


def test_two_models_in_one_evaluation(loaded: dict[str, Checkpoint], tmp_path: Path) -> None:
    models = [inspect_model(loaded[name]) for name in ("llama", "qwen2")]
    logs = inspect_eval(task(), model=models, log_dir=str(tmp_path), display="none", max_tasks=2)
    for log in logs:
        assert [seen(output) for output in outputs(log)] == expected(loaded[log.eval.model.partition("/")[2]])
    for model in models:
        model.api.close()


def test_many_requests_at_once(loaded: dict[str, Checkpoint], tmp_path: Path) -> None:
    model = inspect_model(loaded["llama"])
    log = run(model, tmp_path, repeats=25)
    model.api.close()
    assert [seen(output) for output in outputs(log)] == expected(loaded["llama"]) * 25


def test_a_request_that_is_given_up_leaves_the_others_alone(loaded: dict[str, Checkpoint]) -> None:
    model = inspect_model(loaded["llama"])

    async def one_given_up() -> ModelOutput:
        tasks = [
            asyncio.create_task(model.generate(INPUT, config=GenerateConfig(max_tokens=length))) for length in (400, 12)
        ]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        return await tasks[1]

    assert seen(asyncio.run(one_given_up())) == expected(loaded["llama"])[0]
    model.api.close()


@pytest.mark.parametrize(
    "config",
    [
        {"stop_seqs": ["x"]},
        {"num_choices": 2},
        {"logprobs": True},
        {"frequency_penalty": 0.5},
        {"logit_bias": {1: 2.0}},
    ],
    ids=lambda config: next(iter(config)),
)
def test_settings_that_would_be_ignored_are_refused(loaded: dict[str, Checkpoint], config: dict[str, Any]) -> None:
    model = inspect_model(loaded["llama"])
    with pytest.raises(UserError, match=f"the cst provider does not support {next(iter(config))}"):
        ask(model, **config)
    model.api.close()


def test_tools_are_refused(loaded: dict[str, Checkpoint]) -> None:
    model = inspect_model(loaded["llama"])
    with pytest.raises(UserError, match="the cst provider does not support tools"):
        ask(model, tools=[ToolInfo(name="look", description="Looks.")])
    model.api.close()


def test_images_are_refused(loaded: dict[str, Checkpoint]) -> None:
    model = inspect_model(loaded["llama"])
    image = ContentImage(image="data:image/png;base64,iVBORw0KGgo=")
    with pytest.raises(UserError, match="the cst provider supports text only, not image"):
        ask(model, [ChatMessageUser(content=[ContentText(text="What is this?"), image])])
    assert (
        seen(ask(model, [INPUT[0], ChatMessageUser(content=[ContentText(text=PROMPTS[0])])]))
        == (expected(loaded["llama"])[0])
    )
    model.api.close()


def test_sampling_follows_the_seed(loaded: dict[str, Checkpoint]) -> None:
    model = inspect_model(loaded["llama"])
    texts = [ask(model, temperature=1.0, seed=seed).completion for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    model.api.close()


def test_epochs_without_a_seed_differ(loaded: dict[str, Checkpoint]) -> None:
    model = inspect_model(loaded["llama"])
    assert len({ask(model, temperature=1.0).completion for _ in range(4)}) > 1
    assert len({ask(model, temperature=0.0).completion for _ in range(4)}) == 1
    model.api.close()


def test_a_named_folder_can_be_evaluated_again(folders: dict[str, Path], tmp_path: Path) -> None:
    """Inspect keeps the models that it made; a second evaluation must not meet a closed one."""
    model = get_model(f"cst/{folders['qwen2']}")
    logs = [run(get_model(f"cst/{folders['qwen2']}"), tmp_path) for _ in range(2)]
    model.api.close()
    assert [seen(output) for output in outputs(logs[0])] == [seen(output) for output in outputs(logs[1])]


def test_tokens_are_counted_by_the_checkpoints_tokenizer(loaded: dict[str, Checkpoint]) -> None:
    model = inspect_model(loaded["mistral"])
    ids = asyncio.run(model.api.tokenize(PROMPTS[0]))
    assert ids == loaded["mistral"].tokenizer.encode(PROMPTS[0], add_special_tokens=False)
    assert asyncio.run(model.api.count_text_tokens(PROMPTS[0])) == len(ids)
    model.api.close()
