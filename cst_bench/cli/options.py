"""Options that several verbs share: how to load a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from cst_bench.checkpoint.options import DTYPES, EMBEDDED, CheckpointOptions

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = [
    click.argument("checkpoint", default=EMBEDDED, required=False),
    click.option("--revision", metavar="REV", help="Branch, tag or commit of a hub id."),
    click.option("--base", metavar="CHECKPOINT", help="Base of an adapter, if not the one its config names."),
    click.option(
        "--dtype",
        type=click.Choice(DTYPES),
        default="auto",
        show_default=True,
        help="auto: float32 on a CPU, else the checkpoint's own.",
    ),
    click.option("--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps."),
    click.option(
        "--batch-size",
        type=click.IntRange(min=1),
        metavar="N",
        help="Rows computed together.  [default: found by memory]",
    ),
    click.option("--load-in-4bit", is_flag=True, help="Quantize to 4-bit nf4 (needs cst-bench[4bit])."),
    click.option(
        "--trust-remote-code", is_flag=True, help="Run code that the checkpoint brings. Only if you have read it."
    ),
    click.option(
        "--system-as",
        type=click.Choice(["system", "user-prefix"]),
        default="system",
        show_default=True,
        help="user-prefix: put the system prompt before the user's text.",
    ),
    click.option("--chat-template", metavar="FILE", help="A Jinja chat template in place of the tokenizer's own."),
    click.option(
        "--stop-token", multiple=True, metavar="TOKEN", help="A token that ends a turn, besides the checkpoint's own."
    ),
]


def checkpoint_options(function: F) -> F:
    """Adds the checkpoint argument and the options on how to load it."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def take_checkpoint(values: dict[str, Any]) -> CheckpointOptions:
    """Takes the checkpoint's part out of a verb's parameters."""
    name = values.pop("checkpoint")
    stop_token = tuple(values.pop("stop_token"))
    rest = {key: values.pop(key) for key in list(values) if key in CheckpointOptions.__dataclass_fields__}
    return CheckpointOptions(name=name, stop_token=stop_token, **rest)
