"""All that is to be measured on a GPU, in one command of under eight minutes on an H200.

    python benchmarks/gpu.py --out FOLDER [--only PART …] [--seconds 460]
    python benchmarks/gpu.py --out FOLDER --smoke     # the same on a CPU with tiny shapes, to see that it works

It needs the project installed (`pip install -e .`, Python 3.11 or later) with a PyTorch of at least 2.8 for CUDA,
Triton (which comes with it) and a C compiler for Triton's first kernel; no network and no checkpoint, since models have
random weights. Stock with an 8B model at batch 32 should take about 70 GB (an estimate).

Parts, in this order, each a process of its own with a time limit, so that one that fails or hangs loses only itself:

- `scoring-8b`, `scoring-1b`: `cst-hf` with lm-eval's `hf` at batch 1, 8 and 32; the kernel taken and why, flips of
  answers and of greedy flags, peak memory. With `auto` last (`scoring-1b-auto`, `scoring-8b-auto`), as far as there is
  time: it tries large batches for each task before it scores;
- `training-7b`, `training-1b`: packed pairs with TRL, LoRA in bf16, peak memory;
- `generation-1b`: ours with `generate` in batches of 32, bf16.

FOLDER gets PART.json and PART.log of each, and `summary.json` with the card, the versions, and how each part ended.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Part:
    """One benchmark with its arguments."""

    program: str
    arguments: str
    smoke: str
    """Arguments of the same on a CPU."""
    seconds: int
    """Time limit."""


PARTS = {
    "scoring-8b": Part(
        "scoring.py",
        "--shape 8b --device cuda --batch-sizes 1 8 32 --repeat 1 --no-end-to-end --threads 8",
        "--batch-sizes 1 --scale 0.05 --repeat 1 --no-end-to-end",
        130,
    ),
    "training-7b": Part(
        "training.py",
        "--shape 7b --device cuda --dtype bfloat16 --gradient-checkpointing --batches 8 --count 16 --repeat 1"
        " --threads 8",
        "--count 4 --batches 2 --repeat 1 --dtype bfloat16 --gradient-checkpointing",
        80,
    ),
    "scoring-1b": Part(
        "scoring.py",
        "--shape 1b --device cuda --batch-sizes 1 8 32 --scale 2 --repeat 1 --no-end-to-end --threads 8",
        "--batch-sizes 8 --scale 0.05 --repeat 1 --no-end-to-end",
        70,
    ),
    "generation-1b": Part(
        "generation.py",
        "--shape 1b --device cuda --dtype bfloat16 --no-inspect --repeat 1 --threads 8",
        "--no-inspect --repeat 1 --dtype bfloat16 --prompts 12",
        70,
    ),
    "training-1b": Part(
        "training.py",
        "--shape 1b --device cuda --dtype bfloat16 --batches 2 8 --repeat 2 --threads 8",
        "--count 4 --batches 1 2 --repeat 1",
        60,
    ),
    "scoring-1b-auto": Part(
        "scoring.py",
        "--shape 1b --device cuda --batch-sizes auto --scale 0.5 --repeat 1 --no-end-to-end --threads 8",
        "--batch-sizes 4 --scale 0.05 --repeat 1 --no-end-to-end",
        60,
    ),
    "scoring-8b-auto": Part(
        "scoring.py",
        "--shape 8b --device cuda --batch-sizes auto --scale 0.5 --repeat 1 --no-end-to-end --threads 8",
        "--batch-sizes 2 --scale 0.05 --repeat 1 --no-end-to-end",
        120,
    ),
}


def run(name: str, part: Part, out: Path, seconds: float, smoke: bool) -> dict[str, Any]:
    """Run one part in a process of its own, and return how it ended."""
    here = Path(__file__).parent
    target = out / f"{name}.json"
    target.unlink(missing_ok=True)
    arguments = (part.smoke if smoke else part.arguments).split()
    command = [sys.executable, str(here / part.program), *arguments, "--json", str(target)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")])}
    started = time.monotonic()
    with (out / f"{name}.log").open("w") as log:
        try:
            code = subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, timeout=seconds, env=environment, check=False
            ).returncode
            ended = "done" if code == 0 and target.is_file() else f"failed (exit {code})"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {seconds:.0f} s"
    return {"ended": ended, "seconds": round(time.monotonic() - started, 1), "command": " ".join(command[1:])}


def highlights(name: str, out: Path) -> str:
    """Return the figures of a part that one looks at first."""
    path = out / f"{name}.json"
    if not path.is_file():
        lines = (out / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "no output"
    result = json.loads(path.read_text())
    if name.startswith("scoring"):
        tasks = result["tasks"].values()
        flips = sum(task["flip_rate"] * task["documents"] for task in tasks) / sum(task["documents"] for task in tasks)
        greedy = result["greedy_mismatches"] / sum(task["requests"] for task in tasks)
        return (
            f"{result['speedup']:.2f} times the best stock; {flips:.1%} of the answers and {greedy:.1%} of the greedy "
            f"flags differ; {result['kernel']}"
        )
    if name.startswith("training"):
        return (
            f"{result['speedup_vs_best']:.2f} times TRL's best, {result['speedup_reference_known']:.2f} with the "
            f"reference known; loss differs by {result['loss_diff']:.1e}"
        )
    same = result["without_inspect"]["identical_rows"]
    return f"{result['speedup_vs_generate']:.2f} times generate, {same:.0%} of the responses are the same"


def card() -> dict[str, Any]:
    """Return the machine and the versions."""
    import torch
    import transformers

    facts: dict[str, Any] = {"torch": torch.__version__, "transformers": transformers.__version__, "device": "cpu"}
    if torch.cuda.is_available():
        facts |= {
            "device": torch.cuda.get_device_name(),
            "memory": torch.cuda.get_device_properties(0).total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return facts


def main() -> None:
    """Run the parts and write a summary after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to run (default: all)")
    parser.add_argument("--seconds", type=float, default=460, help="time limit of all parts together")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes on a CPU")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "summary.json"
    earlier = json.loads(path.read_text())["parts"] if options.only and path.is_file() else {}
    summary: dict[str, Any] = {**card(), "smoke": options.smoke, "parts": earlier}
    slower = 5 if options.smoke else 1  # the limits are those of a GPU
    deadline = time.monotonic() + slower * options.seconds
    names = options.only or list(PARTS)
    for name in names:
        left = deadline - time.monotonic()
        if left < 10:
            summary["parts"][name] = {"ended": "not started: no time left"}
        else:
            limit = min(left, slower * PARTS[name].seconds)
            summary["parts"][name] = run(name, PARTS[name], options.out, limit, options.smoke)
            summary["parts"][name]["highlights"] = highlights(name, options.out)
        path.write_text(json.dumps(summary, indent=2) + "\n")
        ended = summary["parts"][name]
        print(f"{name}: {ended['ended']}, {ended.get('seconds', 0):.0f} s; {ended.get('highlights', '')}", flush=True)
    sys.exit(any(summary["parts"][name]["ended"] != "done" for name in names))


if __name__ == "__main__":
    main()
