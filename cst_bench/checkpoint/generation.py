"""Generate responses from a checkpoint: any thread submits requests, and one worker decodes them in a running batch."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cst_bench.checkpoint.attention_kernels import many_lengths
from cst_bench.checkpoint.decoding import DecodeBatch, cache_argument, decode_static
from cst_bench.checkpoint.decoding_check import checked_mode, length_limit, note_long_rows
from cst_bench.checkpoint.engine import GeneratedTokens, ended_response, may_begin, new_row
from cst_bench.checkpoint.inspection import empty_cache, free_memory, out_of_memory
from cst_bench.checkpoint.loading import Checkpoint
from cst_bench.checkpoint.sampling import Sampling, SamplingRow, choose

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_ROWS = {"cpu": 64, "cuda": 256}
"""Default number of rows decoded together; fewer when memory is short."""
_MEMORY_SHARE = 0.5
"""Largest share of the free memory for the key-value cache."""


def default_rows(checkpoint: Checkpoint) -> int:
    """Return the most rows that are decoded together, where memory allows."""
    return checkpoint.options.batch_size or _ROWS.get(checkpoint.device.type, _ROWS["cpu"])


@dataclass
class _Job:
    row: SamplingRow
    future: Future[GeneratedTokens]
    may_begin: Callable[[], bool]


class Generator:
    """Worker that decodes requests together as they arrive. Use it as a context manager, or `close` it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Start the worker thread; it waits without polling until there is a request."""
        self._checkpoint = checkpoint
        self._limit = length_limit(checkpoint.model)
        self.rows = default_rows(checkpoint)
        self._tokens = token_capacity(checkpoint)
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
        """Stop the worker and cancel the waiting requests."""
        with self._closing:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def submit(self, prompt: list[int], sampling: Sampling) -> Future[GeneratedTokens]:
        """Submit one prompt (token ids from `Chat.prompt_ids`); the future resolves to its response.

        Raises:
            RuntimeError: the generator is closed.
        """
        future: Future[GeneratedTokens] = Future()
        row = response_row(self._checkpoint, prompt, sampling)
        if row.room < 1:
            future.set_result(GeneratedTokens([], "model_length", len(prompt), 0))
            return future
        with self._closing:
            if self._closed:
                raise RuntimeError("the generator is closed")
            self._queue.put(_Job(row, future, may_begin.get()))
        return future

    def generate(self, prompts: Iterable[list[int]], sampling: Sampling) -> list[GeneratedTokens]:
        """Generate a response to each prompt, wait for all, and return them in order."""
        futures = [self.submit(prompt, sampling) for prompt in prompts]
        return [future.result() for future in futures]

    def _work(self) -> None:
        batch = DecodeBatch(self._checkpoint.model, self._checkpoint.chat.stop_ids)
        while self._receive(block=not batch.rows and not self._waiting):
            try:
                with many_lengths():
                    ended = self._advance(batch)
            except Exception as error:  # noqa: BLE001  (any error is handed to the callers that wait)
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
        """Receive the submitted jobs, and wait for the first if `block`; return False when closed."""
        while True:
            try:
                job = self._queue.get(block=block)
            except queue.Empty:
                return True
            if job is None:
                return False
            self._waiting.append(job)
            block = False

    def _advance(self, batch: DecodeBatch) -> list[SamplingRow]:
        """Admit waiting rows when enough places are free, then decode one token (or a static batch)."""
        free = self.rows - len(batch.rows)
        if self._waiting and (not batch.rows or free >= places_to_admit(self.rows)):
            admitted = self._admit(batch, free)
            if admitted:
                return self._begin(batch, admitted)
        return batch.step() if batch.rows else []

    def _begin(self, batch: DecodeBatch, admitted: list[SamplingRow]) -> list[SamplingRow]:
        """Add admitted rows to the running batch, or decode those that cannot share one; return what has ended."""
        model, stop_ids = self._checkpoint.model, self._checkpoint.chat.stop_ids
        together = [row for row in admitted if self._limit is None or _final_length(row) <= self._limit]
        ended = [row for row in admitted if self._limit is not None and _final_length(row) > self._limit]
        if ended:
            note_long_rows(self._checkpoint)
            for row in ended:
                _reset_rope(model)
                decode_static(model, [row], stop_ids, "alone", self._choose)
        if not together:
            return ended
        mode = checked_mode(self._checkpoint, together, self._tokens) if self.rows > 1 else "alone"
        if mode == "compact":
            return [*ended, *batch.add(together)]
        decode_static(model, together, stop_ids, mode, self._choose)
        return [*ended, *together]

    def _choose(self, logits: Tensor, rows: Sequence[SamplingRow]) -> list[int]:
        """Choose the next tokens in a static batch, which ends in no other way when the generator is closed."""
        if self._closed:
            raise RuntimeError("the generator is closed")
        return choose(logits, rows)

    def _admit(self, batch: DecodeBatch, free: int) -> list[SamplingRow]:
        """Return the waiting rows that fit, in order, by places and by the tokens that the cache can hold."""
        rows: list[SamplingRow] = []
        width = max([batch.width(), *(_final_length(row) for row in batch.rows)])
        while self._waiting and len(rows) < free:
            if self._waiting[0].future.cancelled() or not self._waiting[0].may_begin():
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

    def _finish(self, row: SamplingRow) -> None:
        job = self._jobs.pop(id(row))
        if job.future.set_running_or_notify_cancel():  # false if the caller has cancelled it
            job.future.set_result(ended_response(row, self._checkpoint.chat.stop_ids))

    def _retry_smaller(self, batch: DecodeBatch) -> None:
        """Halve the number of rows after running out of memory; keep what they have generated."""
        self.rows = max(1, self.rows // 2)
        batch.clear()
        for job in list(self._jobs.values()):
            if job.row.ended(self._checkpoint.chat.stop_ids):
                self._finish(job.row)
            job.row.rewind()
        self._waiting.extendleft(reversed(self._jobs.values()))
        self._jobs.clear()
        empty_cache(self._checkpoint.device)

    def _fail(self, batch: DecodeBatch, error: Exception) -> None:
        batch.clear()
        for job in self._jobs.values():
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)
        self._jobs.clear()


def response_row(checkpoint: Checkpoint, prompt: list[int], sampling: Sampling) -> SamplingRow:
    """Return the row of a response that is not begun; its `room` is below 1 if the prompt fills the context."""
    return new_row(checkpoint.chat, checkpoint.context_length, prompt, sampling)


def places_to_admit(rows: int) -> int:
    """Return how many places must be free before waiting rows are admitted to a running batch of this many places."""
    return max(1, rows // 4)


def _final_length(row: SamplingRow) -> int:
    return len(row.prompt) + row.limit


def _reset_rope(model: PreTrainedModel) -> None:
    """Set dynamic rope back to its original frequencies; it would keep those of the longest input before."""
    import torch

    with torch.inference_mode():
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)


def token_capacity(checkpoint: Checkpoint) -> int:
    """Estimate the number of tokens whose keys and values fit in the free memory."""
    return max(1, int(free_memory(checkpoint.device) * _MEMORY_SHARE / max(1, cache_bytes(checkpoint))))


def cache_bytes(checkpoint: Checkpoint) -> int:
    """Return the bytes of a token's keys and values; 0 for a model without any.

    They are measured, since configs do not tell: heads differ by layer, are compressed, or absent.
    """
    import torch

    with torch.inference_mode():
        output = checkpoint.model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=checkpoint.device))
    cache = getattr(output, cache_argument(checkpoint.model), None)
    layers = getattr(cache, "layers", [])
    states = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
    return sum(state.nbytes // state.shape[-2] for state in states if state is not None and state.numel())
