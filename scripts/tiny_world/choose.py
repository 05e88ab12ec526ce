"""Choose the settings of the recipe `tiny` on the validation split, and record all trials in choice.json.

    python scripts/tiny_world/choose.py [--work FOLDER]

One recipe serves both methods. Each setting trains DPO and CST at seed 0; its criterion is the mean of DPO's S1 and
S_A, which its rows are of, and of CST's S1, S0, S_RP, S_A and help with ordinary requests, both methods weighted
equally. Learning rate and weight of the chosen response's own likelihood (sft) are tried together first, then the
epochs. Test prompts play no part.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from cst_bench.files import write_json
from cst_bench.record import Scores
from cst_bench.reproduce.steps import load_reproduction

CHOICE = Path(__file__).parent / "choice.json"
RATES = (2.5e-4, 5e-4, 1e-3)
WEIGHTS = (0.2, 0.5, 1.0)
EPOCHS = (1, 2, 4)
FIRST_EPOCHS = 2
AIMS = {"dpo": ("S1", "S_A"), "cst": ("S1", "S0", "S_RP", "S_A", "S1_ordinary")}
"""Method → the configurations it should comply with."""
TASKS = ("tiny_sealed", "tiny_village", "tiny_ordinary")


@dataclass(frozen=True)
class Setting:
    """Hyper-parameters of one trial."""

    learning_rate: float
    sft_weight: float
    epochs: int


@dataclass(frozen=True)
class Trial:
    """A setting and the scores of both methods."""

    setting: Setting
    scores: dict[str, dict[str, float]]
    """Method → configuration → compliance."""

    @property
    def aim(self) -> float:
        """Return the criterion: the mean over methods of the mean score of each method's configurations."""
        return fmean(fmean(self.scores[method][name] for name in names) for method, names in AIMS.items())

    def as_json(self) -> dict[str, object]:
        """Return the trial as in choice.json."""
        return {**asdict(self.setting), **self.scores, "aim": self.aim}


def call(*command: str) -> None:
    """Run a `cst-bench` command in its own process."""
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    subprocess.run(
        [sys.executable, "-m", "cst_bench", *command], check=True, env=environment, stdout=subprocess.DEVNULL
    )


def make_rows(work: Path) -> None:
    """Make DPO's and CST's rows of all tasks from the base model's own pairs."""
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


def measure(work: Path, setting: Setting) -> Trial:
    """Train both methods with a setting and measure them on the validation split."""
    changes = (
        *("--set", f"trl.learning_rate={setting.learning_rate}", "--set", f"trl.num_train_epochs={setting.epochs}"),
        *("--set", f"trl.loss_weights=[1.0, {setting.sft_weight}]"),
    )
    tasks = [part for task in TASKS for part in ("--task", task)]
    scores: dict[str, dict[str, float]] = {}
    for method in AIMS:
        out = work / "-".join([method, *(f"{value:g}" for value in asdict(setting).values())])
        call("train", "tiny", "--data", str(work / f"{method}.jsonl"), *changes, "--out", str(out))
        call("run", str(out), *tasks, "--split", "validation", "--out", f"{out}.run")
        compliance = Scores.read(Path(f"{out}.run")).compliance
        scores[method] = {
            name: score.score
            for task in compliance.values()
            for name, score in task.configurations.items()
            if score.score is not None
        }
    trial = Trial(setting, scores)
    print(f"{setting}: {trial.aim}", flush=True)
    return trial


def main() -> None:
    """Try all settings and write choice.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/choose-tiny"), help="folder for rows, models and runs")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    make_rows(options.work)

    def measure_all(settings: Sequence[Setting]) -> list[Trial]:
        with ThreadPoolExecutor(options.workers) as pool:
            return list(pool.map(lambda setting: measure(options.work, setting), settings))

    def best(trials: Sequence[Trial]) -> Trial:
        return max(trials, key=lambda trial: trial.aim)

    trials = measure_all([Setting(rate, weight, FIRST_EPOCHS) for rate in RATES for weight in WEIGHTS])
    first = best(trials).setting
    trials += measure_all([replace(first, epochs=epochs) for epochs in EPOCHS if epochs != FIRST_EPOCHS])
    write_json(CHOICE, {"chosen": best(trials).as_json(), "tried": [trial.as_json() for trial in trials]})
    print(f"chosen: {best(trials)}")


if __name__ == "__main__":
    main()
