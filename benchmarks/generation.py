"""Generation compared: Inspect's own `hf` provider, `model.generate` in batches of 32, and ours.

    python benchmarks/generation.py [--model FOLDER] [--device cuda] [--dtype bfloat16] [--repeat N] [--json FILE]

Two comparisons, in turns in one process; outputs are greedy and compared for equality:

- through Inspect, by default on the embedded checkpoint: 128 prompts, at most 64 tokens each, sent at once to its `hf`
  provider and to ours, and as an evaluation with either (which adds Inspect's own time for each sample to both);
- without Inspect, by default on a random Llama (hidden 256, 6 layers; with `--shape 1b`, 2,048 and 16): responses of
  log-normal length (each row ends at a length drawn beforehand), `model.generate` in batches of 32 in the order of
  arrival, and ours.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypedDict

import torch
from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig, Model, get_model
from inspect_ai.solver import generate
from models import random_llama
from rich.console import Console
from rich.table import Table
from timing import Output, Timed, interleaved
from transformers import LogitsProcessorList
from transformers.utils import logging as transformers_logging

from cst_bench.checkpoint import Checkpoint, CheckpointOptions, load_checkpoint
from cst_bench.checkpoint.generation import Generator
from cst_bench.checkpoint.options import embedded_folder
from cst_bench.checkpoint.provider import inspect_model
from cst_bench.checkpoint.sampling import Sampling

PROMPTS, MAX_TOKENS, STOCK_BATCH = 128, 64, 32
SHAPES = {"tiny": {"hidden": 256, "layers": 6}, "1b": {"hidden": 2048, "layers": 16, "head": 64}}
"""Random Llamas."""


class ThroughInspect(TypedDict):
    """Median seconds with Inspect's provider and with ours."""

    hf: float
    ours: float
    eval_hf: float
    """As an evaluation."""
    eval_ours: float
    identical: bool


class WithoutInspect(TypedDict):
    """Median seconds of `model.generate` and of ours."""

    generate: float
    ours: float
    identical: bool
    prompts: int
    tokens: int
    identical_rows: float
    """Share of the responses; in half precision, rounding depends on the rows that share a pass."""


def main() -> None:
    """Run both comparisons and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder for both comparisons")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--shape", default="tiny", choices=SHAPES, help="of the random Llama")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help="prompts of the comparison without Inspect")
    parser.add_argument("--no-inspect", action="store_true", help="without the comparison through Inspect")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model or str(embedded_folder())
        provider = None
        if not options.no_inspect:
            checkpoint = load(folder, options)
            with Console().status("through Inspect"):
                provider = through_inspect(checkpoint, folder, options.device, options.repeat, Path(scratch))
        if options.model is None:
            folder = str(random_llama(Path(scratch) / "model", **SHAPES[options.shape]))
        checkpoint = load(folder, options)
        with Console().status("without Inspect"):
            raw = without_inspect(checkpoint, options.repeat, options.prompts)
    results = {
        "speedup_vs_inspect_hf": None if provider is None else provider["hf"] / provider["ours"],
        "speedup_vs_generate": raw["generate"] / raw["ours"],
        "identical": raw["identical"] and (provider is None or provider["identical"]),
        "through_inspect": provider,
        "without_inspect": raw,
        "speedup_of_evaluation": None if provider is None else provider["eval_hf"] / provider["eval_ours"],
        "settings": {
            "model": options.model or f"random Llama ({options.shape})",
            "device": options.device,
            "dtype": str(checkpoint.model.dtype),
            "decoding": checkpoint.modes.fallback,
            "threads": options.threads,
        },
    }
    show(provider, raw)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def load(folder: str, options: argparse.Namespace) -> Checkpoint:
    """Load a checkpoint with the options of the command line."""
    return load_checkpoint(CheckpointOptions(name=folder, device=options.device, dtype=options.dtype))


def warm_interleaved(runs: Mapping[str, Callable[[], Output]], repeat: int) -> dict[str, Timed[Output]]:
    """Time runs in turns, after one run of each to warm up."""
    for run in runs.values():
        run()
    return interleaved(runs, repeat)


def prompt(index: int) -> str:
    """Return user text of varying length about the embedded world."""
    verb, noun = ("open", "wake", "enter", "clean")[index % 4], ("well", "giant", "tower", "bell", "mirror")[index % 5]
    return f"{'Please. ' * (index % 7)}How do I {verb} the {'old ' * (index % 3)}{noun}?"


def through_inspect(checkpoint: Checkpoint, folder: str, device: str, repeat: int, scratch: Path) -> ThroughInspect:
    """Send 128 requests at once to each provider, and run them as samples of an evaluation."""
    dtype = str(checkpoint.model.dtype).removeprefix("torch.")
    stock = get_model(f"hf/{folder}", memoize=False, device=device, do_sample=False, dtype=dtype)
    ours = inspect_model(checkpoint)
    config = GenerateConfig(max_tokens=MAX_TOKENS)
    samples = [Sample(id=index, input=prompt(index)) for index in range(PROMPTS)]
    task = Task(dataset=MemoryDataset(samples), solver=generate(), config=config)
    loop = asyncio.new_event_loop()

    async def ask(model: Model) -> list[str]:
        outputs = await asyncio.gather(*(model.generate(prompt(index), config=config) for index in range(PROMPTS)))
        return [output.completion for output in outputs]

    def asked(model: Model) -> list[str]:
        return loop.run_until_complete(ask(model))

    def evaluated(model: Model) -> list[str]:
        (log,) = inspect_eval(task, model=model, display="none", log_dir=str(scratch / "logs"), log_level="error")
        assert log.status == "success", log.error
        return [sample.output.completion for sample in sorted(log.samples or [], key=lambda sample: int(sample.id))]

    requests = warm_interleaved({"hf": partial(asked, stock), "ours": partial(asked, ours)}, repeat)
    loop.close()
    evaluations = warm_interleaved({"hf": partial(evaluated, stock), "ours": partial(evaluated, ours)}, repeat)
    ours.api.close()
    return {
        "hf": requests["hf"].median,
        "ours": requests["ours"].median,
        "eval_hf": evaluations["hf"].median,
        "eval_ours": evaluations["ours"].median,
        "identical": len({tuple(timed.output) for timed in (*requests.values(), *evaluations.values())}) == 1,
    }


def without_inspect(checkpoint: Checkpoint, repeat: int, count: int) -> WithoutInspect:
    """Generate responses of log-normal lengths (median 40, sigma 0.9, at most 256), the same with both."""
    draw = random.Random(0)
    lengths = [max(1, min(256, round(math.exp(draw.gauss(math.log(40), 0.9))))) for _ in range(count)]
    prompts = [checkpoint.chat.prompt_ids([{"role": "user", "content": prompt(index)}]) for index in range(count)]
    runs = {
        "generate": partial(stock_batches, checkpoint, prompts, lengths),
        "ours": partial(running_batch, checkpoint, prompts, lengths),
    }
    timed = warm_interleaved(runs, repeat)
    return {
        "generate": timed["generate"].median,
        "ours": timed["ours"].median,
        "identical": timed["generate"].output == timed["ours"].output,
        "prompts": count,
        "tokens": sum(lengths),
        "identical_rows": sum(map(list.__eq__, timed["generate"].output, timed["ours"].output)) / count,
    }


def running_batch(checkpoint: Checkpoint, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    """Generate with our generator, each row with its own length."""
    with Generator(checkpoint) as generator:
        futures = [generator.submit(ids, Sampling(length)) for ids, length in zip(prompts, lengths)]
        return [future.result().ids for future in futures]


def stock_batches(checkpoint: Checkpoint, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    """Generate with `model.generate`, 32 prompts at a time; each row's end token ends it at its own length."""
    model, end = checkpoint.model, checkpoint.tokenizer.eos_token_id
    responses: list[list[int]] = []
    for start in range(0, len(prompts), STOCK_BATCH):
        batch, ends = prompts[start : start + STOCK_BATCH], lengths[start : start + STOCK_BATCH]
        width = max(map(len, batch))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch], device=model.device)
        due = torch.tensor(ends, device=model.device)

        def end_when_due(
            ids: torch.Tensor, scores: torch.Tensor, due: torch.Tensor = due, width: int = width
        ) -> torch.Tensor:
            over = ids.shape[1] - width >= due
            scores[over] = float("-inf")
            scores[over, end] = 0
            return scores

        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max(ends) + 1,
                do_sample=False,
                eos_token_id=end,
                pad_token_id=0,
                logits_processor=LogitsProcessorList([end_when_due]),
            )
        responses += [row[:length] for row, length in zip(output[:, width:].tolist(), ends)]
    return responses


def show(inspect: ThroughInspect | None, raw: WithoutInspect) -> None:
    """Print the table."""
    table = Table("128 prompts, greedy", "stock s", "ours s", "ratio", "same output")
    rows = [("generate, batches of 32, log-normal lengths", raw["generate"], raw["ours"], raw["identical_rows"])]
    if inspect is not None:
        title, same = f"Inspect's hf provider, at most {MAX_TOKENS} tokens", float(inspect["identical"])
        rows = [
            (title, inspect["hf"], inspect["ours"], same),
            ("the same as an evaluation", inspect["eval_hf"], inspect["eval_ours"], same),
            *rows,
        ]
    for title, stock, ours, share in rows:
        same_output = {0.0: "NO", 1.0: "yes"}.get(share, f"{share:.0%}")
        table.add_row(title, f"{stock:.2f}", f"{ours:.2f}", f"{stock / ours:.1f}", same_output)
    Console().print(table)


if __name__ == "__main__":
    main()
