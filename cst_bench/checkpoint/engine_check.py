"""Compare a server with the checkpoint that it is said to serve: greedy responses to a few of the run's own prompts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from cst_bench.checkpoint.call_errors import status_of
from cst_bench.checkpoint.completions import CompletedTokens
from cst_bench.checkpoint.decoding import decode_static
from cst_bench.checkpoint.endpoint import UnreadableReply
from cst_bench.checkpoint.engine import GeneratedTokens, ended_response, new_row
from cst_bench.checkpoint.loading import Checkpoint
from cst_bench.checkpoint.sampling import Sampling
from cst_bench.checkpoint.server_engine import ServerEngine, as_generated
from cst_bench.errors import UserError
from cst_bench.record import EngineCheck

PROMPTS = 8
"""Prompts that are compared."""
TOKENS = 32
"""Most tokens of each response."""
_LEAST_EQUAL = 0.5
"""Share of prompts whose first token must be equal. Rounding changes few of them, another model most."""
_OTHERS = "use one that takes and returns them, such as vLLM (0.10.2 or newer) or SGLang"
_END = -1
"""Stands for the token that ends a response."""


def reference_responses(checkpoint: Checkpoint, prompts: Sequence[list[int]]) -> list[GeneratedTokens]:
    """Return what transformers' `generate` gives greedily for each prompt alone."""
    stop_ids = checkpoint.chat.stop_ids
    rows = [new_row(checkpoint.chat, checkpoint.context_length, prompt, Sampling(TOKENS)) for prompt in prompts]
    decode_static(checkpoint.model, rows, stop_ids, "alone")
    return [ended_response(row, stop_ids) for row in rows]


def check_engine(
    engine: ServerEngine, prompts: Sequence[list[int]], references: Sequence[GeneratedTokens] | None
) -> EngineCheck | None:
    """Compare an engine's greedy responses with those in process.

    Args:
        engine: An engine that is connected.
        prompts: Token ids of prompts, at least one.
        references: Responses in process; None to see only that the server takes and returns token ids.

    Returns:
        How far they agree; None without references.

    Raises:
        UserError: the server does not take the prompts as they are, returns no token ids, has too short a context, or
            another model.
    """
    sampling = Sampling(TOKENS)
    if engine.context_length < max(map(len, prompts)) + TOKENS:
        raise UserError(
            f"the server at {engine.client.address} takes {engine.context_length} tokens of prompt and response, too "
            "few for this run: start it with a longer context (--max-model-len)"
        )
    if references is None:
        _ask(engine, prompts[0], sampling)
        return None
    counts = []
    for prompt, reference in zip(prompts, references, strict=True):
        row = new_row(engine.chat, engine.context_length, prompt, sampling)
        ours = _tokens(reference)
        theirs = _tokens(as_generated(row, _ask(engine, prompt, sampling), engine.chat.stop_ids))
        equal = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs)))
        counts.append((equal, len(ours), ours == theirs))
    check = EngineCheck(
        prompts=len(counts),
        equal=sum(same for _, _, same in counts),
        equal_first=sum(equal > 0 for equal, _, _ in counts),
        tokens=sum(total for _, total, _ in counts),
        equal_tokens=sum(equal for equal, _, _ in counts),
    )
    if check.equal_first < _LEAST_EQUAL * check.prompts:
        raise UserError(
            f"the server at {engine.client.address} does not generate as this checkpoint does: of {check.prompts} "
            f"greedy responses, {check.prompts - check.equal_first} differ from those in process in their first token. "
            "It serves another model, or changes prompts: let it serve the files of this checkpoint as they are"
        )
    return check


def _ask(engine: ServerEngine, prompt: list[int], sampling: Sampling) -> CompletedTokens:
    """Ask for one response, and check that the server has read the prompt as it is."""
    try:
        reply = engine.ask(prompt, sampling)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever it is, the server is not usable)
        if status_of(error) not in (400, 422) and not isinstance(error, UnreadableReply):
            raise engine.client.unusable(error) from None
        reason = error if isinstance(error, UnreadableReply) else f"status {status_of(error)}"
        raise UserError(
            f"the server at {engine.client.address} did not complete a prompt of token ids ({reason}): {_OTHERS}"
        ) from None
    counted = len(prompt) if reply.prompt_tokens is None else reply.prompt_tokens
    if counted != len(prompt) or (reply.prompt_ids is not None and reply.prompt_ids != prompt):
        raise UserError(
            f"the server at {engine.client.address} does not take token ids as they are: it was sent a prompt of "
            f"{len(prompt)} tokens, and has read {counted if counted != len(prompt) else 'others'}: {_OTHERS}"
        )
    return reply


def _tokens(response: GeneratedTokens) -> list[int]:
    """Return the tokens of a response, the end included, as a server may return it or not."""
    return [*response.ids, _END] if response.stop_reason == "stop" else response.ids
