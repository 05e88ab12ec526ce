"""Log-likelihoods as lm-eval's four tasks ask for them: its own `hf` at several batch sizes against `cst-hf`, in turns.

python benchmarks/scoring.py [--model FOLDER] [--data-dir FOLDER] [--dtype bfloat16] [--device cuda] [--json FILE]

The tasks are lm-eval's own (ARC 25-shot, HellaSwag 10-shot, MMLU 5-shot, TruthfulQA mc2) over made-up documents of
their lengths, or the first documents of mirrors of the Hub's data sets (`--data-dir`). Without `--model`, a random
Llama. Seconds are medians: of processor time on a CPU, which other work on the machine hardly changes, and of wall time
elsewhere. In bfloat16, `cst-hf` also scores in float32, from which the differences of all are given.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stderr
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from comparison import Comparison
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from cst_bench.capabilities.likelihoods.cst_hf import TokenRequest
    from cst_bench.capabilities.results import LmEvalResults

OURS = "cst-hf"
OURS_FP32 = "cst-hf float32"


class Difference(TypedDict):
    """Differences of a model's answers from those of `cst-hf` in float32."""

    max_abs_diff: float
    mean_abs_diff: float
    flip_rate: float | None


class TaskResult(TypedDict):
    """Measurements on one task."""

    documents: int
    requests: int
    seconds: dict[str, float]
    """Median of each model."""
    runs: dict[str, list[float]]
    best_stock: str
    speedup: float
    tokens: int
    unique_tokens: int
    stock_tokens: int
    max_abs_diff: float
    greedy_mismatches: int
    flip_rate: float | None
    kernel: str | None
    """Attention of ours, and why not a faster one."""
    peak_memory: dict[str, int] | None
    """Most bytes of each model on a GPU, its weights included."""
    speedup_vs_own_fp32: float | None
    from_fp32: dict[str, Difference]
    """Differences of `cst-hf` and of the fastest stock model from float32, in a lower precision."""


class EndToEnd(TypedDict):
    """Measurements of `simple_evaluate` on the four tasks."""

    seconds: dict[str, float]
    best_stock: str
    speedup: float
    same_results: bool


class Preparation(TypedDict):
    """Milliseconds a document."""

    build_ms: float
    encode_ms: float


class Result(TypedDict):
    """Content of the JSON file."""

    speedup: float
    speedup_end_to_end: float | None
    max_abs_diff: float
    greedy_mismatches: int
    speedup_vs_own_fp32: float | None
    """None in float32."""
    from_fp32: dict[str, Difference]
    """Differences of `cst-hf` and of stock from float32, over all tasks."""
    token_ratio_to_unique: float
    tasks: dict[str, TaskResult]
    end_to_end: EndToEnd | None
    preparation: dict[str, dict[str, Preparation]]
    model: str
    data: str
    device: str
    dtype: str
    threads: int
    repeat: int
    clock: str
    versions: dict[str, str]
    kernel: str | None
    fallback_reason: str | None


def task_requests(manager: TaskManager, name: str, documents: list[int]) -> list[Instance]:
    """Return lm-eval's requests for some documents of a task."""
    from cst_bench.capabilities.likelihoods import compiled_templates

    tasks = manager.load([f"bench_{name}"])["tasks"]
    with compiled_templates():
        for task in tasks.values():
            task.set_fewshot_seed(seed=1234)
            task.build_all_requests(samples=documents)
    return [request for task in tasks.values() for request in task.instances]


def measure_forward(
    models: dict[str, HFLM], manager: TaskManager, scale: float, repeat: int, clock: Callable[[], float]
) -> dict[str, TaskResult]:
    """Measure, for each task, the seconds of every model, agreement with the fastest stock one, and tokens."""
    from comparison import compare, unique_tokens
    from lm_eval_data import first_documents
    from timing import interleaved, with_peak

    ours, results = models[OURS], {}
    for name, documents in first_documents(scale).items():
        instances = task_requests(manager, name, documents)
        requests: list[TokenRequest] = [(None, *ours._encode_pair(*instance.args)) for instance in instances]
        choices = list(Counter(instance.doc_id for instance in instances).values())
        before = ours.forwarded_tokens
        peaks: dict[str, int] = {}
        runs = {
            label: with_peak(peaks, label, partial(model._loglikelihood_tokens, requests, disable_tqdm=True))
            for label, model in models.items()
        }
        timed = interleaved(runs, repeat, clock)
        stock = min(_stock(models), key=lambda label: timed[label].median)
        comparison = compare(timed[OURS].output, timed[stock].output, choices)
        pairs = [(context, continuation) for _, context, continuation in requests]
        results[name] = TaskResult(
            documents=len(choices),
            requests=len(requests),
            seconds={label: timed[label].median for label in models},
            runs={label: timed[label].seconds for label in models},
            best_stock=stock,
            speedup=timed[stock].median / timed[OURS].median,
            tokens=(ours.forwarded_tokens - before) // repeat,
            unique_tokens=unique_tokens(pairs, ours.max_length),
            stock_tokens=sum({(*c, *t[:-1]): len(c) + len(t) - 1 for c, t in pairs}.values()),
            max_abs_diff=comparison.max_abs_diff,
            greedy_mismatches=comparison.greedy_mismatches,
            flip_rate=comparison.flip_rate,
            kernel=ours.kernel,
            peak_memory=peaks or None,
            speedup_vs_own_fp32=timed[OURS_FP32].median / timed[OURS].median if OURS_FP32 in models else None,
            from_fp32={
                label: _difference(compare(timed[label].output, timed[OURS_FP32].output, choices))
                for label in (OURS, stock)
                if OURS_FP32 in models
            },
        )
    return results


def _stock(models: dict[str, HFLM]) -> list[str]:
    return [label for label in models if label not in (OURS, OURS_FP32)]


def _difference(comparison: Comparison) -> Difference:
    return Difference(
        max_abs_diff=comparison.max_abs_diff,
        mean_abs_diff=comparison.mean_abs_diff,
        flip_rate=comparison.flip_rate,
    )


def _overall(tasks: list[TaskResult]) -> dict[str, Difference]:
    """Return the differences from float32 over all tasks, of ours and of the fastest stock model of each."""
    totals: dict[str, Difference] = {}
    for name in (OURS, "hf"):
        parts = [
            (row["from_fp32"][OURS if name == OURS else row["best_stock"]], row) for row in tasks if row["from_fp32"]
        ]
        if parts:
            totals[name] = Difference(
                max_abs_diff=max(part["max_abs_diff"] for part, _ in parts),
                mean_abs_diff=sum(part["mean_abs_diff"] * row["requests"] for part, row in parts)
                / sum(row["requests"] for _, row in parts),
                flip_rate=sum((part["flip_rate"] or 0.0) * row["documents"] for part, row in parts)
                / sum(row["documents"] for _, row in parts),
            )
    return totals


def measure_end_to_end(
    models: dict[str, HFLM], manager: TaskManager, scale: float, repeat: int, clock: Callable[[], float]
) -> EndToEnd:
    """Measure `simple_evaluate` on the four tasks: loading data, rendering, encoding, scoring and metrics."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval_data import first_documents
    from timing import interleaved

    from cst_bench.capabilities.likelihoods import compiled_templates

    def evaluate(label: str) -> LmEvalResults:
        with compiled_templates() if label == OURS else nullcontext():
            results: LmEvalResults = simple_evaluate(
                model=models[label],
                tasks=["bench"],
                task_manager=manager,
                bootstrap_iters=0,
                samples=first_documents(scale),
            )
            return results

    timed = interleaved({label: partial(evaluate, label) for label in models if label != OURS_FP32}, repeat, clock)
    best = min(_stock(models), key=lambda label: timed[label].median)
    return {
        "seconds": {label: times.median for label, times in timed.items()},
        "best_stock": best,
        "speedup": timed[best].median / timed[OURS].median,
        "same_results": _scores(timed[best].output) == _scores(timed[OURS].output),
    }


def _scores(results: LmEvalResults) -> dict[str, dict[str, float]]:
    return {
        task: {name: round(value, 4) for name, value in metrics.items() if isinstance(value, float)}
        for task, metrics in results["results"].items()
    }


def measure_preparation(
    models: dict[str, HFLM], manager: TaskManager, scale: float, clock: Callable[[], float]
) -> dict[str, dict[str, Preparation]]:
    """Measure rendering and encoding of the requests, by task and model, without scoring them."""
    from lm_eval_data import first_documents

    from cst_bench.capabilities.likelihoods import compiled_templates

    stock = _stock(models)[0]
    results: dict[str, dict[str, Preparation]] = {}
    for name, samples in first_documents(scale).items():
        results[name] = {}
        for label in (stock, OURS):
            task = next(iter(manager.load([f"bench_{name}"])["tasks"].values()))
            task.set_fewshot_seed(seed=1234)
            started = clock()
            with compiled_templates() if label == OURS else nullcontext():
                task.build_all_requests(samples=samples)
            built = clock()
            _encode_only(models[label], task.instances)
            documents = len({instance.doc_id for instance in task.instances})
            results[name][label] = {
                "build_ms": 1000 * (built - started) / documents,
                "encode_ms": 1000 * (clock() - built) / documents,
            }
    return results


def _encode_only(model: HFLM, requests: Sequence[Instance]) -> None:
    scoring = model._loglikelihood_tokens
    model._loglikelihood_tokens = lambda token_requests, **rest: token_requests
    try:
        model.loglikelihood(requests, disable_tqdm=True)
    finally:
        model._loglikelihood_tokens = scoring


def show(result: Result) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    labels = list(next(iter(result["tasks"].values()))["seconds"])
    table = Table("task", *(f"{label} s" for label in labels), "speed-up", "tokens/unique", "stock/unique", "max diff",
                  "greedy", "flips", title="Scoring")  # fmt: skip
    for name, row in result["tasks"].items():
        table.add_row(
            name, *(f"{row['seconds'][label]:.2f}" for label in labels), f"{row['speedup']:.2f}",
            f"{row['tokens'] / row['unique_tokens']:.3f}", f"{row['stock_tokens'] / row['unique_tokens']:.1f}",
            f"{row['max_abs_diff']:.1e}", str(row["greedy_mismatches"]), f"{row['flip_rate']:.3f}",
        )  # fmt: skip
    totals = (f"{sum(row['seconds'][label] for row in result['tasks'].values()):.2f}" for label in labels)
    table.add_row("all", *totals, f"{result['speedup']:.2f}", f"{result['token_ratio_to_unique']:.3f}", "",
                  f"{result['max_abs_diff']:.1e}", str(result["greedy_mismatches"]))  # fmt: skip
    console = Console(width=160)
    console.print(table)
    if result["speedup_vs_own_fp32"] is not None:
        console.print(f"{result['speedup_vs_own_fp32']:.2f} times as fast as cst-hf in float32; differences from it:")
    for label, row in result["from_fp32"].items():
        console.print(
            f"{label}: {row['mean_abs_diff']:.3f} on average, at most {row['max_abs_diff']:.3f}, "
            f"other answers to {row['flip_rate']:.3f} of the questions"
        )
    if result["end_to_end"] is not None:
        seconds = ", ".join(f"{label} {value:.1f} s" for label, value in result["end_to_end"]["seconds"].items())
        same = "the same scores" if result["end_to_end"]["same_results"] else "OTHER SCORES"
        console.print(f"simple_evaluate on the four: {seconds}; {result['speedup_end_to_end']:.2f} times, {same}")
    for name, models in result["preparation"].items():
        times = ", ".join(f"{label} {ms['build_ms']:.2f} + {ms['encode_ms']:.2f}" for label, ms in models.items())
        console.print(f"preparing {name}, ms a document to build + encode: {times}")
    for name, row in result["tasks"].items():
        peaks = ", ".join(f"{label} {size / 1e9:.1f} GB" for label, size in (row["peak_memory"] or {}).items())
        console.print(f"{name}: attention by {row['kernel']}{f'; peak memory: {peaks}' if peaks else ''}")


def batch_size(text: str) -> int | str:
    """Return a batch size from the command line."""
    return text if text == "auto" else int(text)


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint to use instead of a random Llama")
    parser.add_argument("--shape", choices=("tiny", "1b", "8b"), default="tiny", help="shape of the random Llama")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="float32 on a CPU by default")
    parser.add_argument(
        "--data-dir", type=Path, help="mirrors of the Hub's data sets: arc, hellaswag, mmlu, truthfulqa"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-sizes", type=batch_size, nargs="+", metavar="N",
                        help="of stock, numbers or auto (default: 1 8, and 32 auto on a GPU)")  # fmt: skip
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of documents")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-end-to-end", action="store_true")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HF_DATASETS_CACHE"] = str(Path(temporary) / "cache")
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # lm-eval shows many progress bars
            result = measure(options, Path(temporary))
    show(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def measure(options: argparse.Namespace, folder: Path) -> Result:
    """Run all measurements."""
    import datasets
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM
    from lm_eval_data import Writer, made_up_data, real_data, task_manager
    from models import loaded_model, random_model
    from timing import make_clock

    from cst_bench.capabilities.likelihoods import CstHFLM

    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    torch.set_num_threads(options.threads)
    writer, clock = Writer(), make_clock(options.device)
    data = real_data(options.data_dir.resolve()) if options.data_dir else made_up_data(folder, writer, options.scale)
    manager = task_manager(folder, data)

    def load(dtype: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if options.model:
            return loaded_model(options.model, options.device, dtype)
        return random_model(options.shape, deepcopy(writer), options.device, dtype)

    model, tokenizer = load(options.dtype)
    sizes = options.batch_sizes or ([1, 8] if options.device == "cpu" else [1, 8, 32, "auto"])
    arguments = {"tokenizer": tokenizer, "softmax_dtype": "float32"}
    models = {f"hf batch {size}": HFLM(model, batch_size=size, **arguments) for size in sizes}
    models[OURS] = CstHFLM(model, batch_size=8, **arguments)
    if model.dtype != torch.float32 and options.device == "cpu":
        models[OURS_FP32] = CstHFLM(load("float32")[0], batch_size=8, **arguments)
    for scorer in models.values():  # warms up, and lets ours run its self-check
        scorer._loglikelihood_tokens([(None, [1, 2, 3], [4, 5])], disable_tqdm=True)
    scale = options.scale
    tasks = measure_forward(models, manager, scale, options.repeat, clock)
    preparation = measure_preparation(models, manager, scale, clock)
    end_to_end = None if options.no_end_to_end else measure_end_to_end(models, manager, scale, options.repeat, clock)
    results = list(tasks.values())
    stock_seconds = sum(row["seconds"][row["best_stock"]] for row in results)
    our_seconds = sum(row["seconds"][OURS] for row in results)
    return {
        "speedup": stock_seconds / our_seconds,
        "speedup_end_to_end": None if end_to_end is None else end_to_end["speedup"],
        "max_abs_diff": max(row["max_abs_diff"] for row in results),
        "greedy_mismatches": sum(row["greedy_mismatches"] for row in results),
        "speedup_vs_own_fp32": sum(row["seconds"][OURS_FP32] for row in results) / our_seconds
        if OURS_FP32 in models
        else None,
        "from_fp32": _overall(results),
        "token_ratio_to_unique": sum(row["tokens"] for row in results) / sum(row["unique_tokens"] for row in results),
        "tasks": tasks,
        "end_to_end": end_to_end,
        "preparation": preparation,
        "model": Path(options.model).name if options.model else f"random Llama ({options.shape})",
        "data": "real documents" if options.data_dir else "made-up documents",
        "device": options.device if options.device == "cpu" else torch.cuda.get_device_name(options.device),
        "dtype": str(model.dtype),
        "threads": options.threads,
        "repeat": options.repeat,
        "clock": "processor time" if options.device == "cpu" else "wall time",
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "kernel": models[OURS].kernel,
        "fallback_reason": models[OURS].fallback_reason,
    }


if __name__ == "__main__":
    main()
