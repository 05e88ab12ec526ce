"""Options that several verbs share.

The decorator of a group adds its options to a verb and passes the verb a single object built from them, for example
`checkpoint: CheckpointOptions`. Defaults and choices are repeated here because importing those classes takes longer
than printing `--help` may; `tests/cli/test_parameters.py` compares them with the classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial, reduce, wraps
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from cst_bench.errors import UserError

if TYPE_CHECKING:
    from cst_bench.checkpoint import CheckpointOptions
    from cst_bench.checkpoint.options import EngineName, SystemAs

Verb: TypeAlias = Callable[..., int | None]
"""Callback of a command; returns its exit status, None for 0."""
Decorator: TypeAlias = Callable[[Verb], Verb]
_named_as = partial(wraps, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
"""`wraps` without the annotations: a wrapper keeps its own."""


def refuse_nan(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """Refuse `nan`, which is in every range and compares with nothing: a click callback."""
    if value is not None and math.isnan(value):
        raise click.BadParameter("nan is not a number to compare with.", context, parameter)
    return value


def parse_assignments(_: click.Context, parameter: click.Parameter, items: Iterable[str]) -> dict[str, str]:
    """Parse the values of a repeatable option of the form NAME=VALUE into name → value.

    Raises:
        UserError: a value has another form.
    """
    values = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            option = parameter.opts[0]
            raise UserError(f"{option} {item!r}: must have the form {option} {parameter.metavar}")
        values[name] = value
    return values


def parse_paths(context: click.Context, parameter: click.Parameter, items: Iterable[str]) -> dict[str, Path]:
    """Parse the values of a repeatable option of the form NAME=PATH into name → path.

    Raises:
        UserError: a value has another form.
    """
    return {name: Path(value).expanduser() for name, value in parse_assignments(context, parameter, items).items()}


def data_option(metavar: str, help_text: str) -> Decorator:
    """Return a decorator that adds the option for local data; the verb receives a dict of paths."""
    return click.option(
        "--data", multiple=True, metavar=metavar, callback=parse_paths, help=f"{help_text}; repeatable."
    )


suite_option = click.option(
    "--suite",
    show_default="tiny, unless --task is given",
    metavar="SUITE",
    help="Suite to run: tiny, paper or a suite file.",
)
task_option = click.option(
    "--task", "tasks", multiple=True, metavar="TASK", help="Run only this task (name or file); repeatable."
)
task_data_option = data_option("TASK=PATH", "Local data to use for a task")
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with the local data of all tasks, by name (harmful_behaviors.csv, arc/, mmlu/, …).",
)


def assignment_option(flag: str, name: str, metavar: str, help_text: str) -> Decorator:
    """Return a decorator that adds a repeatable option of the form NAME=VALUE; the verb receives a dict."""
    return click.option(
        flag, name, multiple=True, metavar=metavar, callback=parse_assignments, help=f"{help_text}; repeatable."
    )


def parse_counts(context: click.Context, parameter: click.Parameter, items: Iterable[str]) -> dict[str, int]:
    """Parse the values of a repeatable option of the form NAME=N into name → number.

    Raises:
        UserError: a value has another form.
    """
    counts = {}
    for name, value in parse_assignments(context, parameter, items).items():
        if not value.isdecimal():
            raise UserError(f"{parameter.opts[0]} {name}={value}: must be a number")
        counts[name] = int(value)
    return counts


column_option = assignment_option(
    "--column", "columns", "NAME=COLUMN", "Column of the file to read as NAME, e.g. response=text"
)
value_option = assignment_option(
    "--value", "values", "VALUE=BEHAVIOUR", "Behaviour that the label VALUE stands for, e.g. safe=harmless"
)


labels_option = click.option(
    "--labels",
    "files",
    multiple=True,
    show_default="those that come with the project",
    metavar="FILE",
    help="File with labelled responses, or a label set (xstest, harmbench, gptfuzz); repeatable.",
)
label_data_option = data_option("SET=PATH", "Local copy of a label set, a file or a folder, instead of fetching it")


def labelled_by_option(default: str | None = None, show_default: str | bool = True) -> Decorator:
    """Return a decorator that adds the option on who labelled a file."""
    return click.option(
        "--labelled-by",
        "--by",
        "labelled_by",
        default=default,
        show_default=show_default,
        metavar="NAME",
        help="Who labelled the rows that do not say so themselves.",
    )


def seed_option(purpose: str) -> Decorator:
    """Return a decorator that adds the option for a random seed."""
    return click.option("--seed", type=int, default=0, metavar="SEED", help=f"Random seed for {purpose}.")


def limit_option(rows: str) -> Decorator:
    """Return a decorator that adds the option to use fewer rows."""
    return click.option("--limit", type=click.IntRange(min=1), metavar="N", help=f"Limit to {rows}.")


task_limit_option = limit_option("the first N prompts or documents of each task")


def json_option(content: str) -> Decorator:
    """Return a decorator that adds the flag for JSON on standard output."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {content} to standard output.")


def out_folder_option(help_text: str, default: str | None = None, *, required: bool = False) -> Decorator:
    """Return a decorator that adds the option for an output folder; `default` describes the folder if none is given."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        required=required,
        show_default=default or True,
        metavar="DIR",
        help=help_text,
    )


def out_file_option(help_text: str, *, required: bool = False) -> Decorator:
    """Return a decorator that adds the option for an output file."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, dir_okay=False),
        required=required,
        metavar="FILE",
        help=help_text,
    )


def think_tokens_option(help_text: str, default: str) -> Decorator:
    """Return a decorator that adds the option for the markers of thoughts; `default` describes what is used else."""
    return click.option("--think-tokens", nargs=2, type=str, show_default=default, metavar="OPEN CLOSE", help=help_text)


def card_options(min_f1: float | None = 0.9) -> Decorator:
    """Return a decorator that adds the options on when a judge counts as calibrated.

    Args:
        min_f1: Default of `--min-judge-f1`; None for the value of the run that is judged again.
    """
    card = click.option(
        "--judge-card",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        show_default="found by the judge's hash",
        metavar="FILE",
        help="Calibration card of the judge.",
    )
    minimum = click.option(
        "--min-judge-f1",
        type=click.FloatRange(0, 1),
        callback=refuse_nan,
        default=min_f1,
        show_default=True if min_f1 is not None else "the run's",
        metavar="F1",
        help="Macro F1 that a calibrated judge reaches, by the lower end of its 95 % interval.",
    )
    return lambda verb: card(minimum(verb))


def loading_options(verb: Verb) -> Verb:
    """Add the options on how to load a checkpoint; the verb receives them as `loading: CheckpointOptions`."""

    @_named_as(verb)
    def with_loading(
        *,
        revision: str | None,
        dtype: str,
        device: str,
        trust_remote_code: bool,
        system_as: SystemAs,
        chat_template: str | None,
        stop_token: tuple[str, ...],
        **others: object,
    ) -> int | None:
        from cst_bench.checkpoint import CheckpointOptions

        loading = CheckpointOptions(
            revision=revision,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            system_as=system_as,
            chat_template=chat_template,
            stop_token=stop_token,
        )
        return verb(loading=loading, **others)

    return _add(
        with_loading,
        click.option("--revision", metavar="REVISION", help="Branch, tag or commit of a model on the Hub."),
        click.option(
            "--dtype",
            type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
            default="auto",
            help="Data type of the weights; `auto` is float32 on a CPU and the checkpoint's own type on a GPU.",
        ),
        click.option(
            "--device", default="auto", metavar="DEVICE", help="Device to use: auto, cpu, cuda, cuda:1 or mps."
        ),
        click.option(
            "--trust-remote-code",
            is_flag=True,
            help="Run Python code that comes with the checkpoint. Use it only for code that you have read.",
        ),
        click.option(
            "--system-as",
            type=click.Choice(["system", "user-prefix"]),
            default="system",
            help="How to pass the system prompt: in its own role, or in front of the user's text (for chat templates "
            "without a system role).",
        ),
        click.option(
            "--chat-template", metavar="FILE", help="Jinja chat template to use instead of the tokenizer's own."
        ),
        click.option(
            "--stop-token", multiple=True, metavar="TOKEN", help="Another token that ends a turn; repeatable."
        ),
    )


def checkpoint_options(verb: Verb) -> Verb:
    """Add the checkpoint argument and all options on it; the verb receives them as `checkpoint: CheckpointOptions`."""

    @_named_as(verb)
    def with_checkpoint(
        *,
        checkpoint: str,
        base: str | None,
        batch_size: int | None,
        load_in_4bit: bool,
        merge: bool,
        think_tokens: tuple[str, str] | None,
        max_think_tokens: int | None,
        loading: CheckpointOptions,
        **others: object,
    ) -> int | None:
        from dataclasses import replace

        options = replace(
            loading,
            name=checkpoint,
            base=base,
            batch_size=batch_size,
            load_in_4bit=load_in_4bit,
            merge=merge,
            think_tokens=think_tokens,
            max_think_tokens=max_think_tokens,
        )
        return verb(checkpoint=options, **others)

    return loading_options(
        _add(
            with_checkpoint,
            click.argument("checkpoint", default="tiny", required=False),
            click.option(
                "--base",
                metavar="CHECKPOINT",
                help="Base model of an adapter, instead of the one that its config names.",
            ),
            click.option(
                "--batch-size",
                type=click.IntRange(min=1),
                show_default="chosen by free memory",
                metavar="N",
                help="Rows to compute at a time.",
            ),
            click.option(
                "--load-in-4bit", is_flag=True, help="Quantize the weights to 4-bit NF4 (needs cst-bench[4bit])."
            ),
            click.option(
                "--no-merge",
                "merge",
                flag_value=False,
                default=True,
                show_default=False,
                help="Keep an adapter apart from its base, which takes longer, instead of merging it on loading.",
            ),
            think_tokens_option(
                "Markers that a reasoning model's thought begins and ends with; thoughts are not judged.",
                "those of the chat template, or <think> </think>",
            ),
            click.option(
                "--max-think-tokens",
                type=click.IntRange(min=1),
                show_default="4096 for a local checkpoint that thinks",
                metavar="N",
                help="Most tokens of a thought, in addition to those that the task gives an answer.",
            ),
        )
    )


def generate_options(verb: Verb) -> Verb:
    """Add the options on a server that generates the responses; the verb receives them as `engine: EngineOptions`."""

    @_named_as(verb)
    def with_engine(
        *,
        generate_with: EngineName | None,
        generate_url: str | None,
        generate_model: str | None,
        generate_args: str,
        generate_check: bool,
        capabilities_on_server: bool,
        **others: object,
    ) -> int | None:
        from cst_bench.checkpoint import EngineOptions

        options = EngineOptions(
            generate_with=generate_with,
            generate_url=generate_url,
            generate_model=generate_model,
            generate_args=generate_args,
            generate_check=generate_check,
            capabilities_on_server=capabilities_on_server,
        )
        return verb(engine=options, **others)

    return _add(
        with_engine,
        click.option(
            "--generate-with",
            type=click.Choice(["vllm", "sglang"]),
            show_default="in process",
            help="Generate the responses with a server of this engine, started on this machine with CHECKPOINT's files "
            "and stopped before the capabilities.",
        ),
        click.option(
            "--generate-url",
            metavar="URL",
            help="Generate the responses on a server that runs already with CHECKPOINT's files: vLLM, SGLang, or "
            "another whose completions endpoint takes and returns token ids. Its key, if it needs one, is read from "
            "CST_BENCH_GENERATE_API_KEY.",
        ),
        click.option(
            "--generate-model",
            metavar="NAME",
            show_default="the only one",
            help="Name of CHECKPOINT on the server of --generate-url.",
        ),
        click.option(
            "--generate-args",
            default="",
            metavar="ARGS",
            show_default=False,
            help="More arguments of the engine that --generate-with starts, such as '--tensor-parallel-size 4'.",
        ),
        click.option(
            "--no-generate-check",
            "generate_check",
            flag_value=False,
            default=True,
            show_default=False,
            help="Do not compare the server's greedy responses with those in process, for a model that does not fit "
            "here; the report says so.",
        ),
        click.option(
            "--capabilities-on-server",
            is_flag=True,
            help="Score the capabilities on the server, too, with lm-eval's local-completions, for a model that does "
            "not fit here.",
        ),
    )


def judge_options(verb: Verb) -> Verb:
    """Add the options on the model that a judge asks; the verb receives them as `judge_options: JudgeOptions`."""

    @_named_as(verb)
    def with_judge(
        *,
        judge_model: str | None,
        judge_base_url: str | None,
        judge_connections: int | None,
        judge_max_tokens: int | None,
        judge_reasoning_effort: str | None,
        judge_price: tuple[float, float] | None,
        max_cost: float | None,
        **others: object,
    ) -> int | None:
        from cst_bench.judging import JudgeOptions
        from cst_bench.judging.budget import Budget

        options = JudgeOptions(
            model=judge_model,
            base_url=judge_base_url,
            connections=judge_connections,
            max_tokens=judge_max_tokens,
            reasoning_effort=judge_reasoning_effort,
            price=judge_price,
            budget=None if max_cost is None else Budget(max_cost),
        )
        return verb(judge_options=options, **others)

    return _add(
        with_judge,
        click.option(
            "--judge-model",
            metavar="MODEL",
            show_default="the judge file's",
            help="Model that the judge asks: an Inspect model name (openai/gpt-4o, anthropic/…), or a checkpoint for a "
            "guard.",
        ),
        click.option(
            "--judge-base-url", metavar="URL", help="OpenAI-compatible endpoint that serves the judge's model."
        ),
        click.option(
            "--judge-connections",
            type=click.IntRange(min=1),
            metavar="N",
            help="Concurrent calls to the judge's model.",
        ),
        click.option(
            "--judge-max-tokens",
            type=click.IntRange(min=16),
            show_default="the judge file's, 4608 unless it says otherwise",
            metavar="N",
            help="Most tokens of an answer of the judge's model, thoughts included.",
        ),
        click.option(
            "--judge-reasoning-effort",
            type=click.Choice(["none", "minimal", "low", "medium", "high", "xhigh", "max"]),
            show_default="the provider's",
            help="How much the judge's model is to think, where it reasons; another effort is another judge.",
        ),
        click.option(
            "--judge-price",
            type=(click.FloatRange(min=0), click.FloatRange(min=0)),
            metavar="IN OUT",
            show_default="what Inspect knows",
            help="Price of the judge's model: US dollars for a million tokens read, and written.",
        ),
        click.option(
            "--max-cost",
            type=click.FloatRange(min=0, min_open=True),
            metavar="USD",
            help="Stop before the judges' calls of this command cost more; the same command goes on where it stopped.",
        ),
    )


def _add(verb: Verb, *options: Decorator) -> Verb:
    """Apply decorators so that `--help` lists their options in this order."""
    return reduce(lambda decorated, option: option(decorated), reversed(options), verb)
