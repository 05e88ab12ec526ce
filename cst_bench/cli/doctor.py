"""`cst-bench doctor`."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import checkpoint_options

if TYPE_CHECKING:
    from cst_bench.checkpoint import CheckpointOptions

EPILOG = """\b
Examples:
  cst-bench doctor
  cst-bench doctor ./my-model
  cst-bench doctor google/gemma-2-2b-it --system-as user-prefix
  cst-bench doctor ./my-model --chat-template fixed.jinja

Only the tokenizer is loaded, not the weights. The exit status is 2 if a fault in the chat template would make every
score wrong; the message says how to fix it."""


@click.command(epilog=EPILOG)
@checkpoint_options
def command(*, checkpoint: CheckpointOptions) -> None:
    """Show what is installed and usable here, and check the chat template of CHECKPOINT."""
    from cst_bench.checkpoint import find_checkpoint, load_chat
    from cst_bench.checkpoint.gate import require, run_gate
    from cst_bench.checkpoint.loading import placement
    from cst_bench.cli.console import ConsoleProgress, make_console, print_line, quiet_libraries
    from cst_bench.runs.run_folder import PACKAGES

    quiet_libraries()
    import torch

    print_line(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    if torch.cuda.is_available():
        device = torch.device(placement(checkpoint)[0])
        gpu = device if device.type == "cuda" else torch.device("cuda")
        free, total = torch.cuda.mem_get_info(gpu)
        print_line(f"GPU: {torch.cuda.get_device_name(gpu)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    else:
        print_line(f"GPU: none; {torch.get_num_threads()} CPU threads")
    files = find_checkpoint(checkpoint)
    checks = run_gate(load_chat(files))
    ConsoleProgress(make_console()).gate(files.label, checks)
    require(checks, files.label)
