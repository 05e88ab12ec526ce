"""Generates responses from a checkpoint: requests go in from any thread, a worker decodes them in one moving batch."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from cst_bench.checkpoint.decoding import DecodeBatch, can_compact, decode_static
from cst_bench.checkpoint.loading import Checkpoint, out_of_memory
from cst_bench.checkpoint.sampling import Row, Sampling

StopReason = Literal["stop", "max_tokens", "model_length"]

_ROWS = {"cpu": 64, "cuda": 256}
"""Rows decoded together when the user doesn't say; fewer when memory is short."""
_MEMORY_SHARE = 0.5
"""Share of the free memory that the key-value cache may take."""


@dataclass(frozen=True)
class Generation:
    """One response: its token ids without the one that ended it, why it ended, and its usage in tokens."""

    ids: list[int]
    stop_reason: StopReason
    prompt_tokens: int
    generated_tokens: int
    """The end-of-turn token included."""


@dataclass
class _Job:
    row: Row
    future: Future[Generation]
    cut_by_context: bool


class Generator:
    """Decodes requests together as they come. Use as a context manager, or `close` it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Starts the worker thread; it waits without polling until there is a request."""
        self._checkpoint = checkpoint
        self._compact = can_compact(checkpoint.model)
        kind = checkpoint.device.type
        self.rows = checkpoint.options.batch_size or _ROWS.get(kind, 64)
        self._tokens = _token_capacity(checkpoint)
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting: deque[_Job] = deque()
        self._jobs: dict[int, _Job] = {}
        self._closed = False
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="cst-bench-generator", daemon=True)
        self._thread.start()

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops the worker; requests still waiting are cancelled."""
        with self._closing:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def submit(self, prompt: list[int], sampling: Sampling) -> Future[Generation]:
        """Queues one prompt (token ids, as `Chat.prompt_ids` gives). The future resolves to its generation.

        Raises:
            RuntimeError: the generator is closed.
        """
        future: Future[Generation] = Future()
        room = self._checkpoint.context_length - len(prompt)
        if room < 1:
            future.set_result(Generation([], "model_length", len(prompt), 0))
            return future
        cut = room < sampling.max_tokens
        if cut:
            sampling = Sampling(room, sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed)
        with self._closing:
            if self._closed:
                raise RuntimeError("the generator is closed")
            self._queue.put(_Job(Row(prompt, sampling), future, cut))
        return future

    def generate(self, prompts: Iterable[list[int]], sampling: Sampling) -> list[Generation]:
        """Generates for a list of prompts and waits for all of them, in order."""
        futures = [self.submit(prompt, sampling) for prompt in prompts]
        return [future.result() for future in futures]

    def _work(self) -> None:
        batch = DecodeBatch(self._checkpoint.model, self._checkpoint.chat.stop_ids)
        while self._receive(block=not batch.rows and not self._waiting):
            try:
                ended = self._advance(batch)
            except Exception as error:  # noqa: BLE001  (whatever it is, it belongs to the callers, who wait for it)
                if out_of_memory(error) and self.rows > 1:
                    self._retry_smaller(batch)
                else:
                    self._fail(batch, error)
                continue
            for row in ended:
                self._finish(row)
        for job in (*self._jobs.values(), *self._waiting):
            job.future.cancel()

    def _receive(self, block: bool) -> bool:
        """Takes what has been submitted; waits for something if told to. False when closed."""
        while True:
            try:
                job = self._queue.get(block=block)
            except queue.Empty:
                return True
            if job is None:
                return False
            self._waiting.append(job)
            block = False

    def _advance(self, batch: DecodeBatch) -> list[Row]:
        """Lets waiting rows in when enough places are free, then decodes one token (or a static batch)."""
        free = self.rows - len(batch.rows)
        if self._waiting and (not batch.rows or free >= max(1, self.rows // 4)):
            admitted = self._admit(batch, free)
            if admitted and not self._compact:
                decode_static(self._checkpoint.model, admitted, self._checkpoint.chat.stop_ids)
                return admitted
            if admitted:
                return batch.add(admitted)
        return batch.step() if batch.rows else []

    def _admit(self, batch: DecodeBatch, free: int) -> list[Row]:
        """The waiting rows that fit, in their order, by places and by the tokens that the cache can hold."""
        rows: list[Row] = []
        width = max([batch.width(), *(_final_length(row) for row in batch.rows)])
        while self._waiting and len(rows) < free:
            if self._waiting[0].future.cancelled():
                self._waiting.popleft()
                continue
            row = self._waiting[0].row
            width = max(width, _final_length(row))
            taken = len(rows) + len(batch.rows)
            if taken and (taken + 1) * width > self._tokens:
                break
            self._jobs[id(row)] = self._waiting.popleft()
            rows.append(row)
        return rows

    def _finish(self, row: Row) -> None:
        job = self._jobs.pop(id(row))
        ended = row.generated[-1] in self._checkpoint.chat.stop_ids
        reason: StopReason = "stop" if ended else "model_length" if job.cut_by_context else "max_tokens"
        ids = row.generated[:-1] if ended else row.generated
        if job.future.set_running_or_notify_cancel():  # false when the caller gave the request up
            job.future.set_result(Generation(ids, reason, len(row.prompt), len(row.generated)))

    def _retry_smaller(self, batch: DecodeBatch) -> None:
        """Out of memory: half the rows from now on; what they have generated is kept."""
        import torch

        self.rows = max(1, self.rows // 2)
        batch.clear()
        for job in list(self._jobs.values()):
            if job.row.ended(self._checkpoint.chat.stop_ids):
                self._finish(job.row)
            job.row.rewind()
        self._waiting.extendleft(reversed(self._jobs.values()))
        self._jobs.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _fail(self, batch: DecodeBatch, error: Exception) -> None:
        batch.clear()
        for job in self._jobs.values():
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)
        self._jobs.clear()


def _final_length(row: Row) -> int:
    return len(row.prompt) + row.sampling.max_tokens


def _token_capacity(checkpoint: Checkpoint) -> int:
    """How many tokens of keys and values fit in the memory that is free now, by what the cache of one token takes.

    Measured, since configs don't tell: heads differ from layer to layer, are compressed, or there are none at all.
    """
    import psutil
    import torch

    with torch.inference_mode():
        output = checkpoint.model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=checkpoint.device))
    layers = getattr(getattr(output, "past_key_values", None), "layers", [])
    tensors: list[Any] = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
    bytes_per_token = sum(one.nbytes // one.shape[-2] for one in tensors if one is not None and one.numel())
    free = torch.cuda.mem_get_info()[0] if checkpoint.device.type == "cuda" else psutil.virtual_memory().available
    return max(1, int(free * _MEMORY_SHARE / max(1, bytes_per_token)))
