"""Measure how fast a checkpoint decodes, and compute from that how long many responses take.

The time of a step is taken to be linear in its rows and in the columns that each attends to. The generator's batches
are simulated with the rates.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

from cst_bench.checkpoint.attention_kernels import many_lengths
from cst_bench.checkpoint.decoding import DecodeBatch, can_compact, decode_static
from cst_bench.checkpoint.decoding_check import check_work, checked_mode
from cst_bench.checkpoint.decoding_modes import CheckedModes, Mode
from cst_bench.checkpoint.generation import default_rows, places_to_admit, token_capacity
from cst_bench.checkpoint.sampling import SamplingRow

if TYPE_CHECKING:
    from cst_bench.checkpoint.loading import Checkpoint

_WIDEST = {"cpu": 256, "cuda": 1024}
"""Most columns of a measured step."""
_SHORT = 16
"""Columns of the measurements with few columns."""
_FASTEST_STEP = 1e-3
"""Seconds of the fastest step expected; it limits how many tokens the measured rows can hold."""
_PART = 1 / 6
"""Share of the time for each of three measurements of steps, and for reading prompts."""
_FEW_STEPS = 4
"""Tokens of the measurement of a model that is decoded by `generate`."""
_SIMULATED = 4096
"""Responses that are simulated at most; the time of more is proportional."""


@dataclass(frozen=True)
class Lengths:
    """Lengths of a response in tokens."""

    prompt: int
    generated: int
    limit: int
    """Most tokens that may be generated: memory is reserved for them."""


@dataclass(frozen=True)
class Decoding:
    """Work of decoding responses, as the generator does it."""

    prompt_tokens: int = 0
    steps: int = 0
    rows: int = 0
    """Rows of all steps."""
    columns: int = 0
    """Columns that these rows attend to, padding included."""
    cached: int = 0
    """Tokens that the cache has room for at most: the most rows times the most columns."""


@dataclass(frozen=True)
class DecodingRates:
    """Seconds that decoding takes, as measured."""

    places: int
    """Most rows decoded together."""
    capacity: int
    """Most tokens in the cache."""
    mode: Mode
    prompt_token: float
    """Seconds for each token of a prompt."""
    step: float
    """Seconds for a step, whatever its rows."""
    row: float
    """Seconds for each row of a step."""
    column: float
    """Seconds for each column that a row of a step attends to."""
    check: float = 0.0
    """Seconds of the check, once in a run, that rows can be decoded together."""

    def seconds(self, responses: Sequence[Lengths]) -> float:
        """Estimate the time of responses that are asked for in this order."""
        part = responses[:_SIMULATED]
        if not part:
            return 0.0
        work = self.simulate(part)
        seconds = (
            work.prompt_tokens * self.prompt_token
            + work.steps * self.step
            + work.rows * self.row
            + work.columns * self.column
        )
        return seconds * len(responses) / len(part)

    def simulate(self, responses: Sequence[Lengths]) -> Decoding:
        """Count what the generator does for responses that are asked for in this order."""
        if self.mode == "compact":
            return simulate_batch(responses, self.places, self.capacity)
        return _simulate_static(responses, self.places if self.mode == "padded" else 1)


def simulate_batch(responses: Sequence[Lengths], places: int, capacity: int) -> Decoding:
    """Count what a running batch does: waiting rows are admitted, in order, when a quarter of its places is free.

    Args:
        responses: Responses in the order in which they are asked for, all of them waiting.
        places: Most rows of the batch.
        capacity: Most tokens in the cache.
    """
    waiting = deque(responses)
    running: list[tuple[int, int, Lengths]] = []
    """Step after which a row ends, its columns at step 0, and its lengths."""
    now = prompt_tokens = rows = columns = most_rows = most_columns = 0
    while waiting or running:
        free = places - len(running)
        if waiting and (not running or free >= places_to_admit(places)):
            admitted = _admitted(waiting, [row for _, _, row in running], free, capacity)
            prompt_tokens += sum(row.prompt for row in admitted)
            # reading a prompt gives the first token
            running += [(now + row.generated - 1, row.prompt - now, row) for row in admitted if row.generated > 1]
            if admitted:
                continue
        end = min(end for end, _, _ in running)
        steps = end - now
        width = now + max(start for _, start, _ in running)
        rows += steps * len(running)
        columns += len(running) * (steps * width + steps * (steps + 1) // 2)
        most_rows, most_columns = max(most_rows, len(running)), max(most_columns, width + steps)
        now = end
        running = [row for row in running if row[0] > now]
    return Decoding(prompt_tokens, now, rows, columns, most_rows * most_columns)


def _admitted(waiting: deque[Lengths], running: Sequence[Lengths], free: int, capacity: int) -> list[Lengths]:
    """Take from the waiting rows those that fit by places and by the tokens that the cache can hold."""
    admitted: list[Lengths] = []
    width = max((row.prompt + row.limit for row in running), default=0)
    while waiting and len(admitted) < free:
        width = max(width, waiting[0].prompt + waiting[0].limit)
        taken = len(running) + len(admitted)
        if taken and (taken + 1) * width > capacity:
            break
        admitted.append(waiting.popleft())
    return admitted


def _simulate_static(responses: Sequence[Lengths], places: int) -> Decoding:
    """Count what batches do that all end before the next begins."""
    total = Decoding()
    for start in range(0, len(responses), places):
        part = responses[start : start + places]
        steps = max(row.generated for row in part) - 1
        width = max(row.prompt for row in part)
        total = Decoding(
            total.prompt_tokens + width * len(part),
            total.steps + steps,
            total.rows + steps * len(part),
            total.columns + len(part) * (steps * width + steps * (steps + 1) // 2),
            max(total.cached, len(part) * (width + steps)),
        )
    return total


def measure_decoding(checkpoint: Checkpoint, rows: Sequence[SamplingRow], seconds: float) -> DecodingRates:
    """Measure for about this many seconds; the rows get some tokens of their responses in the time.

    Three measurements give the time of a step: of many rows, of a quarter of them, and of many rows with long prompts.
    For these, the cache of one row is copied, so that hardly any prompt needs to be read.

    Args:
        checkpoint: The loaded model, which is left as it was.
        rows: Rows of the responses, in random order. Those for which there is time are decoded.
        seconds: Time to spend. A slow model takes longer, since each measurement has a step at least.
    """
    places, capacity = default_rows(checkpoint), token_capacity(checkpoint)
    with many_lengths():
        if places == 1 or not can_compact(checkpoint.model):
            return _static_rates(checkpoint, rows, places, capacity)
        return _batch_rates(checkpoint, rows, places, capacity, seconds)


def _batch_rates(
    checkpoint: Checkpoint, rows: Sequence[SamplingRow], places: int, capacity: int, seconds: float
) -> DecodingRates:
    """Measure a model whose responses are decoded in a running batch."""
    share = seconds * _PART
    device = checkpoint.device.type
    most = max(_SHORT + 1, min(_WIDEST.get(device, _WIDEST["cpu"]), checkpoint.context_length // 2, capacity // 2))
    many = max(1, min(places, capacity // (2 * most)))
    _time_steps(checkpoint, rows[0], 1, _SHORT, 0.0)  # the first passes of a process are slow
    few = max(1, many // 4)
    short_step = _time_steps(checkpoint, rows[0], many, _SHORT, share)
    few_step = _time_steps(checkpoint, rows[0], few, _SHORT, share)
    long_step = _time_steps(checkpoint, rows[0], many, most, share)
    step, row, column = step_model((many, _SHORT, short_step), (few, _SHORT, few_step), (many, most, long_step))
    prompt_token = _decode_responses(checkpoint, rows[:places], share, seconds / 2)
    check_tokens, check_steps = check_work(checkpoint, rows, capacity)
    check = check_tokens * prompt_token + check_steps * (step + row)
    return DecodingRates(places, capacity, "compact", prompt_token, step, row, column, check)


def step_model(
    many: tuple[int, float, float], few: tuple[int, float, float], long: tuple[int, float, float]
) -> tuple[float, float, float]:
    """Return the seconds of a step, of each of its rows, and of each column that a row attends to.

    Args:
        many: Rows, columns and seconds of a step.
        few: The same with fewer rows.
        long: The same with as many rows and more columns.
    """
    (rows, columns, seconds), (few_rows, few_columns, few_seconds), (_, long_columns, long_seconds) = many, few, long
    column = max(0.0, (long_seconds - seconds) / (rows * (long_columns - columns)))
    if few_rows == rows:
        return max(0.0, seconds - column * rows * columns), 0.0, column
    base = [max(0.0, seconds - column * rows * columns), max(0.0, few_seconds - column * few_rows * few_columns)]
    row = min(max(0.0, (base[0] - base[1]) / (rows - few_rows)), base[0] / rows)
    return base[0] - row * rows, row, column


def _time_steps(checkpoint: Checkpoint, like: SamplingRow, rows: int, columns: int, seconds: float) -> float:
    """Return the median seconds of a step of rows with this many columns; as many steps are taken as there is time."""
    most = max(2, min(int(seconds / _FASTEST_STEP), checkpoint.context_length - columns - 1))
    prompt = (like.prompt * (columns // len(like.prompt) + 1))[:columns]
    sampling = replace(like.sampling, max_tokens=most + 2, max_think_tokens=0)
    batch = DecodeBatch(checkpoint.model, frozenset())
    batch.add([SamplingRow(prompt, sampling)])
    batch.repeat([SamplingRow(prompt, sampling, generated=list(batch.rows[0].generated)) for _ in range(rows - 1)])
    deadline = time.monotonic() + seconds
    times = [_seconds(batch.step)]
    while time.monotonic() < deadline and len(times) < most:
        times.append(_seconds(batch.step))
    return median(times[1:] or times)  # the first makes room in the cache


def _decode_responses(checkpoint: Checkpoint, rows: Sequence[SamplingRow], share: float, seconds: float) -> float:
    """Decode as many rows as can be read in a share of the time, and return the seconds for each prompt token."""
    deadline = time.monotonic() + seconds
    batch = DecodeBatch(checkpoint.model, checkpoint.chat.stop_ids)
    first = _seconds(lambda: batch.add(rows[:1]))
    affordable = int(share / first * 2)  # many are read at a higher rate than one
    part = rows[1 : max(2, 1 + affordable)]
    reading = _seconds(lambda: batch.add(part)) if part else first
    tokens = sum(len(row.prompt) for row in part or rows[:1])
    while batch.rows and time.monotonic() < deadline:
        batch.step()
    return reading / tokens


def _static_rates(checkpoint: Checkpoint, rows: Sequence[SamplingRow], places: int, capacity: int) -> DecodingRates:
    """Measure a model whose responses are decoded by `generate`."""
    own = replace(checkpoint, modes=CheckedModes())
    mode = checked_mode(own, rows[:places], capacity) if places > 1 else "alone"

    def decode(count: int, tokens: int) -> float:
        part = [
            SamplingRow(row.prompt, replace(row.sampling, max_tokens=tokens, max_think_tokens=0))
            for row in rows[:count]
        ]
        return _seconds(lambda: decode_static(checkpoint.model, part, frozenset(), "padded" if count > 1 else "alone"))

    decode(1, 1)  # the first pass of a process is slow
    reading = decode(1, 1)
    step = max(0.0, decode(1, 1 + _FEW_STEPS) - reading) / _FEW_STEPS
    row = 0.0
    many = min(places, len(rows))
    if mode == "padded" and many > 1:
        together = max(0.0, decode(many, 1 + _FEW_STEPS) - decode(many, 1)) / _FEW_STEPS
        row = min(max(0.0, (together - step) / (many - 1)), step)
    return DecodingRates(places, capacity, mode, reading / len(rows[0].prompt), step - row, row, 0.0)


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started
