"""Inspect's view of a loaded checkpoint: the model provider `cst/…`.

`cst/tiny` is the embedded checkpoint; any other name is one that `cst-bench run` takes: `inspect eval
cst_bench/tiny_sealed --model cst/./my-model -M dtype=bfloat16`. Inspect's own `hf` provider waits for batches in
steps of seconds, adds a second BOS to templates that write one, and gives no stop reasons and a usage with padding.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import fields
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from cst_bench.checkpoint.chat import Message
from cst_bench.checkpoint.files import find_checkpoint
from cst_bench.checkpoint.gate import require, run_gate
from cst_bench.checkpoint.generation import Generation, Generator
from cst_bench.checkpoint.loading import Checkpoint, load_chat, load_weights
from cst_bench.checkpoint.options import CheckpointOptions
from cst_bench.checkpoint.sampling import Sampling
from cst_bench.errors import UserError, did_you_mean

_DEFAULT_MAX_TOKENS = 512
_UNSUPPORTED = (
    "stop_seqs",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "num_choices",
    "best_of",
    "logprobs",
    "response_schema",
)


class CstModelAPI(ModelAPI):
    """Generates with a checkpoint that is already loaded, or loads the one that the model name names."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  (Inspect's own signature)
        checkpoint: Checkpoint | None = None,
        **options: Any,
    ) -> None:
        """`options` are the fields of `CheckpointOptions` (Inspect's `-M key=value`)."""
        super().__init__(model_name, base_url, api_key, [], config)
        if checkpoint is None:
            files = find_checkpoint(_checkpoint_options(model_name, options))
            chat = load_chat(files)
            require(run_gate(chat), files.label)
            checkpoint = load_weights(files, chat)
        self._checkpoint = checkpoint
        self._generator = Generator(checkpoint)

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """One response. Raises `UserError` for generation settings that this provider doesn't have."""
        unsupported = [name for name in _UNSUPPORTED if getattr(config, name) is not None]
        if tools or unsupported:
            raise UserError(f"the cst provider has no {'tools' if tools else unsupported[0]}")
        prompt = self._checkpoint.chat.prompt_ids([_message(message) for message in input])
        sampling = Sampling(
            max_tokens=config.max_tokens or _DEFAULT_MAX_TOKENS,
            temperature=config.temperature or 0.0,
            top_p=1.0 if config.top_p is None else config.top_p,
            top_k=config.top_k,
            seed=secrets.randbits(31) if config.seed is None else config.seed,  # else all epochs would be the same
        )
        generation = await asyncio.wrap_future(self._generator.submit(prompt, sampling))
        return self._output(generation)

    def _output(self, generation: Generation) -> ModelOutput:
        message = ChatMessageAssistant(
            content=self._checkpoint.chat.response_text(generation.ids), model=self.model_name, source="generate"
        )
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=generation.stop_reason)],
            usage=ModelUsage(
                input_tokens=generation.prompt_tokens,
                output_tokens=generation.generated_tokens,
                total_tokens=generation.prompt_tokens + generation.generated_tokens,
            ),
        )

    def max_tokens(self) -> int | None:
        """Response length in tokens when a task doesn't say."""
        return _DEFAULT_MAX_TOKENS

    def max_connections(self) -> int:
        """Two batches' worth of requests, so that the next rows wait when places come free."""
        return 2 * self._generator.rows

    def connection_key(self) -> str:
        """One pool of connections for each loaded checkpoint."""
        return f"{self.model_name}-{id(self._checkpoint)}"

    async def count_text_tokens(self, text: str) -> int:
        """By the checkpoint's own tokenizer."""
        return len(self._checkpoint.tokenizer(text, add_special_tokens=False)["input_ids"])

    async def tokenize(self, text: str) -> list[int]:
        """By the checkpoint's own tokenizer, without special tokens."""
        ids: list[int] = self._checkpoint.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def close(self) -> None:
        """Stops the worker thread."""
        self._generator.close()


def inspect_model(checkpoint: Checkpoint) -> Model:
    """The loaded checkpoint as an Inspect model, to be closed by the caller."""
    model = get_model(f"cst/{checkpoint.label}", memoize=False, checkpoint=checkpoint)
    model.model_args.clear()  # they go into the log, where a loaded model has no place
    return model


def _checkpoint_options(model_name: str, given: dict[str, Any]) -> CheckpointOptions:
    known = {field.name for field in fields(CheckpointOptions)} - {"name"}
    for name in given.keys() - known:
        raise UserError(f"the cst provider has no option {name!r}: {did_you_mean(name, known)}")
    stops = given.get("stop_token", ())
    return CheckpointOptions(
        model_name, **{**given, "stop_token": (stops,) if isinstance(stops, str) else tuple(stops)}
    )


def _message(message: ChatMessage) -> Message:
    parts = [] if isinstance(message.content, str) else message.content
    for part in parts:
        if part.type not in ("text", "reasoning"):
            raise UserError(f"the cst provider takes text only, not {part.type}")
    return {"role": message.role, "content": message.text}
