"""Choose learning rate and weight of sft of the recipe `smollm2`, and record all trials in choice.json.

    python scripts/smollm2/choose_settings.py --checkpoint FOLDER --released FILE --data-dir DIR [--work FOLDER]

One recipe serves both methods. The trials train on the rows of the reproduction `smollm2`, with other seeds than its.
A trial is measured on 26 random prompts of the released pairs that are not in the training sample and on the validation
split of `truthy`: CST by the mean of its S1, S0, S_RP and S_A, DPO by that of S1 and S_A, which its rows are of. CST is
trained with every setting at the first seed. The best two settings are then tried with both methods at both seeds, and
the best by the mean over methods and seeds is chosen. Test prompts play no part. The same command continues an
interrupted choice.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import fmean

from cst_bench.files import write_json
from cst_bench.preferences import read_training_rows
from cst_bench.record import Scores
from cst_bench.reproduce.steps import load_reproduction

CHOICE = Path(__file__).parent / "choice.json"
SETTINGS = ((1e-3, 0.5), (1e-3, 1.0), (1e-3, 2.0), (5e-4, 1.0))
"""Learning rate, and weight of the chosen response's own likelihood (sft) beside the sigmoid loss."""
AIMS = {"cst": ("S1", "S0", "S_RP", "S_A"), "dpo": ("S1", "S_A")}
"""Method → the configurations it should comply with."""
PROMPTS = 26
"""Held-out prompts of `harmful_behaviors`: half as many as the test has."""
SEEDS = (0, 3)
"""Seeds of the trials."""
FINALISTS = 2
"""Settings that are tried with both methods and all seeds."""
Setting = tuple[float, float]
Trial = tuple[str, Setting, int]
"""Method, setting and seed."""


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
    whole = work / f"{task}-all.jsonl"  # without the prompts of the test
    call("data", "flip", str(released), "--task", task, "--method", "dpo", "--out", str(whole))
    known, used = ({row.prompt for row in read_training_rows(rows)} for rows in (whole, work / f"{task}-dpo.jsonl"))
    left = sorted(known - used)
    with (work / "held_out.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        writer.writerows([prompt] for prompt in random.Random(0).sample(left, PROMPTS))


def measure(options: argparse.Namespace, trial: Trial) -> dict[str, float]:
    """Make a trial, and return its compliance with each configuration on held-out prompts."""
    method, (rate, weight), seed = trial
    work: Path = options.work
    out = work / f"{method}-{rate:g}-{weight:g}-{seed}"
    call(
        *("train", options.recipe, "--base", str(options.checkpoint), "--data", str(work / f"{method}.jsonl")),
        *("--set", f"trl.learning_rate={rate}", "--set", f"trl.loss_weights=[1.0, {weight}]"),
        *("--seed", str(seed), "--out", str(out)),
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
    print(f"{method} {rate:g} {weight:g} seed {seed}: {scores}", flush=True)
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
    made: dict[Trial, dict[str, float]] = {}

    def make(trials: list[Trial]) -> None:
        left = [trial for trial in trials if trial not in made]
        with ThreadPoolExecutor(options.workers) as pool:
            made.update(zip(left, pool.map(partial(measure, options), left), strict=True))

    def aim(trials: list[Trial]) -> float:
        return fmean(fmean(made[trial][name] for name in AIMS[trial[0]]) for trial in trials)

    make([("cst", setting, SEEDS[0]) for setting in SETTINGS])
    finalists = sorted(SETTINGS, key=lambda setting: -aim([("cst", setting, SEEDS[0])]))[:FINALISTS]
    of_finalist = {setting: [(method, setting, seed) for seed in SEEDS for method in AIMS] for setting in finalists}
    make([trial for trials in of_finalist.values() for trial in trials])
    chosen = max(finalists, key=lambda setting: aim(of_finalist[setting]))

    def as_json(trial: Trial) -> dict[str, object]:
        method, (rate, weight), seed = trial
        settings = {"method": method, "learning_rate": rate, "sft_weight": weight, "seed": seed}
        return {**settings, **made[trial], "aim": aim([trial])}

    finals = [
        {"learning_rate": rate, "sft_weight": weight, "aim": aim(of_finalist[rate, weight])}
        for rate, weight in finalists
    ]
    write_json(
        CHOICE,
        {
            "chosen": {"learning_rate": chosen[0], "sft_weight": chosen[1]},
            "finalists": finals,
            "trials": [as_json(trial) for trial in made],
        },
    )
    print(f"chosen: learning rate and weight of sft {chosen}")


if __name__ == "__main__":
    main()
