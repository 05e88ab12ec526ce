"""Client of an OpenAI-compatible server's completions endpoint, with prompts and responses as token ids.

`return_token_ids` and `stop_token_ids` are extensions that vLLM (`CompletionRequest`, since 0.10.2) and SGLang share. A
server that does not return token ids is refused: text alone does not tell which tokens were generated. Every sampling
parameter is sent, since servers take what a request leaves out from the checkpoint's generation_config.json.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from cst_bench.checkpoint.call_errors import reason_of, redirected_to
from cst_bench.checkpoint.endpoint import UnreadableReply, guarded_client, parse_address
from cst_bench.checkpoint.sampling import SamplingRow
from cst_bench.errors import UserError
from cst_bench.escape import visible

KEY = "CST_BENCH_GENERATE_API_KEY"
"""Environment variable with the key of the server that `--generate-url` names."""
_NO_KEY = "none"
_TIMEOUT = 600.0
"""Seconds that a response may take."""
_MOST_NAMES = 5
"""Most names of models in a message."""


@dataclass(frozen=True)
class ServedModel:
    """A model of a server."""

    name: str
    context_length: int | None
    """Most tokens of prompt and response together; None if the server does not say."""


@dataclass(frozen=True)
class CompletedTokens:
    """A server's reply."""

    ids: list[int]
    """Generated tokens, with or without the one that ended them."""
    finish_reason: str
    prompt_tokens: int | None
    """Tokens of the prompt as the server counts them; None if it does not."""
    prompt_ids: list[int] | None
    """The prompt as the server has read it; None if it does not say."""


class CompletionsClient:
    """Client of one server. Its coroutines run in one event loop; failed requests are not repeated."""

    def __init__(self, url: str, option: str, key: str | None = None) -> None:
        """Make the client; nothing is sent yet.

        Args:
            url: Address of the server, with or without `/v1`.
            option: Option that gave the address, for messages.
            key: By default, the one in `CST_BENCH_GENERATE_API_KEY`, if there is one.

        Raises:
            UserError: the address is malformed.
        """
        from openai import AsyncOpenAI

        address = parse_address(url, option)
        if not urlsplit(address.plain).path:
            address = replace(address, plain=f"{address.plain}/v1")
        self.address = address.plain
        secret = key or os.environ.get(KEY) or _NO_KEY
        self._client = AsyncOpenAI(
            api_key=secret,
            base_url=address.plain,
            max_retries=0,
            timeout=_TIMEOUT,
            http_client=guarded_client(address, [] if secret == _NO_KEY else [secret]),
        )

    async def find_model(self, name: str | None) -> ServedModel:
        """Return the model with this name, or the only one of the server.

        Raises:
            UserError: there is none, or several; or the server could not be asked.
        """
        try:
            async with asyncio.timeout(_TIMEOUT):
                reply = await self._client.get("/models", cast_to=object)
        except Exception as error:  # noqa: BLE001  (whatever it is, the server is not usable)
            raise self.unusable(error) from None
        models = {model.name: model for model in _models(reply)}
        if name is not None and not models:
            return ServedModel(name, None)
        if name is None and len(models) == 1:
            (model,) = models.values()
            return model
        if name in models:
            return models[name]
        known = f"it serves {_listed(models)}" if models else "it does not say what it serves"
        missing = "give one with --generate-model" if name is None else f"--generate-model {name!r} is not one of them"
        raise UserError(f"the server at {self.address}: {known}: {missing}")

    async def complete(self, model: str, row: SamplingRow, stop_ids: Iterable[int]) -> CompletedTokens:
        """Generate one response, up to the limit of a row that is not begun.

        Raises:
            openai.APIError, TimeoutError: as `post`.
            UnreadableReply: its answer has no token ids.
        """
        sampling = row.sampling
        body = {
            "model": model,
            "prompt": row.prompt,
            "max_tokens": row.limit,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": -1 if sampling.top_k is None else sampling.top_k,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": sampling.seed,
            "stop_token_ids": sorted(stop_ids),
            "skip_special_tokens": False,
            "return_token_ids": True,
        }
        return _completed(await self.post(body))

    async def post(self, body: object) -> Any:
        """Send a request to the completions endpoint, and return its reply, whose choices are objects with a text.

        Raises:
            openai.APIError: the server did not answer.
            TimeoutError: its answer took too long, even if it kept coming.
        """
        async with asyncio.timeout(_TIMEOUT):
            return await self._client.post("/completions", body=body, cast_to=object)

    def unusable(self, error: Exception) -> UserError:
        """Return the message about a server that cannot be used."""
        target = redirected_to(error)
        if target is not None:
            reason = f"it redirects to {target}, where neither the key nor the prompts are sent: give that address"
        else:
            reason = f"{reason_of(error, _TIMEOUT)}: start it, or correct the address, its model or the key in {KEY}"
        return UserError(f"the server at {self.address} could not be asked: {reason}")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _models(reply: object) -> list[ServedModel]:
    """Return the models in a reply; entries that are none are left out."""
    entries = reply.get("data") if isinstance(reply, dict) else None
    models = []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            length = entry.get("max_model_len")
            models.append(ServedModel(entry["id"], length if _is_count(length) else None))
    return models


def _listed(names: Iterable[str]) -> str:
    shown = ["".join(map(visible, name))[:100] for name in names]
    more = f" and {len(shown) - _MOST_NAMES} others" if len(shown) > _MOST_NAMES else ""
    return ", ".join(shown[:_MOST_NAMES]) + more


def _completed(reply: Any) -> CompletedTokens:
    """Read a completion, whose choices are checked already to be objects.

    Raises:
        UnreadableReply: it has no token ids, or did not end by itself.
    """
    choice = reply["choices"][0]
    ids, prompt_ids, reason = choice.get("token_ids"), choice.get("prompt_token_ids"), choice.get("finish_reason")
    if not _are_ids(ids):
        raise UnreadableReply("a reply without token ids")
    if reason not in ("stop", "length"):
        raise UnreadableReply("a response that was broken off")
    count = (reply.get("usage") or {}).get("prompt_tokens")
    return CompletedTokens(ids, reason, count, prompt_ids if _are_ids(prompt_ids) else None)


def _are_ids(value: object) -> bool:
    return isinstance(value, list) and all(_is_count(token) for token in value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
