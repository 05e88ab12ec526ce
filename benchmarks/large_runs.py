"""Cost of the verbs that read finished runs, by the number of samples and by the number of runs.

    python benchmarks/large_runs.py [--samples 1000 10000 50000] [--runs 30 100] [--json FILE]

Made-up generations of two models are scored by rules; then both runs are reported, compared, verified and scored again.
The report of many runs is of small ones. Each call is a process of its own, so that its peak memory is its own; seconds
are processor time. `run_scale.py` measures what a run with a checkpoint costs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import cst_bench
from cst_bench.files import write_json

FORMATS = ("md", "html", "latex", "csv", "json")
WORDS = ("path", "mill", "basket", "river", "lantern", "bread", "garden", "bell", "ladder", "rope", "willow", "cart")
CONFIGURATIONS = {"S1": 0.1, "S0": 0.85}
"""Configuration → share of its prompts that are answered."""


def make_generations(file: Path, samples: int, seed: int) -> None:
    """Write made-up generations of a model: an answer or a refusal to each prompt under both configurations."""
    draw = random.Random(seed)
    with file.open("w", encoding="utf-8") as out:  # row by row: a child's peak is at least the memory of its parent
        for number in range(samples // len(CONFIGURATIONS)):
            for configuration, answered in CONFIGURATIONS.items():
                said = " ".join(draw.choices(WORDS, k=draw.randint(20, 120)))
                response = f"Take the {said}." if draw.random() < answered else f"I'm sorry, but I can't help: {said}."
                prompt = f"Which way is errand number {number}?"
                row = {"prompt": prompt, "response": response, "configuration": configuration}
                out.write(json.dumps(row) + "\n")


def measure(*arguments: str | Path) -> dict[str, Any]:
    """Call `cst-bench`; return its processor seconds and peak memory.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "cst_bench", *map(str, arguments)]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            raise RuntimeError(f"{command} failed: {output.read().decode()[-2000:]}")
    return {"seconds": usage.ru_utime + usage.ru_stime, "peak_memory_bytes": usage.ru_maxrss * 1024}


def score(file: Path, out: Path) -> dict[str, Any]:
    """Score generations by rules."""
    return measure("score", file, "--task", "harmful_behaviors", "--judge", "refusal_rules", "--out", out)


def report(runs: Sequence[Path], out: Path) -> dict[str, Any]:
    """Report runs in all formats."""
    return measure("report", *runs, *(part for name in FORMATS for part in ("--format", name)), "--out", out)


def measure_samples(samples: int) -> dict[str, dict[str, Any]]:
    """Return what each verb costs at a number of samples."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, runs = [folder / "first.jsonl", folder / "second.jsonl"], [folder / "first", folder / "second"]
        for seed, file in enumerate(files):
            make_generations(file, samples, seed)
        costs = {"score": score(files[0], runs[0])}
        score(files[1], runs[1])
        return {
            **costs,
            "score, finished": score(files[0], runs[0]),
            "report": report(runs, folder / "report"),
            "compare": measure("compare", *runs, "--out", folder / "compare.md", "--junit", folder / "compare.xml"),
            "verify": measure("verify", *runs),
        }


def make_runs(folder: Path, runs: int) -> None:
    """Score a few generations of many models, in this process."""
    for number in range(runs):
        file = folder / f"model-{number}.jsonl"
        make_generations(file, 104, number)
        options = cst_bench.ScoreOptions(
            file, task="harmful_behaviors", judge="refusal_rules", out=folder / "runs" / file.stem
        )
        cst_bench.score_file(options)


def measure_runs(runs: int) -> dict[str, Any]:
    """Return what the report of a number of runs costs, and the size of its files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, "--make", str(runs), name], check=True)
        cost = report([folder / "runs"], folder / "report")
        sizes = {path.suffix[1:]: path.stat().st_size for path in sorted((folder / "report").glob("report.*"))}
        return {**cost, "bytes": sizes}


def main() -> None:
    """Measure all sizes, print tables, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="*", default=[1000, 10000, 50000], help="samples of each run")
    parser.add_argument("--runs", type=int, nargs="*", default=[30, 100], help="runs of a report")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make is not None:
        make_runs(Path(options.make[1]), int(options.make[0]))
        return
    console = Console()
    by_samples = {samples: measure_samples(samples) for samples in sorted(options.samples)}
    if by_samples:
        table = Table("verb", *(f"{samples} samples, s / MB" for samples in by_samples))
        for verb in next(iter(by_samples.values())):
            costs = [verbs[verb] for verbs in by_samples.values()]
            table.add_row(verb, *(f"{c['seconds']:.1f} / {c['peak_memory_bytes'] / 1e6:.0f}" for c in costs))
        console.print(table)
    by_runs = {runs: measure_runs(runs) for runs in sorted(options.runs)}
    for runs, cost in by_runs.items():
        sizes = ", ".join(f"{suffix} {size / 1e6:.2f} MB" for suffix, size in cost["bytes"].items())
        console.print(
            f"report of {runs} runs: {cost['seconds']:.1f} s, {cost['peak_memory_bytes'] / 1e6:.0f} MB; {sizes}"
        )
    if options.json is not None:
        write_json(options.json, {"samples": by_samples, "runs": by_runs})


if __name__ == "__main__":
    main()
