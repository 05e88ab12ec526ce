"""Log-likelihoods as lm-eval's four tasks ask for them: its own `hf` at batch 1 and 8 against `cst-hf`, interleaved.

python benchmarks/scoring.py [--model FOLDER] [--device cuda] [--json FILE]

The tasks are lm-eval's own (ARC 25-shot, HellaSwag 10-shot, MMLU 5-shot, TruthfulQA mc2) over made-up documents of
their lengths. Without `--model`, a random Llama. Seconds are medians: of processor time on a CPU, which other work on
the machine hardly changes, and of wall time elsewhere.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

Row = dict[str, Any]
TASKS = {"arc_challenge": 25, "hellaswag": 10, "mmlu_abstract_algebra": 5, "truthfulqa_mc2": 0}
"""lm-eval's names, and the shots."""
FOLDERS = ("arc", "hellaswag", "mmlu/default", "truthfulqa")
DOCUMENTS = {"arc_challenge": 5, "hellaswag": 5, "mmlu_abstract_algebra": 60, "truthfulqa_mc2": 24}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "num_attention_heads": 8,
             "num_key_value_heads": 4, "vocab_size": 4096, "dtype": "float32"},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256, "dtype": "bfloat16"},
}  # fmt: skip
"""Random Llamas."""


class Writer:
    """Writes made-up text, always the same."""

    def __init__(self) -> None:
        self.draw = random.Random(1)
        syllables = [a + b for a in "bdfgklmnprstv" for b in ("a", "e", "i", "o", "u", "an", "er", "ing")]
        self.words = ["".join(self.draw.choices(syllables, k=self.draw.randint(1, 3))) for _ in range(3000)]
        self.weights = [1 / (rank + 5) for rank in range(len(self.words))]

    def text(self, words: int, spread: float = 0.5) -> str:
        """About so many words."""
        count = max(1, round(words * self.draw.uniform(1 - spread, 1 + spread)))
        return " ".join(self.draw.choices(self.words, self.weights, k=count)).capitalize()


def arc_rows(writer: Writer, count: int) -> list[Row]:
    """Questions of about 20 words with four short choices."""
    return [
        {
            "id": str(i),
            "question": f"{writer.text(20)}?",
            "choices": {"text": [writer.text(4) for _ in range(4)], "label": ["A", "B", "C", "D"]},
            "answerKey": "ABCD"[i % 4],
        }
        for i in range(count)
    ]


def hellaswag_rows(writer: Writer, count: int) -> list[Row]:
    """Scenes of about 35 words with four endings of about 22."""
    rows = []
    for i in range(count):
        first, second = f"{writer.text(30)}.", writer.text(4).lower()
        rows.append(
            {
                "ind": i,
                "activity_label": writer.text(2),
                "ctx_a": first,
                "ctx_b": second,
                "ctx": f"{first} {second}",
                "endings": [f"{writer.text(22)}." for _ in range(4)],
                "source_id": "made up",
                "split": "train",
                "split_type": "indomain",
                "label": str(i % 4),
            }
        )
    return rows


def mmlu_rows(writer: Writer, count: int) -> list[Row]:
    """Questions of about 45 words with four choices of about 7."""
    return [
        {
            "question": f"{writer.text(45)}?",
            "subject": "abstract_algebra",
            "choices": [writer.text(7) for _ in range(4)],
            "answer": i % 4,
        }
        for i in range(count)
    ]


def truthfulqa_rows(writer: Writer, count: int) -> list[Row]:
    """Questions of about 10 words with 4 to 11 answers of about 8."""
    rows = []
    for _ in range(count):
        choices = [f"{writer.text(8)}." for _ in range(writer.draw.randint(4, 11))]
        labels = [int(i < len(choices) // 2) for i in range(len(choices))]
        targets = {"choices": choices, "labels": labels}
        rows.append({"question": f"{writer.text(10)}?", "mc1_targets": targets, "mc2_targets": targets})
    return rows


def write_data(folder: Path, writer: Writer, scale: float) -> None:
    """Mirrors of the four data sets, as on the hub."""
    n = {name: max(2, round(count * scale)) for name, count in DOCUMENTS.items()}
    sets: dict[str, tuple[str, Callable[[Writer, int], list[Row]], dict[str, int]]] = {
        "arc_challenge": ("ARC-Challenge", arc_rows, {"train": 1000, "test": n["arc_challenge"]}),
        "hellaswag": ("default", hellaswag_rows, {"train": 1000, "validation": n["hellaswag"]}),
        "mmlu_abstract_algebra": ("abstract_algebra", mmlu_rows, {"dev": 5, "test": n["mmlu_abstract_algebra"]}),
        "truthfulqa_mc2": ("multiple_choice", truthfulqa_rows, {"validation": n["truthfulqa_mc2"]}),
    }
    for task, (subset, make_rows, splits) in sets.items():
        files = []
        for split, count in splits.items():
            rows = make_rows(writer, count)
            path = folder / task / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
            files.append({"split": split, "path": path.name})
        config = yaml.safe_dump({"configs": [{"config_name": subset, "data_files": files}]})
        (folder / task / "README.md").write_text(f"---\n{config}---\n")


def stock_tasks() -> Path:
    """Where lm-eval's own task definitions are."""
    import lm_eval

    return Path(lm_eval.__file__).parent / "tasks"


def task_manager(folder: Path) -> Any:
    """lm-eval's tasks over the mirrors, one by one as `bench_TASK` and together as `bench`."""
    from lm_eval.tasks import TaskManager

    root = stock_tasks()
    members = [
        {"task": name, "dataset_path": str(folder / name), "num_fewshot": shots} for name, shots in TASKS.items()
    ]
    definitions = folder / "definitions"
    definitions.mkdir()
    for name, tasks in {"bench": members, **{f"bench_{m['task']}": [m] for m in members}}.items():
        (definitions / f"{name}.yaml").write_text(json.dumps({"group": name, "task": tasks}))
    return TaskManager(include_path=[*(str(root / f) for f in FOLDERS), str(definitions)], include_defaults=False)


def random_model(shape: str, writer: Writer, device: str) -> tuple[Any, Any]:
    """A random Llama and a tokenizer for the made-up text."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    prompt = (stock_tasks() / "truthfulqa" / "truthfulqa_mc1.yaml").read_text()  # its shots are real English
    letters = " A B C D\nA. B. C. D.\nAnswer: A\n"  # one token each, as in any real vocabulary
    texts = (writer.text(100) for _ in range(1000))
    tokenizer.train_from_iterator([*texts, *[prompt, letters * 5] * 50], trainer)
    settings = dict(SHAPES[shape])
    dtype = getattr(torch, settings.pop("dtype"))
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(dtype)
        model = LlamaForCausalLM(LlamaConfig(**settings, max_position_embeddings=4096)).eval()
        torch.set_default_dtype(torch.float32)
    return model, PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>")


def loaded_model(path: str, device: str) -> tuple[Any, Any]:
    """A checkpoint."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path, dtype="float32" if device == "cpu" else "auto")
    return model.to(device).eval(), AutoTokenizer.from_pretrained(path)


@dataclass
class Timed:
    """Seconds of repeated runs, and what they gave."""

    seconds: list[float] = field(default_factory=list)
    result: Any = None

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)


def interleaved(runs: Mapping[str, Callable[[], Any]], repeat: int, clock: Callable[[], float]) -> dict[str, Timed]:
    """Runs one after another, and again, each time starting with another one."""
    timed = {name: Timed() for name in runs}
    names = list(runs)
    for i in range(repeat):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            started = clock()
            timed[name].result = runs[name]()
            timed[name].seconds.append(clock() - started)
    return timed


def make_clock(device: str) -> Callable[[], float]:
    """Processor time on a CPU, wall time with everything finished elsewhere."""
    if device == "cpu":
        return time.process_time

    def clock() -> float:
        import torch

        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def documents_of(manager: Any, name: str) -> list[Any]:
    """lm-eval's requests of a task."""
    from cst_bench.capabilities.likelihoods import compiled_templates

    tasks = manager.load([f"bench_{name}"])["tasks"]
    with compiled_templates():
        for task in tasks.values():
            task.set_fewshot_seed(seed=1234)
            task.build_all_requests()
    return [request for task in tasks.values() for request in task.instances]


def encoded(model: Any, requests: Sequence[Any]) -> list[tuple[None, list[int], list[int]]]:
    """Token ids of the requests, by lm-eval's own encoding."""
    return [(None, *model._encode_pair(*request.args)) for request in requests]


def measure_forward(models: dict[str, Any], manager: Any, repeat: int, clock: Callable[[], float]) -> dict[str, Row]:
    """Per task: seconds of every model, agreement with the best stock one, tokens."""
    from cst_bench.capabilities.likelihoods import compare
    from cst_bench.capabilities.likelihoods.planning import unique_tokens

    ours, figures = models["cst-hf"], {}
    for name in TASKS:
        instances = documents_of(manager, name)
        requests = encoded(ours, instances)
        choices = _choices([instance.doc_id for instance in instances])
        before = ours.forwarded_tokens
        runs = {
            label: partial(model._loglikelihood_tokens, requests, disable_tqdm=True) for label, model in models.items()
        }
        timed = interleaved(runs, repeat, clock)
        stock = min((label for label in models if label != "cst-hf"), key=lambda label: timed[label].median)
        result = compare(timed["cst-hf"].result, timed[stock].result, choices)
        pairs = [(context, continuation) for _, context, continuation in requests]
        figures[name] = {
            "documents": len(choices),
            "requests": len(requests),
            "seconds": {label: timed[label].median for label in models},
            "runs": {label: timed[label].seconds for label in models},
            "best_stock": stock,
            "speedup": timed[stock].median / timed["cst-hf"].median,
            "tokens": (ours.forwarded_tokens - before) // repeat,
            "unique_tokens": unique_tokens(pairs, ours.max_length),
            "stock_tokens": sum({(*c, *t[:-1]): len(c) + len(t) - 1 for c, t in pairs}.values()),
            "max_abs_diff": result.max_abs_diff,
            "greedy_mismatches": result.greedy_mismatches,
            "flip_rate": result.flip_rate,
        }
    return figures


def _choices(document_ids: Sequence[int]) -> list[int]:
    counts: dict[int, int] = {}
    for document in document_ids:
        counts[document] = counts.get(document, 0) + 1
    return list(counts.values())


def measure_end_to_end(models: dict[str, Any], manager: Any, repeat: int, clock: Callable[[], float]) -> Row:
    """`simple_evaluate` on the four tasks: loading data, rendering, encoding, scoring and metrics."""
    from lm_eval.evaluator import simple_evaluate

    from cst_bench.capabilities.likelihoods import compiled_templates

    def stock(model: Any) -> Any:
        return simple_evaluate(model=model, tasks=["bench"], task_manager=manager, bootstrap_iters=0)

    def ours() -> Any:
        with compiled_templates():
            return stock(models["cst-hf"])

    runs = {label: partial(stock, model) for label, model in models.items() if label != "cst-hf"}
    timed = interleaved({**runs, "cst-hf": ours}, repeat, clock)
    best = min(runs, key=lambda label: timed[label].median)
    return {
        "seconds": {label: one.median for label, one in timed.items()},
        "best_stock": best,
        "speedup": timed[best].median / timed["cst-hf"].median,
        "same_results": _scores(timed[best].result) == _scores(timed["cst-hf"].result),
    }


def _scores(result: Any) -> Row:
    return {
        task: {k: round(v, 4) for k, v in of.items() if isinstance(v, float)} for task, of in result["results"].items()
    }


def measure_preparation(models: dict[str, Any], manager: Any, clock: Callable[[], float]) -> dict[str, Row]:
    """Milliseconds a document to render the requests and to encode them, without scoring any."""
    from contextlib import nullcontext

    from cst_bench.capabilities.likelihoods import compiled_templates

    stock = next(label for label in models if label != "cst-hf")
    figures: dict[str, Row] = {}
    for name in TASKS:
        figures[name] = {}
        for label in (stock, "cst-hf"):
            model = models[label]
            task = next(iter(manager.load([f"bench_{name}"])["tasks"].values()))
            task.set_fewshot_seed(seed=1234)
            started = clock()
            with compiled_templates() if label == "cst-hf" else nullcontext():
                task.build_all_requests()
            built = clock()
            _encode_only(model, task.instances)
            documents = len({instance.doc_id for instance in task.instances})
            figures[name][label] = {
                "build_ms": 1000 * (built - started) / documents,
                "encode_ms": 1000 * (clock() - built) / documents,
            }
    return figures


def _encode_only(model: Any, requests: list[Any]) -> None:
    scoring = model._loglikelihood_tokens
    model._loglikelihood_tokens = lambda given, **rest: given
    try:
        model.loglikelihood(requests, disable_tqdm=True)
    finally:
        model._loglikelihood_tokens = scoring


def summary(tasks: dict[str, Row], end_to_end: Row | None, preparation: dict[str, Row], about: Row) -> Row:
    """What is written as JSON."""
    ours = sum(row["seconds"]["cst-hf"] for row in tasks.values())
    stock = sum(row["seconds"][row["best_stock"]] for row in tasks.values())
    read, unique = (sum(row[key] for row in tasks.values()) for key in ("tokens", "unique_tokens"))
    return {
        "speedup": stock / ours,
        "speedup_end_to_end": end_to_end and end_to_end["speedup"],
        "max_abs_diff": max(row["max_abs_diff"] for row in tasks.values()),
        "greedy_mismatches": sum(row["greedy_mismatches"] for row in tasks.values()),
        "token_ratio_to_unique": read / unique,
        "tasks": tasks,
        "end_to_end": end_to_end,
        "preparation": preparation,
        **about,
    }


def show(result: Row) -> None:
    """Prints the tables."""
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
    if result["end_to_end"] is not None:
        seconds = ", ".join(f"{label} {value:.1f} s" for label, value in result["end_to_end"]["seconds"].items())
        same = "the same scores" if result["end_to_end"]["same_results"] else "OTHER SCORES"
        console.print(f"simple_evaluate on the four: {seconds}; {result['speedup_end_to_end']:.2f} times, {same}")
    for name, row in result["preparation"].items():
        figures = ", ".join(f"{m} {v['build_ms']:.2f} + {v['encode_ms']:.2f}" for m, v in row.items())
        console.print(f"preparing {name}, ms a document to build + encode: {figures}")
    if result["fallback_reason"]:
        console.print(f"cst-hf scored the stock way: {result['fallback_reason']}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a checkpoint instead of a random Llama")
    parser.add_argument("--shape", choices=SHAPES, default="tiny", help="of the random Llama")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--auto", action="store_true", help="stock at batch_size auto, too")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="times as many documents")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-end-to-end", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HF_DATASETS_CACHE"] = str(Path(temporary) / "cache")
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # lm-eval draws bars for all it does
            result = measure(options, Path(temporary))
    show(result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def measure(options: argparse.Namespace, folder: Path) -> Row:
    """All of it."""
    import datasets
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM

    from cst_bench.capabilities.likelihoods import CstHFLM

    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    torch.set_num_threads(options.threads)
    writer, clock = Writer(), make_clock(options.device)
    write_data(folder, writer, options.scale)
    manager = task_manager(folder)
    model, tokenizer = (
        loaded_model(options.model, options.device)
        if options.model
        else random_model(options.shape, writer, options.device)
    )
    models = {f"hf batch {size}": HFLM(model, tokenizer=tokenizer, batch_size=size) for size in (1, 8)}
    if options.auto:
        models["hf batch auto"] = HFLM(model, tokenizer=tokenizer, batch_size="auto")
    models["cst-hf"] = CstHFLM(model, tokenizer=tokenizer, batch_size=8)
    for one in models.values():  # warms up, and has ours checked
        one._loglikelihood_tokens([(None, [1, 2, 3], [4, 5])], disable_tqdm=True)
    tasks = measure_forward(models, manager, options.repeat, clock)
    preparation = measure_preparation(models, manager, clock)
    end_to_end = None if options.no_end_to_end else measure_end_to_end(models, manager, options.repeat, clock)
    about = {
        "model": options.model or f"random Llama ({options.shape})",
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
        "fallback_reason": models["cst-hf"].fallback_reason,
    }
    return summary(tasks, end_to_end, preparation, about)


if __name__ == "__main__":
    main()
