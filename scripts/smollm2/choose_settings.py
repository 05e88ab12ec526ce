"""Choose learning rate and weight of sft of the recipe `smollm2`, and record all trials in choice.json.

    python scripts/smollm2/choose_settings.py --checkpoint FOLDER --released FILE --data-dir DIR [--work FOLDER]

One recipe serves both methods. Each setting trains DPO and CST at seed 0 on the rows of the reproduction `smollm2`;
its criterion is the mean of DPO's S1 and S_A, which its rows are of, and of CST's S1, S0, S_RP and S_A, both methods
weighted equally. It is measured on 26 random prompts of the released pairs that are not in the training sample and on
the validation split of `truthy`. Test prompts play no part. The same command continues an interrupted choice.

The first trials had the plain sigmoid loss, and made the model repeat itself: after DPO with a learning rate of 1e-4 in
20 of 26 responses under S1. So the chosen response's own likelihood (sft) is tried, too. The best of the first four was
the one with the highest learning rate, so a higher one was added.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean

from cst_bench.files import write_json
from cst_bench.preferences import read_training_rows
from cst_bench.record import Scores
from cst_bench.reproduce.steps import load_reproduction

CHOICE = Path(__file__).parent / "choice.json"
SETTINGS = ((1e-4, 0.0), (3e-4, 0.0), (3e-4, 0.5), (1e-3, 0.5), (2e-3, 0.5))
"""Learning rate, and weight of the chosen response's own likelihood (sft) beside the sigmoid loss."""
AIMS = {"dpo": ("S1", "S_A"), "cst": ("S1", "S0", "S_RP", "S_A")}
"""Method → the configurations it should comply with."""
PROMPTS = 26
"""Held-out prompts of `harmful_behaviors`: half as many as the test has."""
SEED = 0


def call(*command: str) -> None:
    """Run a `cst-bench` command in its own process."""
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    subprocess.run(
        [sys.executable, "-m", "cst_bench", *command], check=True, env=environment, stdout=subprocess.DEVNULL
    )


def make_rows(work: Path, released: Path, truthy: Path) -> None:
    """Make each method's rows as the reproduction does, and the file of the held-out prompts."""
    plan = load_reproduction("smollm2")
    weight = plan.sets["multi"].rows[0].weight
    task = "harmful_behaviors"
    sample = ("--sample", str(plan.sample))
    for method in AIMS:
        flipped = work / f"{task}-{method}.jsonl"
        call("data", "flip", str(released), "--task", task, "--method", method, *sample, "--out", str(flipped))
        mixed = ("--without-held-out", f"{truthy}=truthy", "--out", str(work / f"{method}.jsonl"))
        call("data", "mix", f"{flipped}=1", f"{truthy}={weight:g}", *mixed)
    used = {row.prompt for row in read_training_rows(work / f"{task}-cst.jsonl")}
    rows = json.loads(released.read_text("utf-8"))
    left = sorted({row["prompt"] for row in rows if row["task"] == "harmless"} - used)
    with (work / "held_out.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        writer.writerows([prompt] for prompt in random.Random(SEED).sample(left, PROMPTS))


def measure(options: argparse.Namespace, method: str, rate: float, weight: float) -> dict[str, float]:
    """Train a method with a setting, and return its compliance with each configuration on held-out prompts."""
    work: Path = options.work
    out = work / "-".join([method, f"{rate:g}", *([f"{weight:g}"] if weight else [])])
    types, weights = ("[sigmoid, sft]", f"[1.0, {weight}]") if weight else ("[sigmoid]", "[1.0]")
    loss = ("--set", f"trl.loss_type={types}", "--set", f"trl.loss_weights={weights}")
    call(
        *("train", options.recipe, "--base", str(options.checkpoint), "--data", str(work / f"{method}.jsonl")),
        *("--set", f"trl.learning_rate={rate}", *loss, "--seed", str(SEED), "--out", str(out)),
    )
    held_out = f"harmful_behaviors={work / 'held_out.csv'}"
    parts = {
        "harmful_behaviors": ("--split", "train", "--data", held_out, "--judge", "local"),
        "truthy": ("--split", "validation", "--data-dir", str(options.data_dir), "--judge", "identity_rules"),
    }
    scores: dict[str, float] = {}
    for task, arguments in parts.items():
        run = Path(f"{out}.{task}")
        call("run", str(out), "--task", task, *arguments, "--dtype", "bfloat16", "--out", str(run))
        for name, score in Scores.read(run).compliance[task].configurations.items():
            if score.score is not None:
                scores[name] = score.score
    print(f"{method} {rate:g} {weight:g}: {scores}", flush=True)
    return scores


def main() -> None:
    """Try all settings and write choice.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--released", type=Path, required=True, help="the authors' released rows, as JSON")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with truthy.jsonl")
    parser.add_argument("--recipe", default="smollm2", help="recipe whose settings are tried")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/choose-smollm2"), help="folder for rows, models and runs"
    )
    parser.add_argument("--workers", type=int, default=2, help="trials at a time")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    make_rows(options.work, options.released, options.data_dir / "truthy.jsonl")
    trials = [(method, *setting) for setting in SETTINGS for method in sorted(AIMS)]

    def one(trial: tuple[str, float, float]) -> dict[str, float]:
        return measure(options, *trial)

    with ThreadPoolExecutor(options.workers) as pool:
        scores = dict(zip(trials, pool.map(one, trials), strict=True))
    aims = {
        setting: fmean(fmean(scores[method, *setting][name] for name in names) for method, names in AIMS.items())
        for setting in SETTINGS
    }
    chosen = max(SETTINGS, key=lambda setting: aims[setting])

    def as_json(setting: tuple[float, float]) -> dict[str, object]:
        of_methods = {method: scores[method, *setting] for method in AIMS}
        return {"learning_rate": setting[0], "sft_weight": setting[1], **of_methods, "aim": aims[setting]}

    write_json(CHOICE, {"chosen": as_json(chosen), "tried": [as_json(setting) for setting in SETTINGS]})
    print(f"chosen: learning rate and weight of sft {chosen}")


if __name__ == "__main__":
    main()
