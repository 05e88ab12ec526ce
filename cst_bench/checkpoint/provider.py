"""Inspect model provider `cst/…` for checkpoints.

`cst/tiny` is the embedded checkpoint; any other name is one that `cst-bench run` accepts: `inspect eval
cst_bench/tiny_sealed --model cst/./my-model -M dtype=bfloat16`. Inspect's own `hf` provider waits for batches in
steps of seconds, adds a second BOS to templates that write one, reports no stop reasons, and counts padding as usage.
"""

from __future__ import annotations

import asyncio
import random
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

from cst_bench.checkpoint.chat import Chat, Message
from cst_bench.checkpoint.checkpoint_files import find_checkpoint
from cst_bench.checkpoint.engine import GeneratedTokens, Responder
from cst_bench.checkpoint.gate import require, run_gate
from cst_bench.checkpoint.generation import Generator
from cst_bench.checkpoint.loading import Checkpoint, load_chat, load_weights
from cst_bench.checkpoint.options import CheckpointOptions
from cst_bench.checkpoint.sampling import Sampling
from cst_bench.checkpoint.thought_messages import message_content
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
    """Model provider over a responder, or over the checkpoint that the model name refers to."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  (Inspect's own signature)
        responder: Responder | None = None,
        **options: Any,
    ) -> None:
        """Load the checkpoint if no responder is passed; `options` are fields of `CheckpointOptions` (`-M key=value`).

        Raises:
            UserError: an option is unknown, or the checkpoint could not be loaded.
            GateError: its chat template fails the gate.
        """
        super().__init__(model_name, base_url, api_key, [], config)
        if responder is None:
            files = find_checkpoint(_checkpoint_options(model_name, options))
            chat = load_chat(files)
            require(run_gate(chat), files.label)
            responder = _in_process(load_weights(files, chat))
        self._responder = responder
        self._seeds = random.Random()  # the system's random numbers can take longer than a decoding step

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Generate one response.

        Raises:
            UserError: the request has tools, images or generation settings that this provider does not support.
        """
        unsupported = [name for name in _UNSUPPORTED if getattr(config, name) is not None]
        if tools or unsupported:
            raise UserError(f"the cst provider does not support {'tools' if tools else unsupported[0]}")
        prompt = self._chat.prompt_ids([_message(message) for message in input])
        sampling = Sampling(
            max_tokens=config.max_tokens or _DEFAULT_MAX_TOKENS,
            temperature=config.temperature or 0.0,
            top_p=1.0 if config.top_p is None else config.top_p,
            top_k=config.top_k,
            seed=self._seeds.getrandbits(31) if config.seed is None else config.seed,  # or all epochs would be equal
            max_think_tokens=self._responder.max_think_tokens,
        )
        opened = self._chat.opens_thought(prompt)
        return self._output(await asyncio.wrap_future(self._responder.engine.submit(prompt, sampling)), opened)

    @property
    def _chat(self) -> Chat:
        return self._responder.chat

    def _output(self, response: GeneratedTokens, opened: bool) -> ModelOutput:
        content = message_content(self._chat.response(response.ids, opened=opened))
        message = ChatMessageAssistant(content=content, model=self.model_name, source="generate")
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=response.stop_reason)],
            usage=ModelUsage(
                input_tokens=response.prompt_tokens,
                output_tokens=response.generated_tokens,
                total_tokens=response.prompt_tokens + response.generated_tokens,
                reasoning_tokens=response.thought_tokens or None,
            ),
        )

    def max_tokens(self) -> int | None:
        """Return the default response length in tokens."""
        return _DEFAULT_MAX_TOKENS

    def max_connections(self) -> int:
        """Return the size of two batches, so that rows are waiting when places become free."""
        return 2 * self._responder.engine.rows

    def connection_key(self) -> str:
        """Return a key that gives each responder its own pool of connections."""
        return f"{self.model_name}-{id(self._responder)}"

    async def count_text_tokens(self, text: str) -> int:
        """Count tokens with the checkpoint's tokenizer."""
        return len(self._chat.tokenizer(text, add_special_tokens=False)["input_ids"])

    async def tokenize(self, text: str) -> list[int]:
        """Tokenize with the checkpoint's tokenizer, without special tokens."""
        ids: list[int] = self._chat.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def close(self) -> None:
        """Stop the engine."""
        self._responder.engine.close()


def inspect_model(checkpoint: Checkpoint) -> Model:
    """Wrap a loaded checkpoint as an Inspect model; the caller closes it."""
    return responder_model(checkpoint.label, _in_process(checkpoint))


def responder_model(label: str, responder: Responder) -> Model:
    """Wrap a responder as an Inspect model; the caller closes it."""
    model = get_model(f"cst/{label}", memoize=False, responder=responder)
    model.model_args.clear()  # they would be written to the log, loaded model included
    return model


def _in_process(checkpoint: Checkpoint) -> Responder:
    return Responder(checkpoint.chat, Generator(checkpoint), checkpoint.max_think_tokens)


def _checkpoint_options(model_name: str, options: dict[str, Any]) -> CheckpointOptions:
    known = {field.name for field in fields(CheckpointOptions)} - {"name"}
    for name in options.keys() - known:
        raise UserError(f"the cst provider has no option {name!r}: {did_you_mean(name, known)}")
    stops = options.get("stop_token", ())
    given = {**options, "stop_token": (stops,) if isinstance(stops, str) else tuple(stops)}
    if "think_tokens" in options:
        given["think_tokens"] = tuple(options["think_tokens"])
    return CheckpointOptions(model_name, **given)


def _message(message: ChatMessage) -> Message:
    parts = [] if isinstance(message.content, str) else message.content
    for part in parts:
        if part.type not in ("text", "reasoning"):
            raise UserError(f"the cst provider supports text only, not {part.type}")
    return {"role": message.role, "content": message.text}
