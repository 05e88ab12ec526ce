from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import pytest

from cst_bench.checkpoint import CheckpointOptions, CheckpointSource, find_checkpoint, resolve
from cst_bench.checkpoint.evaluated_model import EvaluatedModel
from cst_bench.checkpoint.options import embedded_folder, inspect_providers
from cst_bench.errors import UserError
from cst_bench.progress import Silent

Kind = Literal["local", "hub", "inspect"]


def test_without_a_name_it_is_the_embedded_checkpoint() -> None:
    source = resolve(CheckpointOptions().name)
    assert source == CheckpointSource("local", str(embedded_folder()), "tiny")
    assert (embedded_folder() / "config.json").is_file()


def test_a_folder_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("org/model").kind == "hub"
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert resolve("org/model") == CheckpointSource("local", str(tmp_path / "org" / "model"), "model")
    assert resolve("hf/org/model") == CheckpointSource("hub", "org/model", "org/model")


@pytest.mark.parametrize("name", ["org", "./org", "org/"])
def test_a_folder_may_be_named_in_any_way(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    assert resolve(name) == CheckpointSource("local", str(tmp_path / "org"), "org")


def test_the_home_folder_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve("~/model").name == str(tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "kind", "rest"),
    [
        ("openai/gpt-4", "inspect", "openai/gpt-4"),
        ("vllm/org/model", "inspect", "vllm/org/model"),
        ("google/gemini-2.5-flash", "inspect", "google/gemini-2.5-flash"),
        ("hf/google/gemma-2-2b-it", "hub", "google/gemma-2-2b-it"),
        ("teknium/OpenHermes-2.5-Mistral-7B", "hub", "teknium/OpenHermes-2.5-Mistral-7B"),
    ],
)
def test_a_prefix_tells_an_api_from_the_hub(name: str, kind: Kind, rest: str) -> None:
    assert resolve(name) == CheckpointSource(kind, rest, rest)


def test_inspects_providers_and_our_own_are_known() -> None:
    assert {"openai", "anthropic", "vllm", "mockllm", "cst"} <= inspect_providers()


@pytest.mark.parametrize("name", ["tinny", "./nowhere", "/nowhere/at/all", "C:\\models\\mine", ""])
def test_an_unknown_name_says_so_and_what_would_be_known(name: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"unknown checkpoint {name!r}")) as raised:
        resolve(name)
    assert "Hub id" in str(raised.value)


def test_a_slip_of_the_pen_gets_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "my-model").mkdir()
    with pytest.raises(UserError, match="did you mean my-model"):
        resolve(str(tmp_path / "my-modle"))
    with pytest.raises(UserError, match="did you mean tiny"):
        resolve("tinny")


@pytest.mark.parametrize("name", ["org/no such model", "hf/", "org/name/extra"])
def test_an_impossible_hub_id_is_told_as_such(name: str) -> None:
    with pytest.raises(UserError, match="unknown checkpoint"):
        find_checkpoint(CheckpointOptions(name=name))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dtype": "float8"}, "dtype must be one of auto, float32, bfloat16, float16, not 'float8'"),
        ({"system_as": "prefix"}, "system_as must be one of system, user-prefix, not 'prefix'"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        CheckpointOptions(**wrong)


APPLICABLE: dict[str, Any] = {"think_tokens": ("<a>", "</a>"), "max_think_tokens": 5}
OTHERS: dict[str, Any] = {
    "revision": "main",
    "base": "org/base",
    "dtype": "bfloat16",
    "device": "cuda:1",
    "batch_size": 2,
    "load_in_4bit": True,
    "merge": False,
    "trust_remote_code": True,
    "system_as": "user-prefix",
    "chat_template": "mine.jinja",
    "stop_token": ("</s>",),
}


def test_every_option_is_known_to_apply_to_inspect_models_or_not_to() -> None:
    assert {field.name for field in fields(CheckpointOptions)} == {"name", *APPLICABLE, *OTHERS}


@pytest.mark.parametrize("name", ["vllm/org/model", "openai/gpt-4", "mockllm/model", "cst/tiny"])
@pytest.mark.parametrize("option", OTHERS)
def test_an_inspect_model_refuses_the_options_that_its_provider_would_not_get(name: str, option: str) -> None:
    flag = "--no-merge" if option == "merge" else f"--{option.replace('_', '-')}"
    with pytest.raises(UserError, match=f"^{flag}: not possible for the Inspect model {name}") as raised:
        EvaluatedModel(CheckpointOptions(name, **{option: OTHERS[option]}), Silent())
    assert "only --think-tokens and --max-think-tokens apply" in str(raised.value)


def test_all_options_that_do_not_apply_are_named_in_one_message() -> None:
    with pytest.raises(UserError, match=r"^--dtype, --system-as: not possible") as raised:
        EvaluatedModel(CheckpointOptions("google/gemma", dtype="float16", system_as="user-prefix"), Silent())
    assert str(raised.value).endswith("for the Hub checkpoint of that name use hf/google/gemma")


def test_an_inspect_model_takes_the_options_that_apply() -> None:
    model = EvaluatedModel(CheckpointOptions("mockllm/model", **APPLICABLE), Silent())
    assert (model.identity.think_tokens, model.identity.max_think_tokens) == (("<a>", "</a>"), 5)
