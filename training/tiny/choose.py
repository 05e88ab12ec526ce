"""Chooses the settings of the recipe `tiny` on the validation division, and writes down what was tried.

    python training/tiny/choose.py [--work FOLDER]

CST alone decides: the settings with the highest mean of S1, S0, S_RP and S_A on validation prompts, at seed 0. DPO
takes them over. First learning rate and weight of the chosen response's own likelihood (sft) together, then the
epochs. The result is in choice.json. Test prompts play no part.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cst_bench.files import write_json
from cst_bench.reproduce.plan import load_reproduction

CHOICE = Path(__file__).parent / "choice.json"
RATES = (2.5e-4, 5e-4, 1e-3)
WEIGHTS = (0.2, 0.5, 1.0)
EPOCHS = (1, 2, 4)
FIRST_EPOCHS = 2


def call(*command: str) -> None:
    """One command of the project, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    subprocess.run(
        [sys.executable, "-m", "cst_bench", *command], check=True, env=environment, stdout=subprocess.DEVNULL
    )


def make_rows(work: Path) -> Path:
    """CST's rows of all tasks, from the base's own pairs."""
    rows = []
    for task, critique in load_reproduction("tiny").critiques.items():
        call("data", "critique", "tiny", "--task", task, "--critique", critique, "--out", str(work / task))
        rows.append(str(work / f"{task}.jsonl"))
        pairs = str(work / task / "pairs.jsonl")
        call("data", "flip", pairs, "--task", task, "--method", "cst", "--out", rows[-1])
    call("data", "mix", *rows, "--out", str(work / "rows.jsonl"))
    return work / "rows.jsonl"


def measure(work: Path, rows: Path, settings: Mapping[str, float]) -> dict[str, Any]:
    """Trains with the settings and measures on the validation division."""
    name = "-".join(f"{value:g}" for value in settings.values())
    weights = f"trl.loss_weights=[1.0, {settings['sft_weight']}]"
    chosen = (f"trl.learning_rate={settings['learning_rate']}", f"trl.num_train_epochs={settings['epochs']}", weights)
    changes = [part for change in chosen for part in ("--set", change)]
    call("train", "tiny", "--data", str(rows), *changes, "--out", str(work / name))
    tasks = [part for task in ("tiny_sealed", "tiny_village", "tiny_ordinary") for part in ("--task", task)]
    call("run", str(work / name), *tasks, "--division", "validation", "--out", str(work / f"{name}.run"))
    compliance = json.loads((work / f"{name}.run" / "scores.json").read_text())["compliance"]
    scores = {name: task[name]["score"] for task in compliance.values() for name in task if name.startswith("S")}
    mean = sum(scores[name] for name in ("S1", "S0", "S_RP", "S_A")) / 4
    print(f"{dict(settings)}: {mean:.4f} {scores}", flush=True)
    return {**settings, "mean": mean, "scores": scores}


def main() -> None:
    """Tries all settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/choose-tiny"))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    rows = make_rows(options.work)

    def measure_all(some: list[dict[str, float]]) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(options.workers) as pool:
            return list(pool.map(lambda settings: measure(options.work, rows, settings), some))

    def best(some: list[dict[str, Any]]) -> dict[str, Any]:
        return max(some, key=lambda one: one["mean"])

    tried = measure_all([{"learning_rate": r, "sft_weight": w, "epochs": FIRST_EPOCHS} for r in RATES for w in WEIGHTS])
    first = {key: best(tried)[key] for key in ("learning_rate", "sft_weight")}
    tried += measure_all([{**first, "epochs": epochs} for epochs in EPOCHS if epochs != FIRST_EPOCHS])
    write_json(CHOICE, {"chosen": best(tried), "tried": tried})
    print(f"chosen: {best(tried)}")


if __name__ == "__main__":
    main()
