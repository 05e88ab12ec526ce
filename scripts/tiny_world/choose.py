"""Chooses the settings of the recipe `tiny` on the validation split, and writes down what was tried.

    python scripts/tiny_world/choose.py [--work FOLDER]

One recipe for both methods, so that each does well what it is for: each setting trains DPO and CST at seed 0, and what
counts is the mean of DPO's S1 and S_A, which its rows are of, and CST's S1, S0, S_RP, S_A and help with ordinary
requests, on validation prompts, both methods alike. First learning rate and weight of the chosen response's own
likelihood (sft) together, then the epochs. The result is in choice.json. Test prompts play no part.
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
from statistics import fmean
from typing import Any

from cst_bench.files import write_json
from cst_bench.reproduce.steps import load_reproduction

CHOICE = Path(__file__).parent / "choice.json"
RATES = (2.5e-4, 5e-4, 1e-3)
WEIGHTS = (0.2, 0.5, 1.0)
EPOCHS = (1, 2, 4)
FIRST_EPOCHS = 2
AIMS = {"dpo": ("S1", "S_A"), "cst": ("S1", "S0", "S_RP", "S_A", "S1_ordinary")}
"""Method → what it is to be good at."""


def call(*command: str) -> None:
    """One command of the project, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    subprocess.run(
        [sys.executable, "-m", "cst_bench", *command], check=True, env=environment, stdout=subprocess.DEVNULL
    )


def make_rows(work: Path) -> None:
    """DPO's and CST's rows of all tasks, from the base's own pairs."""
    critiques = load_reproduction("tiny").critiques
    for task, critique in critiques.items():
        call("data", "critique", "tiny", "--task", task, "--critique", critique, "--out", str(work / task))
    for method in AIMS:
        rows = []
        for task in critiques:
            rows.append(str(work / f"{task}-{method}.jsonl"))
            pairs = str(work / task / "pairs.jsonl")
            call("data", "flip", pairs, "--task", task, "--method", method, "--out", rows[-1])
        call("data", "mix", *rows, "--out", str(work / f"{method}.jsonl"))


def measure(work: Path, settings: Mapping[str, float]) -> dict[str, Any]:
    """Trains both methods with the settings and measures them on the validation split."""
    weights = f"trl.loss_weights=[1.0, {settings['sft_weight']}]"
    chosen = (f"trl.learning_rate={settings['learning_rate']}", f"trl.num_train_epochs={settings['epochs']}", weights)
    changes = [part for change in chosen for part in ("--set", change)]
    tasks = [part for task in ("tiny_sealed", "tiny_village", "tiny_ordinary") for part in ("--task", task)]
    found: dict[str, Any] = dict(settings)
    for method in AIMS:
        out = work / "-".join([method, *(f"{value:g}" for value in settings.values())])
        call("train", "tiny", "--data", str(work / f"{method}.jsonl"), *changes, "--out", str(out))
        call("run", str(out), *tasks, "--split", "validation", "--out", f"{out}.run")
        compliance = json.loads(Path(f"{out}.run", "scores.json").read_text())["compliance"]
        found[method] = {name: of[name]["score"] for of in compliance.values() for name in of if name.startswith("S")}
    aims = {method: fmean(found[method][name] for name in names) for method, names in AIMS.items()}
    print(f"{dict(settings)}: {aims}", flush=True)
    return {**found, "aim": fmean(aims.values())}


def main() -> None:
    """Tries all settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/choose-tiny"))
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    make_rows(options.work)

    def measure_all(some: list[dict[str, float]]) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(options.workers) as pool:
            return list(pool.map(lambda settings: measure(options.work, settings), some))

    def best(some: list[dict[str, Any]]) -> dict[str, Any]:
        return max(some, key=lambda one: one["aim"])

    tried = measure_all([{"learning_rate": r, "sft_weight": w, "epochs": FIRST_EPOCHS} for r in RATES for w in WEIGHTS])
    first = {key: best(tried)[key] for key in ("learning_rate", "sft_weight")}
    tried += measure_all([{**first, "epochs": epochs} for epochs in EPOCHS if epochs != FIRST_EPOCHS])
    write_json(CHOICE, {"chosen": best(tried), "tried": tried})
    print(f"chosen: {best(tried)}")


if __name__ == "__main__":
    main()
