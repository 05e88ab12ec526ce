"""What click parses is what each verb takes, its defaults are the library's, and every option explains itself."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import get_args

import click
import pytest

from cst_bench.calibration import CalibrateOptions
from cst_bench.calibration.fitting import FitOptions
from cst_bench.calibration.judge_comparison import JudgeBenchOptions
from cst_bench.calibration.robustness import attack
from cst_bench.checkpoint import CheckpointOptions
from cst_bench.checkpoint.options import DTYPES, ENGINES, EngineOptions, SystemAs
from cst_bench.cli import cli
from cst_bench.cli.judge.judge_again import command as judge_run_verb
from cst_bench.cli.shared_options import parse_assignments, parse_counts, parse_paths
from cst_bench.cli.verbs import Verbs
from cst_bench.judging import REASONING_EFFORTS
from cst_bench.preferences import METHODS, FlipOptions
from cst_bench.preferences.critique_job import CritiqueOptions
from cst_bench.preferences.mixing import mix
from cst_bench.reporting.formats import FORMATS
from cst_bench.reporting.leaderboard.write import write_reports
from cst_bench.reproduce import ReproduceOptions
from cst_bench.runs import JudgeRunOptions, RunOptions
from cst_bench.runs.external import ScoreOptions
from cst_bench.runs.imports import FORMATS as LOG_FORMATS
from cst_bench.runs.labelling import choose
from cst_bench.tuning import TrainOptions
from tests.cli.invoke import invoke

GROUPS = {"CheckpointOptions", "EngineOptions", "JudgeOptions"}
"""Types of the objects that a verb receives for a group of options."""
HEAVY = ("torch", "transformers", "trl", "inspect_ai", "lm_eval", "datasets", "sklearn", "scipy", "numpy", "pydantic")


def verbs(group: Verbs, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = judge_run_verb if name == "RUN" else group.get_command(context, name)
        assert command is not None
        yield f"{path}{name}", command
        if isinstance(command, Verbs):
            yield from verbs(command, f"{path}{name} ")


assert isinstance(cli, Verbs)
ALL = dict(verbs(cli))
LEAVES = {name: command for name, command in ALL.items() if not isinstance(command, Verbs)}


def annotation(parameter: click.Parameter) -> str:
    """Return the annotation that a callback must have for the values of a click parameter."""
    if parameter.callback is parse_assignments:
        return "Mapping[str, str]"
    if parameter.callback is parse_counts:
        return "Mapping[str, int]"
    if parameter.callback is parse_paths:
        return "Mapping[str, Path]"
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return "bool"
    kinds = {click.Path: "Path", click.IntRange: "int", click.FloatRange: "float"}
    part = parameter.type.types[0] if isinstance(parameter.type, click.Tuple) else parameter.type
    base = kinds.get(type(part), {"integer": "int"}.get(part.name, "str"))
    if parameter.multiple or parameter.nargs == -1:
        return f"tuple[{base}, ...]"
    if parameter.nargs > 1:
        base = f"tuple[{', '.join([base] * parameter.nargs)}]"
    default = parameter.default if callable(parameter.default) else parameter.to_info_dict()["default"]
    return base if parameter.required or default is not None else f"{base} | None"


def layers(callback: Callable[..., object] | None) -> Iterator[Callable[..., object]]:
    """Yield the callback, and what it wraps: the verb itself comes last."""
    while callback is not None:
        yield callback
        callback = getattr(callback, "__wrapped__", None)


@pytest.mark.parametrize("name", LEAVES)
def test_parameters_of_click_are_those_of_the_callback(name: str) -> None:
    taken: dict[str, str] = {}
    received: set[str] = set()
    for layer in layers(LEAVES[name].callback):
        for parameter in inspect.signature(layer, follow_wrapped=False).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                assert layer is not list(layers(LEAVES[name].callback))[-1], "a verb names all its parameters"
            elif parameter.annotation in GROUPS:
                received.add(parameter.name)
            else:
                assert parameter.kind is parameter.KEYWORD_ONLY
                taken[parameter.name] = parameter.annotation
    expected = {str(parameter.name): annotation(parameter) for parameter in LEAVES[name].params}
    if "system_as" in taken:
        assert taken.pop("system_as") == "SystemAs"
        del expected["system_as"]
    if "generate_with" in taken:
        assert taken.pop("generate_with") == "EngineName | None"
        del expected["generate_with"]
    assert taken == expected
    assert ("checkpoint" in received) == ("load_in_4bit" in expected)
    assert ("judge_options" in received) == ("judge_model" in expected)
    assert ("engine" in received) == ("generate_url" in expected)


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("run", RunOptions),
        ("run", CheckpointOptions),
        ("run", EngineOptions),
        ("score", ScoreOptions),
        ("judge RUN", JudgeRunOptions),
        ("judge calibrate", CalibrateOptions),
        ("judge attack", attack),
        ("judge bench", JudgeBenchOptions),
        ("judge train", FitOptions),
        ("judge label", choose),
        ("report", write_reports),
        ("data critique", CritiqueOptions),
        ("data flip", FlipOptions),
        ("data mix", mix),
        ("train", TrainOptions),
        ("reproduce", ReproduceOptions),
    ],
)
def test_defaults_are_those_of_the_library(name: str, library: Callable[..., object]) -> None:
    compared = 0
    for field, parameter in inspect.signature(library).parameters.items():
        option = next((option for option in LEAVES[name].params if option.name == field), None)
        plain = parameter.default is None or isinstance(parameter.default, (bool, int, float, str, tuple))
        computed = (name, field) == ("reproduce", "workers")
        if option is None or not plain or computed:
            continue
        default = option.to_info_dict()["default"]
        assert (default or None) == (parameter.default or None), f"{name}: {field}"
        compared += 1
    assert compared


def test_the_default_checkpoint_is_the_library_s() -> None:
    (argument,) = [parameter for parameter in LEAVES["run"].params if isinstance(parameter, click.Argument)]
    assert argument.default == CheckpointOptions().name


@pytest.mark.parametrize(
    ("name", "option", "known"),
    [
        ("run", "dtype", DTYPES),
        ("run", "generate_with", ENGINES),
        ("run", "system_as", get_args(SystemAs)),
        ("run", "judge_reasoning_effort", REASONING_EFFORTS),
        ("report", "formats", FORMATS),
        ("score", "format", LOG_FORMATS),
        ("data flip", "method", METHODS),
        ("train", "method", METHODS),
    ],
)
def test_choices_are_those_of_the_library(name: str, option: str, known: tuple[str, ...]) -> None:
    (choice,) = [parameter.type for parameter in LEAVES[name].params if parameter.name == option]
    assert isinstance(choice, click.Choice)
    assert set(choice.choices) == set(known)


@pytest.mark.parametrize("name", ["", *ALL])
def test_help_has_examples_and_explains_every_option(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = invoke(capsys, monkeypatch, *name.split(), "--help")
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith(f"Usage: cst-bench {name}".rstrip())
    assert "  Examples:\n    cst-bench " in outcome.out
    for option in (ALL[name] if name else cli).params:
        if isinstance(option, click.Option) and option.name not in ("help", "version"):
            assert option.help, option.name
            assert option.help.endswith("."), option.help
            assert option.is_flag or option.metavar or isinstance(option.type, click.Choice), option.name


def test_help_loads_no_heavy_library() -> None:
    names = [command.callback.__module__ for command in LEAVES.values() if command.callback is not None]
    program = f"""
import sys
from importlib import import_module
for name in {names!r}:
    import_module(name)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
