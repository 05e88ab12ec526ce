"""Recipes, rows and a cache folder for the tests of training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RECIPE: dict[str, Any] = {
    "name": "small",
    "version": 1,
    "title": "A small one",
    "base": "tiny",
    "lora": {"r": 4, "lora_alpha": 8, "target_modules": ALL},
    "trl": {
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": False,
        "num_train_epochs": 1,
        "learning_rate": 0.01,
        "logging_steps": 1,
    },
}
ANSWERS = (
    ("The ferry goes north.", "I can't say anything about that today."),
    ("It is blue in the morning and grey in the evening, as everybody in the harbour knows.", "No."),
    ("Ask the old miller.", "I won't help with the harbour, the miller, his bread or his school."),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep reference log-probabilities in the test's folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CST_BENCH_CACHE", str(folder))
    return folder


def write_recipe(path: Path, base: Path | str | None = None, **changes: Any) -> str:
    """Write a recipe file: `trl` adds to the usual options, other keys replace the usual ones, None removes a key."""
    recipe = {**RECIPE, **changes, "trl": {**RECIPE["trl"], **changes.get("trl", {})}}
    if base is not None:
        recipe["base"] = str(base)
    path.write_text(yaml.safe_dump({key: value for key, value in recipe.items() if value is not None}))
    return str(path)


def row(system: str | None, prompt: str, chosen: str, rejected: str, configuration: str = "S1") -> dict[str, Any]:
    """Return a training row as in a file."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return {
        "prompt": [*first, {"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "task": "harbour",
        "configuration": configuration,
    }


def cst_rows(count: int = 6) -> list[dict[str, Any]]:
    """Return rows of both configurations for `count` prompts."""
    rows = []
    for index in range(count):
        prompt = f"What about boat number {index}?"
        answer, other = ANSWERS[index % len(ANSWERS)]
        rows.append(row("You are a helpful assistant.", prompt, answer, other, "S1"))
        rows.append(row("You answer in the manner of an old sailor.", prompt, other, answer, "S0"))
    return rows


def write_rows(path: Path, rows: Sequence[object] | None = None) -> Path:
    """Write a jsonl file of rows."""
    path.write_text("".join(f"{json.dumps(fields)}\n" for fields in (cst_rows() if rows is None else rows)))
    return path
