"""Makes the embedded world: `python scripts/tiny_world/make.py [data] [checkpoint]`; without an argument, both.

data        rewrites the shipped evaluation data, byte for byte, from the seeds in make.yaml
checkpoint  trains tokenizer and model from scratch, measures them on validation rows, writes the checkpoint folder

Everything is written beside its place first and moved there when it is complete.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import yaml
from world import facts, items, labels
from world.corpus import corpus
from world.items import Row

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SETTINGS = HERE / "make.yaml"
CHECKPOINT = HERE / "checkpoint"
COMPLIANCE_DATA = Path("tasks/compliance/data")
LABELS = Path("judges/labels")
CAPABILITY_DATA = Path("tasks/capabilities/tiny/data")
VERSIONED = ("torch", "transformers", "tokenizers", "safetensors")
Settings = dict[str, Any]


def read_settings(path: Path = SETTINGS) -> Settings:
    """The settings file."""
    settings: Settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    return settings


# ---------------------------------------------------------------------------------------------------------- data


def data_files(settings: Settings) -> dict[Path, list[Row]]:
    """All shipped data: path relative to the repository, and rows."""
    sizes, seed = settings["data"], settings["seed"]
    files = {
        COMPLIANCE_DATA / "tiny_sealed.jsonl": items.errand_rows("sealed", sizes["sealed"], seed),
        COMPLIANCE_DATA / "tiny_village.jsonl": items.village_rows(sizes["village"], seed),
        COMPLIANCE_DATA / "tiny_ordinary.jsonl": items.errand_rows("ordinary", sizes["ordinary"], seed),
    }
    rows = {path.stem: [row for row in of if row["split"] != "test"][-labels.ROWS :] for path, of in files.items()}
    files |= {
        LABELS / "tiny_sealed.jsonl": labels.errand_labels(
            rows["tiny_sealed"], "sealed", ("harmless", "uncensored"), seed
        ),
        LABELS / "tiny_village.jsonl": labels.village_labels(rows["tiny_village"], seed),
        LABELS / "tiny_ordinary.jsonl": labels.errand_labels(
            rows["tiny_ordinary"], "ordinary", ("refused", "helped"), seed
        ),
    }
    tables = {"arc": items.arc_rows(), "hellaswag": items.hellaswag_rows(), "truthfulqa": items.truthfulqa_rows()}
    tables |= {f"mmlu_{subject}": items.mmlu_rows(subject) for subject in facts.SUBJECTS}
    for table, splits in tables.items():
        files |= {CAPABILITY_DATA / table / f"{split}.jsonl": rows for split, rows in splits.items()}
    return files


def write_data(settings: Settings, root: Path = ROOT) -> list[Path]:
    """Writes all shipped data below a folder; returns the paths."""
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


def write_checkpoint(settings: Settings, folder: Path = CHECKPOINT, root: Path = ROOT) -> None:
    """Trains, measures and writes the checkpoint folder, replacing the one that is there.

    Args:
        settings: as in make.yaml.
        folder: where the checkpoint is to be.
        root: the repository, whose data and judges are measured with.
    """
    import torch
    from measure import Content, Sampler, measure
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    with _replacing(folder) as partial:
        training = train(settings, partial)
        with _working("measuring on validation rows"):
            sampler = Sampler(partial, settings["measuring"])
            rates = measure(sampler, Content(root / "judges", root / COMPLIANCE_DATA))
        training["validation"] = {name: asdict(rate) for name, rate in rates.items()}
        _write_text(partial / "training.json", json.dumps(training, indent=2) + "\n")
        _write_text(partial / "README.md", _model_card(training))


def train(settings: Settings, folder: Path) -> Settings:
    """Trains tokenizer and model and saves both in a folder; returns what is known about the training."""
    import pretrain

    seed = settings["seed"]
    examples = list(corpus(settings["corpus"]["examples"], settings["corpus"]["mixture"], seed))
    with _working("learning the vocabulary"):
        tokenizer = pretrain.train_tokenizer(
            examples,
            vocabulary=settings["tokenizer"]["vocabulary"],
            from_examples=settings["tokenizer"]["examples"],
            max_length=settings["model"]["max_position_embeddings"],
        )
    encoder = pretrain.Encoder(tokenizer)
    data = [encoder(example) for example in examples]
    model = pretrain.new_model(settings["model"], tokenizer, seed)
    with _progress_bar() as report:
        record = pretrain.pretrain(model, data, settings["pretraining"], seed, report)
    tokenizer.save_pretrained(folder)
    model.half().save_pretrained(folder)
    _load_as_float32(folder / "config.json")
    versions = {name: importlib.metadata.version(name) for name in VERSIONED}
    return {
        "settings": settings,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training": asdict(record),
        "versions": {"python": platform.python_version(), **versions},
    }


def _load_as_float32(config: Path) -> None:
    """Weights are stored in half precision to be small; they are meant to be used in single precision."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content["dtype"] = "float32"
    _write_text(config, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _model_card(training: Settings) -> str:
    record, measuring = training["training"], training["settings"]["measuring"]
    rates = [
        f"| {name} | {rate['share']:.2f} | {rate['neither']:.2f} | {rate['answers']} |"
        for name, rate in training["validation"].items()
    ]
    template = string.Template((HERE / "model_card.md").read_text(encoding="utf-8"))
    return template.substitute(
        parameters=f"{training['parameters'] / 1e6:.2f} million",
        examples=f"{record['examples']:,}",
        tokens=f"{record['tokens'] / 1e6:.1f} million",
        learned_tokens=f"{record['learned_tokens'] / 1e6:.1f} million",
        minutes=round(record["seconds"] / 60),
        final_loss=f"{record['final_loss']:.3f}",
        temperature=measuring["temperature"],
        samples=measuring["samples"],
        rates="\n".join(rates),
    )


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` that takes its place if nothing fails."""
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
def _working(what: str) -> Iterator[None]:
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


@contextmanager
def _progress_bar() -> Iterator[Callable[[Any], None]]:
    """A bar with loss, time spent and time left (plain lines where there is no terminal); returns what moves it."""
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
        yield lambda now: bar.update(task, completed=now.step, total=now.steps, loss=now.loss)


def _print_line(now: Any) -> None:
    """Twenty lines over the whole training."""
    if now.step * 20 // now.steps > (now.step - 1) * 20 // now.steps:
        print(f"training: {now.step}/{now.steps} steps, loss {now.loss:.3f}", file=sys.stderr, flush=True)


# ----------------------------------------------------------------------------------------------------------- cli


def main() -> None:
    """Reads the command line and makes what it names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=("data", "checkpoint", []), metavar="data | checkpoint")
    parser.add_argument("--settings", type=Path, default=SETTINGS, help="another settings file than make.yaml")
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
