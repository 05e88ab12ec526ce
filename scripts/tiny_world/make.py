"""Make the embedded world: `python scripts/tiny_world/make.py [data] [checkpoint]`; without an argument, both.

data        rewrites the shipped evaluation data, byte for byte, from the seeds in make.yaml
checkpoint  trains tokenizer and model from scratch, measures them on validation rows, writes the checkpoint folder

Every file is written under a temporary name and moved into place when it is complete.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import string
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import yaml
from make_settings import CheckpointRecord, TrainingRecord, WorldSettings
from world import facts, items, labels
from world.corpus import corpus
from world.items import ItemRow

if TYPE_CHECKING:
    from pretrain import PretrainingStep

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SETTINGS = HERE / "make.yaml"
CHECKPOINT = ROOT / "training" / "tiny" / "checkpoint"
COMPLIANCE_DATA = Path("tasks/compliance/data")
LABELS = Path("judges/labels")
CAPABILITY_DATA = Path("tasks/capabilities/tiny/data")
VERSIONED = ("torch", "transformers", "tokenizers", "safetensors")


def read_settings(path: Path = SETTINGS) -> WorldSettings:
    """Read a settings file."""
    settings: WorldSettings = yaml.safe_load(path.read_text(encoding="utf-8"))
    return settings


# ---------------------------------------------------------------------------------------------------------- data


def data_files(settings: WorldSettings) -> dict[Path, Sequence[Mapping[str, object]]]:
    """Generate all shipped data: path relative to the repository → rows."""
    sizes, seed = settings["data"], settings["seed"]
    prompts = {
        COMPLIANCE_DATA / "tiny_sealed.jsonl": items.errand_rows("sealed", sizes["sealed"], seed),
        COMPLIANCE_DATA / "tiny_village.jsonl": items.village_rows(sizes["village"], seed),
        COMPLIANCE_DATA / "tiny_ordinary.jsonl": items.errand_rows("ordinary", sizes["ordinary"], seed),
    }
    answered = {
        path.stem: [row for row in rows if row["split"] != "test"][-labels.ROWS :] for path, rows in prompts.items()
    }
    files: dict[Path, Sequence[Mapping[str, object]]] = {
        **prompts,
        LABELS / "tiny_sealed.jsonl": labels.errand_labels(
            answered["tiny_sealed"], "sealed", ("harmless", "uncensored"), seed
        ),
        LABELS / "tiny_village.jsonl": labels.village_labels(answered["tiny_village"], seed),
        LABELS / "tiny_ordinary.jsonl": labels.errand_labels(
            answered["tiny_ordinary"], "ordinary", ("refused", "helped"), seed
        ),
    }
    tables: dict[str, dict[str, list[ItemRow]]] = {
        "arc": items.arc_rows(),
        "hellaswag": items.hellaswag_rows(),
        "truthfulqa": items.truthfulqa_rows(),
    }
    tables |= {f"mmlu_{subject}": items.mmlu_rows(subject) for subject in facts.SUBJECTS}
    for table, splits in tables.items():
        files |= {CAPABILITY_DATA / table / f"{split}.jsonl": rows for split, rows in splits.items()}
    return files


def write_data(settings: WorldSettings, root: Path = ROOT) -> list[Path]:
    """Write all shipped data into a folder; return the paths."""
    written = []
    for relative, rows in data_files(settings).items():
        path = root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        partial.write_text("".join(lines), encoding="utf-8", newline="\n")
        os.replace(partial, path)
        written.append(path)
    return written


# ---------------------------------------------------------------------------------------------------- checkpoint


def write_checkpoint(settings: WorldSettings, folder: Path = CHECKPOINT, root: Path = ROOT) -> None:
    """Train, measure and write the checkpoint folder, replacing an existing one.

    Args:
        settings: Content of make.yaml.
        folder: Checkpoint folder.
        root: Repository with the data and judges to measure with.
    """
    import torch
    from measure import Sampler, ShippedFiles, measure
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    with _replacing(folder) as partial:
        training = train(settings, partial)
        with _working("measuring on validation rows"):
            sampler = Sampler(partial, settings["measuring"])
            rates = measure(sampler, ShippedFiles(root / "judges", root / COMPLIANCE_DATA))
        record: CheckpointRecord = {
            **training,
            "validation": {name: asdict(rate) for name, rate in rates.items()},
        }
        _write_text(partial / "training.json", json.dumps(record, indent=2) + "\n")
        _write_text(partial / "README.md", model_card(record))


def train(settings: WorldSettings, folder: Path) -> TrainingRecord:
    """Train tokenizer and model, save both in a folder, and return the record of the training."""
    import pretrain

    seed = settings["seed"]
    examples = list(corpus(settings["corpus"]["examples"], settings["corpus"]["mixture"], seed))
    with _working("learning the vocabulary"):
        tokenizer = pretrain.train_tokenizer(
            examples,
            vocabulary=settings["tokenizer"]["vocabulary"],
            from_examples=settings["tokenizer"]["examples"],
            max_length=int(settings["model"]["max_position_embeddings"]),
        )
    encoder = pretrain.Encoder(tokenizer)
    data = [encoder(example) for example in examples]
    model = pretrain.new_model(settings["model"], tokenizer, seed)
    with _progress_bar() as report:
        summary = pretrain.pretrain(model, data, settings["pretraining"], seed, report)
    tokenizer.save_pretrained(folder)
    model.half().save_pretrained(folder)
    _load_as_float32(folder / "config.json")
    versions = {name: importlib.metadata.version(name) for name in VERSIONED}
    return {
        "settings": settings,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training": asdict(summary),
        "versions": {"python": platform.python_version(), **versions},
    }


def _load_as_float32(config: Path) -> None:
    """Set the dtype of the config to float32: weights are stored in half precision to be small, and used in single."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content["dtype"] = "float32"
    _write_text(config, json.dumps(content, indent=2, sort_keys=True) + "\n")


def model_card(record: CheckpointRecord) -> str:
    """Fill in the template of the model card."""
    training, measuring = record["training"], record["settings"]["measuring"]
    rates = [
        f"| {name} | {rate['share']:.2f} | {rate['neither']:.2f} | {rate['answers']} |"
        for name, rate in record["validation"].items()
    ]
    template = string.Template((HERE / "model_card.md").read_text(encoding="utf-8"))
    return template.substitute(
        parameters=f"{record['parameters'] / 1e6:.2f} million",
        examples=f"{training['examples']:,}",
        tokens=f"{training['tokens'] / 1e6:.1f} million",
        learned_tokens=f"{training['learned_tokens'] / 1e6:.1f} million",
        minutes=round(training["seconds"] / 60),
        final_loss=f"{training['final_loss']:.3f}",
        temperature=measuring["temperature"],
        samples=measuring["samples"],
        rates="\n".join(rates),
    )


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yield a new folder that replaces `folder` if nothing fails."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        partial = Path(scratch) / "new"
        partial.mkdir()
        yield partial
        if folder.exists():
            shutil.move(folder, Path(scratch) / "old")
        shutil.move(partial, folder)


# ------------------------------------------------------------------------------------------------------ progress


@contextmanager
def _working(message: str) -> Iterator[None]:
    from rich.console import Console

    with Console(stderr=True).status(message):
        yield


@contextmanager
def _progress_bar() -> Iterator[Callable[[PretrainingStep], None]]:
    """Yield a function that shows a step: a bar on a terminal, otherwise plain lines."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _print_line
        return
    columns = (
        TextColumn("training"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TextColumn("spent,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training", loss=float("nan"), total=None)
        yield lambda step: bar.update(task, completed=step.number, total=step.total, loss=step.loss)


def _print_line(step: PretrainingStep) -> None:
    """Print a step in every twentieth of the training."""
    if step.number * 20 // step.total > (step.number - 1) * 20 // step.total:
        print(f"training: {step.number}/{step.total} steps, loss {step.loss:.3f}", file=sys.stderr, flush=True)


# ----------------------------------------------------------------------------------------------------------- cli


def main() -> None:
    """Make the parts named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=("data", "checkpoint", []), metavar="data | checkpoint")
    parser.add_argument("--settings", type=Path, default=SETTINGS, help="settings file (default: make.yaml)")
    arguments = parser.parse_args()
    parts = arguments.parts or ["data", "checkpoint"]
    settings = read_settings(arguments.settings)
    if "data" in parts:
        for path in write_data(settings):
            print(path.relative_to(ROOT))
    if "checkpoint" in parts:
        write_checkpoint(settings)
        print(CHECKPOINT.relative_to(ROOT))


if __name__ == "__main__":
    main()
