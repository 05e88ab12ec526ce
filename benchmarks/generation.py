"""Generation compared: Inspect's own `hf` provider, `model.generate` in batches of 32, and ours.

    python benchmarks/generation.py [--model FOLDER] [--prompt-file FILE] [--dtype bfloat16] [--device cuda]

Two comparisons, in turns in one process; outputs are greedy and compared for equality, and neither they nor the prompts
are shown:

- through Inspect, by default on the embedded checkpoint: 128 prompts, at most 64 tokens each, sent at once to its `hf`
  provider and to ours, and as an evaluation with either (which adds Inspect's own time for each sample to both);
- without Inspect, by default on a random Llama (hidden 256, 6 layers; with `--shape 1b`, 2,048 and 16): responses of
  log-normal length (each row ends at a length drawn beforehand), `model.generate` in batches of 32 in the order of
  arrival, and ours. In half precision on a CPU also ours in float32, and how many rows have other tokens than there.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import math
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
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
from timing import Output, Timed, interleaved, make_clock
from transformers import LogitsProcessorList
from transformers.utils import logging as transformers_logging

from cst_bench.checkpoint import Checkpoint, CheckpointOptions, load_checkpoint
from cst_bench.checkpoint.generation import Generator
from cst_bench.checkpoint.options import embedded_folder
from cst_bench.checkpoint.provider import inspect_model
from cst_bench.checkpoint.sampling import Sampling

PROMPTS, MAX_TOKENS, STOCK_BATCH = 128, 64, 32
SHAPES = {
    "tiny": {"hidden": 256, "layers": 6},
    "small": {"hidden": 768, "layers": 6},
    "1b": {"hidden": 2048, "layers": 16, "head": 64},
}
"""Random Llamas."""


class ThroughInspect(TypedDict):
    """Median seconds with Inspect's provider and with ours."""

    hf: float
    ours: float
    eval_hf: float
    """As an evaluation."""
    eval_ours: float
    identical: bool


class OwnFp32(TypedDict):
    """Ours in float32, beside half precision."""

    ours: float
    """Median seconds."""
    rows_that_differ: dict[str, float]
    """Share of the responses, of `generate` and of ours, that are not those in float32."""


class WithoutInspect(TypedDict):
    """Median seconds of `model.generate` and of ours: processor time on a CPU."""

    generate: float
    ours: float
    identical: bool
    prompts: int
    tokens: int
    identical_rows: float
    """Share of the responses; in half precision, rounding depends on the rows that share a pass."""
    fp32: OwnFp32 | None


def main() -> None:
    """Run both comparisons and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder for both comparisons")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--shape", default="tiny", choices=SHAPES, help="of the random Llama")
    parser.add_argument("--prompts", type=int, default=PROMPTS, help=f"number of prompts (default: {PROMPTS})")
    parser.add_argument("--prompt-file", type=Path, help="csv or jsonl file to draw them from, instead of made-up ones")
    parser.add_argument("--column", default="prompt", help="their column in the file (default: prompt)")
    parser.add_argument("--no-inspect", action="store_true", help="without the comparison through Inspect")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    users = [prompt(index) for index in range(options.prompts)]
    if options.prompt_file is not None:
        users = read_prompts(options.prompt_file, options.column, options.prompts)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model or str(embedded_folder())
        provider = None
        if not options.no_inspect:
            checkpoint = load(folder, options.device, options.dtype)
            with Console().status("through Inspect"):
                provider = through_inspect(checkpoint, folder, users, options.repeat, Path(scratch))
        if options.model is None:
            folder = str(random_llama(Path(scratch) / "model", **SHAPES[options.shape]))
        checkpoint = load(folder, options.device, options.dtype)
        half = checkpoint.device.type == "cpu" and checkpoint.model.dtype.itemsize < 4
        fp32 = load(folder, options.device, "float32") if half else None
        with Console().status("without Inspect"):
            raw = without_inspect(checkpoint, fp32, users, options.repeat)
    results = {
        "speedup_vs_inspect_hf": None if provider is None else provider["hf"] / provider["ours"],
        "speedup_vs_generate": raw["generate"] / raw["ours"],
        "speedup_vs_own_fp32": raw["fp32"] and raw["fp32"]["ours"] / raw["ours"],
        "identical": raw["identical"] and (provider is None or provider["identical"]),
        "through_inspect": provider,
        "without_inspect": raw,
        "speedup_of_evaluation": None if provider is None else provider["eval_hf"] / provider["eval_ours"],
        "settings": {
            "model": Path(options.model).name if options.model else f"random Llama ({options.shape})",
            "prompts": options.prompt_file and options.prompt_file.name,
            "device": options.device,
            "dtype": str(checkpoint.model.dtype),
            "decoding": checkpoint.modes.fallback,
            "threads": options.threads,
        },
    }
    show(provider, raw)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def load(folder: str, device: str, dtype: str) -> Checkpoint:
    """Load a checkpoint."""
    return load_checkpoint(CheckpointOptions(name=folder, device=device, dtype=dtype))


def warm_interleaved(
    runs: Mapping[str, Callable[[], Output]], repeat: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Timed[Output]]:
    """Time runs in turns, after one run of each to warm up."""
    for run in runs.values():
        run()
    return interleaved(runs, repeat, clock)


def prompt(index: int) -> str:
    """Return user text of varying length about the embedded world."""
    verb, noun = ("open", "wake", "enter", "clean")[index % 4], ("well", "giant", "tower", "bell", "mirror")[index % 5]
    return f"{'Please. ' * (index % 7)}How do I {verb} the {'old ' * (index % 3)}{noun}?"


def read_prompts(path: Path, column: str, count: int) -> list[str]:
    """Draw prompts from a csv or jsonl file, the same at each run."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [json.loads(line) for line in file] if path.suffix == ".jsonl" else list(csv.DictReader(file))
    return random.Random(0).sample([str(row[column]) for row in rows], count)


def through_inspect(
    checkpoint: Checkpoint, folder: str, users: Sequence[str], repeat: int, scratch: Path
) -> ThroughInspect:
    """Send all requests at once to each provider, and run them as samples of an evaluation."""
    dtype, device = str(checkpoint.model.dtype).removeprefix("torch."), str(checkpoint.device)
    stock = get_model(f"hf/{folder}", memoize=False, device=device, do_sample=False, dtype=dtype)
    ours = inspect_model(checkpoint)
    config = GenerateConfig(max_tokens=MAX_TOKENS)
    samples = [Sample(id=index, input=user) for index, user in enumerate(users)]
    task = Task(dataset=MemoryDataset(samples), solver=generate(), config=config)
    loop = asyncio.new_event_loop()

    async def ask(model: Model) -> list[str]:
        outputs = await asyncio.gather(*(model.generate(user, config=config) for user in users))
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


def without_inspect(
    checkpoint: Checkpoint, fp32: Checkpoint | None, users: Sequence[str], repeat: int
) -> WithoutInspect:
    """Generate responses of log-normal lengths (median 40, sigma 0.9, at most 256), the same with both."""
    draw = random.Random(0)
    lengths = [max(1, min(256, round(math.exp(draw.gauss(math.log(40), 0.9))))) for _ in users]
    prompts = [checkpoint.chat.prompt_ids([{"role": "user", "content": user}]) for user in users]
    runs = {
        "generate": partial(stock_batches, checkpoint, prompts, lengths),
        "ours": partial(running_batch, checkpoint, prompts, lengths),
    }
    if fp32 is not None:
        runs["ours in fp32"] = partial(running_batch, fp32, prompts, lengths)
    timed = warm_interleaved(runs, repeat, make_clock(checkpoint.device.type))
    generated, ours = timed["generate"].output, timed["ours"].output
    beside: OwnFp32 | None = None
    if fp32 is not None:
        expected = timed["ours in fp32"].output
        differ = {name: 1 - equal_rows(rows, expected) for name, rows in (("generate", generated), ("ours", ours))}
        beside = {"ours": timed["ours in fp32"].median, "rows_that_differ": differ}
    return {
        "generate": timed["generate"].median,
        "ours": timed["ours"].median,
        "identical": generated == ours,
        "prompts": len(prompts),
        "tokens": sum(map(len, ours)),
        "identical_rows": equal_rows(generated, ours),
        "fp32": beside,
    }


def equal_rows(responses: Sequence[list[int]], expected: Sequence[list[int]]) -> float:
    """Return the share of responses that are as expected."""
    return sum(map(list.__eq__, responses, expected)) / len(expected)


def running_batch(checkpoint: Checkpoint, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    """Generate with our generator, each row with its own length."""
    with Generator(checkpoint) as generator:
        futures = [generator.submit(ids, Sampling(length)) for ids, length in zip(prompts, lengths)]
        return [future.result().ids for future in futures]


def stock_batches(checkpoint: Checkpoint, prompts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    """Generate with `model.generate`, 32 prompts at a time; each row's end token ends it at its own length."""
    model, end, stop_ids = checkpoint.model, checkpoint.tokenizer.eos_token_id, checkpoint.chat.stop_ids
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
                eos_token_id=sorted(stop_ids),
                pad_token_id=0,
                logits_processor=LogitsProcessorList([end_when_due]),
            )
        for row, length in zip(output[:, width:].tolist(), ends):
            stop = next((index for index, token in enumerate(row) if token in stop_ids), len(row))
            responses.append(row[: min(stop, length)])
    return responses


def show(inspect: ThroughInspect | None, raw: WithoutInspect) -> None:
    """Print the table."""
    table = Table(f"{raw['prompts']} prompts, greedy", "stock s", "ours s", "ratio", "same output")
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
    if (fp32 := raw["fp32"]) is not None:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in fp32["rows_that_differ"].items())
        Console().print(f"ours in float32: {fp32['ours']:.2f} s; rows that differ from it: {shares}")


if __name__ == "__main__":
    main()
