"""Seconds a preference pair: TRL's DPO trainer at every batch size, reference live or before, against packed pairs.

python benchmarks/training.py [--model FOLDER [--pairs FILE]] [--dtype bfloat16] [--device cuda] [--json FILE]

An optimizer step is of 8 pairs for all, whatever the batch (the rest is accumulation). Without `--model`, a random
Llama. The pairs are random tokens of lengths like those of the pairs released with the paper (harmful prompts, 1.3
tokens a word): prompts of 43 tokens, an answer around 350 and a refusal around 110, either of which may be the chosen
one; `--pairs` takes random training rows of a file instead. All settings take the same pairs in the same order; on a
CPU in turns, each starting with another setting, and on a GPU, where they don't fit side by side, one setting after
another. What is timed is collation, forward and backward pass, in processor time on a CPU and wall time elsewhere: each
batch's median over the turns, summed, so that what else the machine does at some moment doesn't count. In bfloat16 on a
CPU, packed training also runs in float32; `from_fp32` says how far loss and gradients of packed training and of TRL
differ from it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from timing import make_clock

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

Row = dict[str, Any]
STEP = 8
"""Pairs of an optimizer step."""
BATCHES = (1, 2, 4, 8)
SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 2048},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256},
    "7b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 32000},
}  # fmt: skip
"""Random Llamas."""


@dataclass
class Setting:
    """A way to train, and what was measured of it."""

    label: str
    packed: bool
    batch: int
    before: bool
    """Whether reference log-probabilities are computed before training."""
    dtype: str
    trainer: Any = None
    training: list[list[float]] = field(default_factory=list)
    """Seconds of each batch, a list for each turn."""
    reference: list[list[float]] = field(default_factory=list)
    peak_memory: int | None = None

    @property
    def seconds(self) -> float:
        """Return the seconds of one epoch, the reference included."""
        return epoch(self.training) + epoch(self.reference)


def epoch(turns: list[list[float]]) -> float:
    """Return the sum over the batches of each batch's median over the turns."""
    return sum(map(statistics.median, zip(*turns, strict=True)))


def settings(options: argparse.Namespace) -> list[Setting]:
    """Return all that are compared."""
    batches, dtype = options.batches, options.dtype
    stock = [
        Setting(
            f"TRL, batch {batch} × {STEP // batch}{', reference before' if before else ''}", False, batch, before, dtype
        )
        for batch in batches
        for before in (False, True)
    ]
    packed = [Setting(f"packed, batch {batch} × {STEP // batch}", True, batch, True, dtype) for batch in batches]
    if compares_with_fp32(options):
        packed += [
            Setting(f"packed, batch {batch} × {STEP // batch}, float32", True, batch, True, "float32")
            for batch in batches
        ]
    return [*stock, *packed]


def compares_with_fp32(options: argparse.Namespace) -> bool:
    """Return whether packed training is also measured in float32."""
    return options.dtype != "float32" and options.device == "cpu"


def make_rows(count: int, vocabulary: int) -> list[dict[str, list[int]]]:
    """Pairs of random tokens."""
    draw = random.Random(0)

    def ids(median: float, spread: float, most: int) -> list[int]:
        length = min(most, max(6, round(draw.lognormvariate(0, spread) * median)))
        return [draw.randrange(3, vocabulary) for _ in range(length)]

    rows = []
    for _ in range(count):
        responses = [ids(350, 0.5, 500), ids(110, 0.37, 480)]
        draw.shuffle(responses)
        rows.append({"prompt_ids": ids(43, 0.12, 63), "chosen_ids": responses[0], "rejected_ids": responses[1]})
    return rows


def read_rows(options: argparse.Namespace) -> list[dict[str, list[int]]]:
    """Return the token ids of random rows of a file, as `cst-bench train` makes them, none longer than 1,024 tokens."""
    from cst_bench.checkpoint import CheckpointOptions, find_checkpoint, load_chat
    from cst_bench.tuning.dataset import read_data, tokenize

    chat = load_chat(find_checkpoint(CheckpointOptions(options.model)))
    data = read_data(options.pairs, task=None, method="cst", method_named=False, columns={})
    rows = list(data.rows)
    random.Random(0).shuffle(rows)
    columns = tokenize(rows[: 2 * options.count], chat, 1024, "drop").columns
    return [dict(zip(columns, ids)) for ids in zip(*columns.values(), strict=True)][: options.count]


def load(options: argparse.Namespace, dtype: str) -> tuple[Any, Any]:
    """Return the model and its tokenizer (of a random model: a stand-in)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    if options.model:
        model = AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, dtype)).to(options.device)
        return model, AutoTokenizer.from_pretrained(options.model)
    torch.manual_seed(0)
    with torch.device(options.device):
        torch.set_default_dtype(torch.float32 if options.device == "cpu" else getattr(torch, dtype))
        model = LlamaForCausalLM(LlamaConfig(**SHAPES[options.shape], max_position_embeddings=2048))
        torch.set_default_dtype(torch.float32)
    for parameter in model.parameters():  # the same numbers in all dtypes; those of the rope stay in float32
        parameter.data = parameter.data.to(getattr(torch, dtype))
    return model, _tokenizer()


def vocabulary(options: argparse.Namespace) -> int:
    """Return the size of the model's vocabulary, without loading its weights."""
    from transformers import AutoConfig

    if not options.model:
        return SHAPES[options.shape]["vocab_size"]
    return int(AutoConfig.from_pretrained(options.model).get_text_config().vocab_size)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, unk_token="</s>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def make_trainer(setting: Setting, options: argparse.Namespace, rows: list[Row], work: Path) -> Any:
    """TRL's trainer or ours; LoRA on all linear layers, or all weights."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig

    from cst_bench.tuning.packed import PackedDPOTrainer, TokenizedDPOTrainer

    model, tokenizer = load(options, setting.dtype)
    args = DPOConfig(
        str(work),
        per_device_train_batch_size=setting.batch,
        gradient_accumulation_steps=STEP // setting.batch,
        precompute_ref_log_probs=setting.before,
        precompute_ref_batch_size=setting.batch,
        gradient_checkpointing=options.gradient_checkpointing,
        use_cpu=options.device == "cpu",
        bf16=setting.dtype == "bfloat16" and options.device != "cpu",
        report_to="none",
        dataloader_pin_memory=options.device != "cpu",
    )
    lora = LoraConfig(r=options.lora, lora_alpha=2 * options.lora, target_modules="all-linear", task_type="CAUSAL_LM")
    with patch("trl.trainer.dpo_trainer.hash_module", lambda _: ""):  # a minute for 7B, and not what is compared
        trainer = (PackedDPOTrainer if setting.packed else TokenizedDPOTrainer)(
            model,
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=lora if options.lora else None,
        )
    if options.gradient_checkpointing:
        trainer.model.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)
    trainer.model.train()
    return trainer


def train(trainer: Any, rows: range) -> None:
    """Forward and backward over a batch, as TRL's training step does it."""
    with trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(trainer.model, collated(trainer, rows))
    trainer.accelerator.backward(loss)


def compute_reference(trainer: Any, rows: range) -> None:
    """Return the reference log-probabilities of a batch."""
    trainer.compute_ref_log_probs(trainer.model, collated(trainer, rows))


def collated(trainer: Any, rows: range) -> Any:
    """Return some pairs as the trainer gets them."""
    return trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[index] for index in rows]))


def measure(some: list[Setting], repeat: int, device: str) -> None:
    """Time settings in turns."""
    clock = make_clock(device)

    def timed(work: Callable[[Any, range], None], setting: Setting) -> list[float]:
        seconds = []
        rows = range(len(setting.trainer.train_dataset))
        for start in rows[:: setting.batch]:
            started = clock()
            work(setting.trainer, rows[start : start + setting.batch])
            seconds.append(clock() - started)
        setting.trainer.model.zero_grad()
        return seconds

    for setting in some:
        timed(train, setting)  # to warm up
    for turn in range(repeat):
        shift = turn % len(some)
        for setting in some[shift:] + some[:shift]:
            _reset_peak(device)
            setting.training.append(timed(train, setting))
            setting.peak_memory = _peak(device)
            if setting.before:
                setting.reference.append(timed(compute_reference, setting))


def _reset_peak(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> int | None:
    import torch

    return None if device == "cpu" else int(torch.cuda.max_memory_allocated())


def moved(trainer: Any) -> tuple[float, dict[str, Any]]:
    """Return loss and gradients on one batch, with weights that have moved."""
    import torch

    generator = torch.Generator().manual_seed(1)
    for name, parameter in sorted(trainer.model.named_parameters()):
        if parameter.requires_grad and "lora_A" not in name:
            noise = 0.01 * torch.randn(parameter.shape, generator=generator)
            parameter.data.add_(noise.to(parameter.device, parameter.dtype))
    with trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(trainer.model, collated(trainer, range(min(STEP, len(trainer.train_dataset)))))
    loss.backward()
    return loss.item(), {n: p.grad.float() for n, p in trainer.model.named_parameters() if p.grad is not None}


def difference(ours: tuple[float, dict[str, Any]], theirs: tuple[float, dict[str, Any]]) -> Row:
    """Return how far loss and gradients differ: the largest relative norm of a weight's, and that of all together."""
    (loss, gradients), (other, others) = ours, theirs
    squares = {n: (float((gradients[n] - g).square().sum()), float(g.square().sum())) for n, g in others.items()}
    relative = max((apart / max(size, 1e-24)) ** 0.5 for apart, size in squares.values())
    apart, size = (sum(values) for values in zip(*squares.values(), strict=True))
    return {"loss_diff": abs(loss - other), "grad_rel_diff": relative, "grad_rel_diff_overall": (apart / size) ** 0.5}


def summary(all_settings: list[Setting], agreement: Row, from_fp32: dict[str, Row], options: argparse.Namespace) -> Row:
    """Return the results as JSON."""
    import torch
    import transformers
    import trl

    best = min((one for one in all_settings if not one.packed), key=lambda one: one.seconds)
    packed = [one for one in all_settings if one.packed]
    ours = min((one for one in packed if one.dtype == options.dtype), key=lambda one: one.seconds)
    in_fp32 = min((one for one in packed if one.dtype == "float32"), key=lambda one: one.seconds, default=ours)
    quickest = min(epoch(one.training) for one in all_settings if not one.packed)
    default = max((one for one in all_settings if not one.packed and not one.before), key=lambda one: one.batch)
    return {
        "speedup_vs_best": best.seconds / ours.seconds,
        "speedup_reference_known": quickest / epoch(ours.training),
        "speedup_vs_default": default.seconds / ours.seconds,
        "speedup_vs_own_fp32": in_fp32.seconds / ours.seconds if in_fp32 is not ours else None,
        "training_vs_own_fp32": epoch(in_fp32.training) / epoch(ours.training) if in_fp32 is not ours else None,
        **agreement,
        "from_fp32": from_fp32,
        "best_stock": best.label,
        "best_packed": ours.label,
        "settings": [
            {
                "label": one.label,
                "seconds_per_pair": one.seconds / options.count,
                "training_per_pair": epoch(one.training) / options.count,
                "reference_per_pair": epoch(one.reference) / options.count if one.before else None,
                "training_turns": [sum(turn) for turn in one.training],
                "reference_turns": [sum(turn) for turn in one.reference],
                "peak_memory": one.peak_memory,
            }
            for one in all_settings
        ],
        "pairs": options.count,
        "model": Path(options.model).name if options.model else f"random Llama, {options.shape}",
        "data": options.pairs.name if options.pairs else "random tokens",
        "lora": options.lora,
        "device": options.device if options.device == "cpu" else torch.cuda.get_device_name(options.device),
        "dtype": options.dtype,
        "gradient_checkpointing": options.gradient_checkpointing,
        "threads": torch.get_num_threads(),
        "packages": {"torch": torch.__version__, "transformers": transformers.__version__, "trl": trl.__version__},
    }


def show(result: Row) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("setting", "s a pair", "training", "reference", "peak GB", title="Training, one epoch")
    for row in result["settings"]:
        reference, memory = row["reference_per_pair"], row["peak_memory"]
        table.add_row(
            row["label"], f"{row['seconds_per_pair']:.4f}", f"{row['training_per_pair']:.4f}",
            "in training" if reference is None else f"{reference:.4f}",
            "–" if memory is None else f"{memory / 1e9:.2f}",
        )  # fmt: skip
    console = Console(width=100)
    console.print(table)
    console.print(
        f"{result['speedup_vs_best']:.2f} times as quick as TRL at its best ({result['best_stock']}), "
        f"{result['speedup_reference_known']:.2f} where the reference is known to both; "
        f"loss differs by {result['loss_diff']:.1e}, gradients by {result['grad_rel_diff']:.1e}"
    )
    if result["speedup_vs_own_fp32"] is not None:
        console.print(f"{result['speedup_vs_own_fp32']:.2f} times as quick as packed in float32; differences from it:")
    for label, row in result["from_fp32"].items():
        console.print(
            f"{label}: loss {row['loss_diff']:.1e}, gradients {row['grad_rel_diff']:.1e} of a weight, "
            f"{row['grad_rel_diff_overall']:.1e} of all"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a checkpoint instead of a random Llama")
    parser.add_argument("--shape", choices=SHAPES, default="tiny", help="of the random Llama")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--lora", type=int, default=16, metavar="R", help="rank; 0 trains all weights")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--batches", type=int, nargs="+", choices=BATCHES, default=BATCHES, help="pairs of a pass")
    parser.add_argument("--pairs", type=Path, help="file of training rows instead of random tokens; needs --model")
    parser.add_argument("--count", type=int, default=24, help="number of pairs")
    parser.add_argument("--repeat", type=int, default=5, help="turns")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    rows = read_rows(options) if options.pairs else make_rows(options.count, vocabulary(options))
    all_settings = settings(options)
    with tempfile.TemporaryDirectory() as folder:

        def made(setting: Setting) -> Any:
            return make_trainer(setting, options, rows, Path(folder) / str(all_settings.index(setting)))

        for some in [all_settings] if options.device == "cpu" else [[one] for one in all_settings]:
            for setting in some:
                setting.trainer = made(setting)
            measure(some, options.repeat, options.device)
            for setting in some:
                setting.trainer = None
            gc.collect()  # a trainer and its model refer to each other
        batch = max(options.batches)
        stock = next(one for one in all_settings if not one.packed and one.batch == batch and one.before)
        theirs = moved(made(stock))
        packed = [one for one in all_settings if one.packed and one.batch == batch]
        ours = moved(made(packed[0]))
        from_fp32 = {}
        if compares_with_fp32(options):
            exact = moved(made(packed[1]))
            from_fp32 = {"packed": difference(ours, exact), "TRL": difference(theirs, exact)}
    result = summary(all_settings, difference(ours, theirs), from_fp32, options)
    show(result)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
