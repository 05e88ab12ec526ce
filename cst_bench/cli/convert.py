"""`cst-bench convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import loading_options

if TYPE_CHECKING:
    from cst_bench.checkpoint import CheckpointOptions

EPILOG = """\b
Examples:
  cst-bench convert model.gguf ./my-model
  cst-bench convert org/name:model-q4_k_m.gguf ./my-model
  cst-bench convert ./my-adapter ./my-model           merge an adapter into its base
  cst-bench convert model.gguf ./my-model --dtype bfloat16

The weights of a GGUF file are read by transformers (install cst-bench[gguf]) and written unquantized."""


@click.command(epilog=EPILOG)
@click.argument("checkpoint")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--base", metavar="CHECKPOINT", help="Base model of an adapter, instead of the one its config names.")
@loading_options
def command(*, checkpoint: str, folder: Path, base: str | None, loading: CheckpointOptions) -> None:
    """Write CHECKPOINT, a GGUF file or an adapter, to FOLDER as one model in safetensors."""
    from dataclasses import replace

    from cst_bench.checkpoint import convert
    from cst_bench.cli.console import print_line, quiet_libraries

    quiet_libraries()
    print_line(f"wrote {convert(replace(loading, name=checkpoint, base=base), folder)}")
