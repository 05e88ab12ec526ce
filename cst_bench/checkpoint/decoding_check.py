"""Check that rows decoded together get what `generate` gives to each alone, on prompts of the first batch.

Some models do not mask padding, compute all rows by the length of the longest, or share parts of the cache between
layers, and their configs do not tell. A few prompts are therefore decoded alone and beside a longer one, and the next
token's probabilities compared at each step.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from cst_bench.checkpoint.decoding import DecodeBatch, can_compact, decode_static
from cst_bench.checkpoint.decoding_modes import Mode
from cst_bench.checkpoint.inspection import base_model, batch_invariant_length, has_prompt_learning, out_of_memory
from cst_bench.checkpoint.sampling import Sampling, SamplingRow

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from cst_bench.checkpoint.loading import Checkpoint

_log = logging.getLogger(__name__)

_STEPS = 8
"""Tokens decoded for each prompt."""
_LEAST = 64
"""Shortest length checked: the next power of two of what is needed is, so that checks are few."""
_MOST = {"cpu": 256, "cuda": 4096}
"""Longest length checked on account of tokens still to be generated; longer prompts are checked at their own."""
_TOLERANCE = 1e-3
"""Total variation distance that always passes in fp32."""
_ROUNDINGS = 8
"""The same in lower precision, in multiples of its epsilon."""
_NOISE, _MOST_NOISE = 3, 2
"""A distance also passes up to this multiple of that of batches of equal length, at most to a multiple of the above."""
_HOW: dict[Mode, str] = {
    "padded": "responses are decoded in batches that all end before the next begins",
    "equal": "responses are decoded in batches of prompts of equal length",
    "alone": "responses are decoded one at a time",
}


def length_limit(model: PreTrainedModel) -> int | None:
    """Return the most tokens of a row, response included, that can be decoded beside others; None for any."""
    return batch_invariant_length(base_model(model).config.get_text_config())


def checked_mode(checkpoint: Checkpoint, rows: Sequence[SamplingRow], capacity: int) -> Mode:
    """Return the fastest way to decode rows that gives the tokens of `generate`; check it, unless that is done.

    The result is kept on the checkpoint. A check is repeated only for longer rows, at most once for each doubling.

    Args:
        checkpoint: The loaded model.
        rows: Rows that are about to be decoded, none longer than `length_limit`.
        capacity: Tokens whose keys and values fit in memory.
    """
    modes, model = checkpoint.modes, checkpoint.model
    length, room = _checked_length(checkpoint, rows, capacity)
    candidates = _candidates(model)
    for mode, slower in pairwise(candidates):
        if mode in modes.refused:
            continue
        if modes.lengths.get(mode, 0) >= length:
            return mode
        reason = _disagreement(model, mode, _probe([row.prompt for row in rows], length, room))
        if reason is None:
            modes.lengths[mode] = length
            return mode
        modes.refused.add(mode)
        modes.slower["check"] = f"{_HOW[slower]}: {reason}"
        _log.warning(modes.slower["check"])
    return candidates[-1]


def check_work(checkpoint: Checkpoint, rows: Sequence[SamplingRow], capacity: int) -> tuple[int, int]:
    """Return the prompt tokens and the steps of the check that `checked_mode` makes, where the first mode passes it."""
    probe = _probe([row.prompt for row in rows], *_checked_length(checkpoint, rows, capacity))
    return 2 * (len(probe.short) + len(probe.middle)) + len(probe.long), 3 * _STEPS  # alone, and then together


def _checked_length(checkpoint: Checkpoint, rows: Sequence[SamplingRow], capacity: int) -> tuple[int, int]:
    """Return the length to check, and the longest that there is room for."""
    most = min(checkpoint.context_length, length_limit(checkpoint.model) or checkpoint.context_length)
    room = max(1, min(most - _STEPS, capacity // 3))  # the probe has three rows
    return min(_needed_length(rows, checkpoint.device.type), room), room


def note_long_rows(checkpoint: Checkpoint) -> None:
    """Record on the checkpoint that rows beyond `length_limit` are decoded alone, and log it the first time."""
    if "length" not in checkpoint.modes.slower:
        limit = length_limit(checkpoint.model)
        checkpoint.modes.slower["length"] = (
            f"prompts with more than {limit} tokens, response included, are decoded one at a time: beyond that, rope "
            "depends on the batch"
        )
        _log.warning(checkpoint.modes.slower["length"])


def _candidates(model: PreTrainedModel) -> tuple[Mode, ...]:
    """Return the modes that a model's config allows, fastest first.

    Padding is ruled out by virtual tokens, since peft counts it as positions, and where the length of a batch matters.
    """
    fastest: tuple[Mode, ...] = ("compact",) if can_compact(model) else ()
    if has_prompt_learning(model) or length_limit(model) is not None:
        return (*fastest, "equal", "alone")
    return (*fastest, "padded", "equal", "alone")


def _needed_length(rows: Sequence[SamplingRow], device: str) -> int:
    final = min(max(len(row.prompt) + row.limit for row in rows), _MOST.get(device, _MOST["cpu"]))
    needed = max(_LEAST, final, *(len(row.prompt) for row in rows))
    return 1 << (needed - 1).bit_length()


@dataclass(frozen=True)
class _Probe:
    """Prompts to compare. `short` and `middle` are compared, `long` stands beside them."""

    short: list[int]
    middle: list[int]
    long: list[int]


def _probe(prompts: Sequence[list[int]], length: int, room: int) -> _Probe:
    """Make a probe of the shortest prompt, and of the longest one, repeated up to `length` and one and a half times it.

    The middle one is long itself: some models attend to all of a short input, and to selected tokens of a longer one.
    """
    longest = max(prompts, key=len)
    wide = min(length + length // 2, room)
    repeated = longest * (-(-wide // len(longest)))
    return _Probe(min(prompts, key=len)[:room], repeated[:length], repeated[:wide])


def _disagreement(model: PreTrainedModel, mode: Mode, probe: _Probe) -> str | None:
    """Return why a mode does not give the tokens of `generate` for one row; None if it does."""
    import torch

    tolerance = max(_TOLERANCE, _ROUNDINGS * torch.finfo(model.dtype).eps)
    try:
        alone = _decode(model, "alone", [probe.short, probe.middle], None)
        forced = [[int(step.argmax()) for step in steps] for steps in alone]
        together = _distance(model, mode, probe, alone, forced)
        if together > tolerance and mode != "equal":
            noise = _distance(model, "equal", probe, alone, forced)
            tolerance = max(tolerance, min(_NOISE * noise, _MOST_NOISE * tolerance))
        elif mode == "equal":
            tolerance *= _MOST_NOISE
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, NotImplementedError) as error:
        if out_of_memory(error):
            raise
        return f"decoding a few rows fails with {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if together <= tolerance:
        return None
    return f"together with others, a row's next-token probabilities differ by {together:.2g} from those of it alone"


def _distance(
    model: PreTrainedModel, mode: Mode, probe: _Probe, alone: list[list[Tensor]], forced: list[list[int]]
) -> float:
    """Return the largest total variation distance between the probabilities of a row alone and beside others."""
    import torch

    if mode == "equal":
        prompts, alone, forced = [probe.middle, probe.long[-len(probe.middle) :]], alone[1:], forced[1:]
    else:
        prompts = [probe.short, probe.middle, probe.long]
    together = _decode(model, mode, prompts, forced)
    distances = [
        (ours - theirs).abs().sum() / 2
        for steps, expected in zip(together, alone)
        for ours, theirs in zip(steps, expected, strict=True)
    ]
    largest = torch.stack(distances).max()  # NaN if any is
    return float(largest) if not largest.isnan() else float("inf")


def _decode(
    model: PreTrainedModel, mode: Mode, prompts: Sequence[list[int]], forced: Sequence[list[int]] | None
) -> list[list[Tensor]]:
    """Decode prompts; return the next token's probabilities, [vocabulary], of each prompt and step.

    Args:
        model: The model.
        mode: How they are decoded.
        prompts: Token ids.
        forced: Tokens to decode instead of the most probable ones, of the first prompts.
    """
    rows = [SamplingRow(prompt, Sampling(_STEPS)) for prompt in prompts]
    index = {id(row): number for number, row in enumerate(rows)}
    steps: dict[int, list[Tensor]] = defaultdict(list)

    def record(logits: Tensor, those: Sequence[SamplingRow]) -> list[int]:
        tokens: list[int] = logits.argmax(-1).tolist()
        for place, (row, probabilities) in enumerate(zip(those, logits.float().softmax(-1))):
            number = index[id(row)]
            if forced is not None and number < len(forced):
                tokens[place] = forced[number][len(steps[number])]
            steps[number].append(probabilities)
        return tokens

    if mode == "compact":
        batch = DecodeBatch(model, frozenset(), record)
        batch.add(rows)
        while batch.rows:
            batch.step()
    else:
        decode_static(model, rows, frozenset(), mode, record)
    return [steps[number] for number in range(len(rows))]
