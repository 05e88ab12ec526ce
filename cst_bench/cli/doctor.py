"""`cst-bench doctor`."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import click

from cst_bench.cli.shared_options import checkpoint_options, take_checkpoint


@click.command()
@checkpoint_options
def command(**values: Any) -> None:
    """Show what is installed and usable here, and put the chat template of CHECKPOINT through the gate.

    Loads the tokenizer, not the weights. Exit status 2 if the template would make every score wrong.
    """
    from cst_bench.checkpoint import find_checkpoint, load_chat
    from cst_bench.checkpoint.gate import require, run_gate
    from cst_bench.cli.console import ConsoleProgress, make_console, quiet_libraries
    from cst_bench.runs.run_folder import PACKAGES

    quiet_libraries()
    import torch

    console = make_console()
    console.print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        console.print(f"GPU: {torch.cuda.get_device_name()}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    else:
        console.print(f"GPU: none; {torch.get_num_threads()} CPU threads")
    files = find_checkpoint(take_checkpoint(values))
    checks = run_gate(load_chat(files))
    ConsoleProgress(console).gate(files.label, checks)
    require(checks, files.label)
