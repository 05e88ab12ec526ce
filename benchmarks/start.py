"""Response time of the command line: `--help`, and importing the package.

python benchmarks/start.py [--json FILE] [--repeat N]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table
from timing import interleaved

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import cst_bench": [sys.executable, "-c", "import cst_bench"],
    "cst-bench --help": [sys.executable, "-m", "cst_bench", "--help"],
    "cst-bench run --help": [sys.executable, "-m", "cst_bench", "run", "--help"],
}


def main() -> None:
    """Time each command, in turns, and print the medians in seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--repeat", type=int, default=9)
    options = parser.parse_args()
    runs = {
        name: partial(subprocess.run, command, check=True, capture_output=True) for name, command in COMMANDS.items()
    }
    medians = {name: timed.median for name, timed in interleaved(runs, options.repeat).items()}
    table = Table("command", "median s")
    for name, value in medians.items():
        table.add_row(name, f"{value:.3f}")
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps({"seconds": medians, "repeat": options.repeat}, indent=2) + "\n")


if __name__ == "__main__":
    main()
