"""Measure small public models where their makers published figures, by the rows of reports/known_answers.yaml.

    python scripts/known_answers.py --checkpoint "SmolLM2-135M-Instruct=FOLDER" --checkpoint "Gemma 3 270M=FILE.gguf" \
        --data-dir DIR [--documents 1000] [--dtype bfloat16]

Each task is lm-eval's own, with the row's shots, scored by `cst-hf` without a chat template. Scores are written to
reports/known_answers.json as they come, and those that are there with the same settings are not measured again;
scripts/publish.py makes the table of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cst_bench.capabilities import evaluate_capability, load_capability
from cst_bench.checkpoint import CheckpointOptions
from cst_bench.checkpoint.loading import load_checkpoint
from cst_bench.content import content_root
from cst_bench.files import read_json, write_json
from cst_bench.runs.local_data import local_data
from cst_bench.statistics.intervals import wilson

ROWS = content_root() / "reports" / "known_answers.yaml"
SCORES = content_root() / "reports" / "known_answers.json"


def measure(row: Mapping[str, Any], options: argparse.Namespace, checkpoint: Path) -> dict[str, object]:
    """Score a row's model on its task.

    Args:
        row: Row of `known_answers.yaml`.
        options: Options of the command line.
        checkpoint: Checkpoint of the row's model.
    """
    task, path = load_capability(row["task"])
    task = task.model_copy(update={"num_fewshot": row["shots"]})
    data = local_data({}, options.data_dir, {task.name: (task.name, *task.local_names)})[task.name]
    loaded = load_checkpoint(CheckpointOptions(str(checkpoint), dtype=options.dtype))
    documents = max(1, options.documents // 57) if task.is_group else options.documents
    result = evaluate_capability(loaded, task, path, data=data, documents=documents)
    assert result.score is not None
    return {
        **settings_of(row, options),
        "metric": result.metric,
        "score": result.score,
        "interval": list(wilson(result.score * result.n, result.n) or ()),
        "n": result.n,
        "documents_sha256": result.documents_sha256,
        "weights_sha256": loaded.identity.weights_sha256,
    }


def settings_of(row: Mapping[str, Any], options: argparse.Namespace) -> dict[str, object]:
    """Return what a score is identified by."""
    return {
        "model": row["model"],
        "task": row["task"],
        "shots": row["shots"],
        "documents": options.documents,
        "dtype": options.dtype,
    }


def main() -> None:
    """Measure the rows whose checkpoints are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", action="append", required=True, metavar="MODEL=PATH", help="repeatable")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with the tasks' data")
    parser.add_argument("--documents", type=int, default=1000, help="random documents of each task")
    parser.add_argument("--dtype", default="auto", help="data type of the weights")
    options = parser.parse_args()
    checkpoints = {model: Path(path) for model, _, path in (given.partition("=") for given in options.checkpoint)}
    rows = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    known = [row["model"] for row in rows]
    if unknown := checkpoints.keys() - {*known}:
        parser.error(f"--checkpoint {min(unknown)}=…: {ROWS.name} has {', '.join(dict.fromkeys(known))}")
    scores: Any = read_json(SCORES) if SCORES.is_file() else []
    for row in rows:
        settings = settings_of(row, options)
        if row["model"] not in checkpoints or any(settings.items() <= score.items() for score in scores):
            continue
        score = measure(row, options, checkpoints[row["model"]])
        print(f"{row['model']}, {row['task']}, {row['shots']} shots: {score['score']:.3f}, n {score['n']}", flush=True)
        same = [other for other in scores if all(other[key] == row[key] for key in ("model", "task", "shots"))]
        scores = [*(other for other in scores if other not in same), score]
        write_json(SCORES, scores)


if __name__ == "__main__":
    main()
