"""Options that several verbs share: how to load a checkpoint, and which judge to ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cst_bench.checkpoint.options import DTYPES, EMBEDDED, CheckpointOptions
from cst_bench.errors import UserError

if TYPE_CHECKING:
    from cst_bench.judging import JudgeOptions

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


_JUDGE_OPTIONS = [
    click.option(
        "--judge-model",
        metavar="MODEL",
        help="Inspect model that the judge asks (openai/gpt-4o, anthropic/…), or checkpoint of a guard.",
    ),
    click.option("--judge-base-url", metavar="URL", help="OpenAI-compatible endpoint of the judge's model."),
    click.option("--judge-connections", type=click.IntRange(min=1), metavar="N", help="Judge calls at a time."),
]
_CARD_OPTIONS = [
    click.option(
        "--judge-card",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Calibration card of the judge.  [default: found by the judge's hash]",
    ),
    click.option(
        "--min-judge-f1",
        type=click.FloatRange(0, 1),
        metavar="F1",
        help="Below it a judge counts as uncalibrated.  [default: 0.9]",
    ),
]


def judge_options(function: F) -> F:
    """Adds the options on how a judge is asked."""
    for option in reversed(_JUDGE_OPTIONS):
        function = option(function)
    return function


def card_options(function: F) -> F:
    """Adds the options on what a judge needs to count as calibrated."""
    for option in reversed(_CARD_OPTIONS):
        function = option(function)
    return function


def take_judge(values: dict[str, Any]) -> JudgeOptions:
    """Takes what concerns how a judge is asked out of a verb's parameters."""
    from cst_bench.judging import JudgeOptions

    return JudgeOptions(
        model=values.pop("judge_model"),
        base_url=values.pop("judge_base_url"),
        connections=values.pop("judge_connections"),
    )


def assignments(option: str, given: Iterable[str], form: str = "NAME=VALUE") -> dict[str, str]:
    """The values of a repeatable option of this form, by what stands before the sign.

    Raises:
        UserError: one has another form.
    """
    found = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            raise UserError(f"{option} {item!r}: must have the form {option} {form}")
        found[name] = value
    return found
