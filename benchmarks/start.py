"""How long the command line takes to answer: `--help`, and importing the package.

python benchmarks/start.py [--json FILE] [--repeat N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import cst_bench": [sys.executable, "-c", "import cst_bench"],
    "cst-bench --help": [sys.executable, "-m", "cst_bench", "--help"],
    "cst-bench run --help": [sys.executable, "-m", "cst_bench", "run", "--help"],
}


def main() -> None:
    """Times each command, interleaved, and prints the medians in seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--repeat", type=int, default=9)
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(options.repeat):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - started)
    table = Table("command", "median s")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        table.add_row(name, f"{value:.3f}")
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps({"seconds": medians, "repeat": options.repeat}, indent=2) + "\n")


if __name__ == "__main__":
    main()
