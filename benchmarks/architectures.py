"""Scoring and generation with every causal architecture of the installed transformers, beside `hf` and `generate`.

    python -m benchmarks.architectures [--only NAME …] [--out FOLDER]

For a small random model of each, in fp32: whether `cst-hf` packs its requests or leaves them to `hf`, and why; the
largest difference of log-likelihoods; how the provider decodes, and how many responses, decoded together, differ from
those of `generate` alone. The requests cross windows, chunks and original lengths. Writes architectures.json and
architectures.md into the folder. About two minutes on one core.
"""

from __future__ import annotations

import argparse
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from lm_eval.models.huggingface import HFLM
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import track
from transformers import AutoTokenizer, GenerationConfig

from benchmarks.comparison import compare
from benchmarks.small_models import VOCABULARY, architectures, small_model
from cst_bench.capabilities.likelihoods import CstHFLM
from cst_bench.checkpoint import Checkpoint, CheckpointOptions
from cst_bench.checkpoint.chat import Chat
from cst_bench.checkpoint.generation import Generator
from cst_bench.checkpoint.options import embedded_folder
from cst_bench.checkpoint.sampling import Sampling
from cst_bench.escape import cell
from cst_bench.files import write_json, write_text
from cst_bench.record import CheckpointIdentity

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from cst_bench.capabilities.likelihoods.scorer import Scored

T = TypeVar("T")
TOLERANCE = 1e-4
"""Largest difference of a log-likelihood that counts as the same."""
NOT_SCORED: dict[str, str] = {
    "gemma4_unified_assistant": "inputs_embeds and shared_kv_states cannot be None",
    "moss_transcribe_diarize": "Expected input batch_size",  # takes lm-eval's labels of its own for a loss
}
"""Architecture on which lm-eval's `hf` fails → its error, in part."""
NOT_GENERATED: dict[str, str] = {
    "gemma4_unified_assistant": "can only be called on Attention layers",
}
"""Architecture on which `generate` fails with one prompt → its error, in part."""

_MAX_LENGTH, _CONTEXT = 160, 400
_PROMPTS = (12, 3, 90, 20, 2, 150, 5, 61)
"""Lengths of prompts, in tokens; two of them cross the variants' original length of 100."""
_NEW_TOKENS, _ROWS = 20, 4
_NUMBER = re.compile(r"\d[\d.e+-]*")
_STOPS = frozenset(range(VOCABULARY - 20, VOCABULARY))


@dataclass(frozen=True)
class Scoring:
    """How `cst-hf` scores a model."""

    fallback_reason: str | None
    """Reason why requests were left to `hf`; None if they were packed."""
    max_abs_diff: float
    greedy_mismatches: int


@dataclass(frozen=True)
class Generation:
    """How the provider generates with a model."""

    decoding: str
    """`rows` that leave the batch when they end, or `generate` on padded batches."""
    responses: int
    different: int
    """Responses that differ from those of `generate` alone."""


def scoring(model: PreTrainedModel, stock: Sequence[Scored]) -> Scoring:
    """Score the requests with `cst-hf` and compare with the answers of `hf`."""
    scorer = CstHFLM(model, **_arguments(), token_budget=300)
    difference = compare(_scores(scorer), stock)
    return Scoring(scorer.fallback_reason, difference.max_abs_diff, difference.greedy_mismatches)


def generation(model: PreTrainedModel, alone: Sequence[list[int]]) -> Generation:
    """Generate responses to all prompts together and compare with those of `generate` to each alone."""
    chat = Chat(_tokenizer(), _STOPS, "system")
    identity = CheckpointIdentity(label="small", kind="local")
    checkpoint = Checkpoint("small", CheckpointOptions(batch_size=_ROWS), model, chat, identity, _CONTEXT)
    with Generator(checkpoint) as generator:
        responses = [response.ids for response in generator.generate(prompts(), Sampling(_NEW_TOKENS))]
    different = sum(a != b for a, b in zip(responses, alone, strict=True))
    decoding = "rows" if "compact" in checkpoint.modes.lengths else "generate"
    return Generation(decoding, len(responses), different)


def stock_scores(model: PreTrainedModel) -> list[Scored]:
    """Score the requests with lm-eval's `hf`: log-likelihoods, and whether they are greedy continuations."""
    return _scores(HFLM(model, **_arguments()))


def stock_responses(model: PreTrainedModel) -> list[list[int]]:
    """Return the token ids of the greedy response to each prompt alone, by `generate`."""
    model.generation_config = GenerationConfig()
    return [_response(model, prompt) for prompt in prompts()]


def sweep(label: str) -> dict[str, Any]:
    """Return the row of an architecture: its scoring and generation, or the errors of either side."""
    row: dict[str, Any] = {"architecture": label}
    try:
        model = small_model(label)
    except Exception as error:  # noqa: BLE001  (transformers raises many kinds, and the table says what)
        return {**row, "not_built": _first_line(error)}
    row["scoring"] = _compared(stock_scores, scoring, model)
    row["generation"] = _compared(stock_responses, generation, model)
    return row


def _compared(
    stock: Callable[[PreTrainedModel], T],
    ours: Callable[[PreTrainedModel, T], Scoring | Generation],
    model: PreTrainedModel,
) -> dict[str, Any]:
    try:
        expected = stock(model)
    except Exception as error:  # noqa: BLE001  (as above)
        return {"stock_error": _first_line(error)}
    try:
        return asdict(ours(model, expected))
    except Exception as error:  # noqa: BLE001  (a fault of this project is a row of the table)
        return {"error": _first_line(error)}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def requests() -> list[tuple[None, list[int], list[int]]]:
    """Make requests with and without a common prefix; continuations are nested or share a part."""
    draw = random.Random(0)
    prefix, made = _tokens(draw, 70), []
    for index, length in enumerate((1, 3, 20, 40, 70, 85)):
        context = (prefix if index % 2 else []) + _tokens(draw, length)
        ending = _tokens(draw, 4)
        made += [(context, part) for part in (ending, ending[:1], [*ending[:2], *_tokens(draw, 2)], _tokens(draw, 3))]
    draw.shuffle(made)
    return [(None, list(context), list(continuation)) for context, continuation in made]


def prompts() -> list[list[int]]:
    """Make prompts of mixed lengths."""
    draw = random.Random(2)
    return [_tokens(draw, length) for length in _PROMPTS]


def _tokens(draw: random.Random, count: int) -> list[int]:
    return [draw.randrange(5, min(_STOPS)) for _ in range(count)]


@cache
def _tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(embedded_folder())


def _arguments() -> dict[str, Any]:
    # its cache of logits mixes requests that differ in where the context ends
    return {"tokenizer": _tokenizer(), "max_length": _MAX_LENGTH, "batch_size": _ROWS, "logits_cache": False}


def _scores(scorer: HFLM) -> list[Scored]:
    return list(scorer._loglikelihood_tokens(requests(), disable_tqdm=True))


def _response(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=_NEW_TOKENS, eos_token_id=sorted(_STOPS), pad_token_id=0
    )
    with torch.inference_mode():
        output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    response: list[int] = output[0, len(prompt) :].tolist()
    return response[:-1] if response[-1] in _STOPS else response


def report(figures: Mapping[str, Any]) -> str:
    """Return the tables of a sweep, from what architectures.json holds, in Markdown."""
    rows = figures["rows"]
    built = [row for row in rows if "not_built" not in row]
    lines = [
        "# Architectures",
        "",
        f"`python -m benchmarks.architectures` with transformers {figures['transformers']}: a small random model of "
        f"each of {len(built)} causal architectures and variants, in fp32.",
        "Scoring is by `cst-hf`, packed or as stock `hf` does; its log-likelihoods are compared with those of `hf`.",
        "Greedy responses, decoded together, are compared with those of `generate` to each prompt alone; decoding is",
        "by rows that leave the batch when they end, or by `generate` on padded batches.",
        "",
    ]
    for title, kind in (("Scoring", _scored), ("Decoding", _decoded)):
        counts = Counter(_NUMBER.sub("N", kind(row)) for row in built)
        lines += [f"| {title} | Architectures |", "|---|---:|"]
        lines += [*(f"| {cell(name)} | {count} |" for name, count in counts.most_common()), ""]
    lines += [
        "| Architecture | Scoring | Largest difference | Greedy mismatches | Decoding | Responses that differ |",
        "|---|---|---:|---:|---|---:|",
        *(_line(row) for row in built),
    ]
    if len(built) < len(rows):
        lines += ["", "Not built by transformers:", "", "| Architecture | Error |", "|---|---|"]
        lines += [f"| {cell(row['architecture'])} | {cell(row['not_built'])} |" for row in rows if "not_built" in row]
    return "\n".join(lines) + "\n"


def _scored(row: Mapping[str, Any]) -> str:
    part = row["scoring"]
    if (error := _error(part)) is not None:
        return error
    return "packed" if part["fallback_reason"] is None else f"stock: {part['fallback_reason']}"


def _decoded(row: Mapping[str, Any]) -> str:
    return _error(row["generation"]) or str(row["generation"]["decoding"])


def _error(part: Mapping[str, Any]) -> str | None:
    if "stock_error" in part:
        return f"transformers fails: {part['stock_error']}"
    return f"fails: {part['error']}" if "error" in part else None


def _line(row: Mapping[str, Any]) -> str:
    scored, decoded = row["scoring"], row["generation"]
    cells = [
        row["architecture"],
        _scored(row),
        f"{scored['max_abs_diff']:.1e}" if "max_abs_diff" in scored else "",
        scored.get("greedy_mismatches", ""),
        _decoded(row),
        f"{decoded['different']} of {decoded['responses']}" if "different" in decoded else "",
    ]
    return f"| {' | '.join(cell(value) for value in cells)} |"


def main() -> None:
    """Sweep the architectures and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=architectures(), metavar="NAME", help="architectures to sweep")
    parser.add_argument("--out", type=Path, help="folder for architectures.json and architectures.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    rows = [sweep(label) for label in track(options.only)]
    figures = {"transformers": version("transformers"), "rows": rows}
    if options.out is not None:
        write_json(options.out / "architectures.json", figures)
        write_text(options.out / "architectures.md", report(figures))
    Console().print(Markdown(report(figures)))


if __name__ == "__main__":
    main()
