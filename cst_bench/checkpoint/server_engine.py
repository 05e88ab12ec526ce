"""Generate responses on a server: the prompts' token ids are sent, and the returned ones end as in process."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from cst_bench.checkpoint.call_errors import is_transient
from cst_bench.checkpoint.chat import Chat
from cst_bench.checkpoint.completions import CompletedTokens, CompletionsClient, ServedModel
from cst_bench.checkpoint.engine import GeneratedTokens, StopReason, ended_response, may_begin, new_row
from cst_bench.checkpoint.sampling import Sampling, SamplingRow

ROWS = 128
"""Default number of responses that are asked for together; a server batches them itself."""
_RETRIES = 5
_BACKOFF, _LONGEST_BACKOFF = 1.0, 60.0
"""Seconds before a first retry, and at most."""

T = TypeVar("T")


class ServerEngine:
    """Engine that asks a server, in an event loop and a thread of its own."""

    def __init__(self, client: CompletionsClient, chat: Chat, context_length: int, rows: int | None = None) -> None:
        """Start the thread; nothing is sent yet.

        Args:
            client: Client of the server.
            chat: Chat of the checkpoint that it serves.
            context_length: Most tokens of prompt and response of that checkpoint.
            rows: Responses that are asked for together.
        """
        self.rows = rows or ROWS
        self.context_length = context_length
        self.chat = chat
        self.client = client
        self.model = ""
        """Name of the checkpoint on the server, once that is connected."""
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cst-bench-server-engine", daemon=True)
        self._thread.start()

    def connect(self, name: str | None) -> ServedModel:
        """Find the model on the server; its context, if that is shorter, becomes the engine's.

        Raises:
            UserError: the server or the model cannot be used.
        """
        model = self._run(self.client.find_model(name))
        self.model = model.name
        self.context_length = min(self.context_length, model.context_length or self.context_length)
        return model

    def ask(self, prompt: list[int], sampling: Sampling) -> CompletedTokens:
        """Return a server's reply as it is, to be checked. What the client raises is left as it is."""
        return self._run(self._complete(self._row(prompt, sampling)))

    def submit(self, prompt: list[int], sampling: Sampling) -> Future[GeneratedTokens]:
        """Submit one prompt; the future resolves to its response.

        Raises:
            RuntimeError: the engine is closed.
        """
        if self._closed:
            raise RuntimeError("the engine is closed")
        row = self._row(prompt, sampling)
        if row.room < 1:
            future: Future[GeneratedTokens] = Future()
            future.set_result(GeneratedTokens([], "model_length", len(prompt), 0))
            return future
        return asyncio.run_coroutine_threadsafe(self._answer(row, may_begin.get()), self._loop)

    def post_all(self, bodies: Sequence[object]) -> list[Any]:
        """Send requests to the completions endpoint together, and return the replies in order.

        Raises:
            openai.APIError: the server did not answer one of them, after all retries.
        """
        return self._run(self._post_all(bodies))

    def close(self) -> None:
        """Cancel the requests and stop the thread."""
        if self._closed:
            return
        self._closed = True
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _row(self, prompt: list[int], sampling: Sampling) -> SamplingRow:
        return new_row(self.chat, self.context_length, prompt, sampling)

    async def _answer(self, row: SamplingRow, begins: Callable[[], bool]) -> GeneratedTokens:
        if not begins():
            await asyncio.get_running_loop().create_future()  # until it is cancelled
        return as_generated(row, await self._complete(row), self.chat.stop_ids)

    async def _complete(self, row: SamplingRow) -> CompletedTokens:
        return await self._retried(lambda: self.client.complete(self.model, row, self.chat.stop_ids))

    async def _post_all(self, bodies: Sequence[object]) -> list[Any]:
        return await asyncio.gather(*(self._retried(partial(self.client.post, body)) for body in bodies))

    async def _retried(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make a call, again if that may help."""
        retries = 0
        while True:
            try:
                return await call()
            except Exception as error:
                if retries == _RETRIES or not is_transient(error):
                    raise
            await asyncio.sleep(min(_LONGEST_BACKOFF, _BACKOFF * 2**retries) * random.uniform(1, 1.5))
            retries += 1

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.client.close()


def as_generated(row: SamplingRow, reply: CompletedTokens, stop_ids: frozenset[int]) -> GeneratedTokens:
    """Return a server's reply as the response that generation in process ends with.

    A server counts the tokens of a thought and of its answer alike. It is asked for both, and what is beyond the limit
    of either is left out here.
    """
    for token in reply.ids:
        row.append(token)
        if row.ended(stop_ids):
            return ended_response(row, stop_ids)
    # it ended at a token of its own, or at one that it does not return; or its context is full
    reason: StopReason = "stop" if reply.finish_reason == "stop" else "model_length"
    return GeneratedTokens(row.generated, reason, len(row.prompt), len(row.generated), row.thought_tokens)
