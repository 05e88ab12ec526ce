"""Recipes: the shipped ones, and faults in them, each one message with the place and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from cst_bench import content
from cst_bench.errors import UserError
from cst_bench.tuning import load_recipe
from tests.tuning.conftest import ALL, write_recipe


@pytest.mark.parametrize("name", content.names("training/recipes"))
def test_shipped_recipes_are_valid(name: str) -> None:
    recipe, path = load_recipe(name)
    assert recipe.name == path.stem == name
    assert recipe.lora is not None


@pytest.mark.parametrize("name", ["openhermes", "solar"])
def test_the_papers_models_have_the_authors_settings(name: str) -> None:
    recipe, _ = load_recipe(name)
    assert recipe.lora == {"r": 24, "lora_alpha": 48, "lora_dropout": 0.05, "target_modules": ALL}
    assert recipe.trl == {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "num_train_epochs": 1,
        # where their script sets nothing: the defaults of transformers and TRL in early 2024
        "learning_rate": 5e-5,
        "lr_scheduler_type": "linear",
        "beta": 0.1,
        "gradient_checkpointing": True,
    }
    assert recipe.quantization is not None
    assert recipe.quantization["load_in_4bit"] is True
    assert recipe.quantization["bnb_4bit_quant_type"] == "fp4"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trl: {betta: 0.1}", "recipe.yaml:5: unknown key 'trl.betta': did you mean beta"),
        ("lora: {lora_alfa: 8}", "recipe.yaml:5: unknown key 'lora.lora_alfa': did you mean lora_alpha"),
        ("quantization: {load_in_4bits: true}", "did you mean load_in_4bit"),
        ("trl: {learning_rate: fast}", "recipe.yaml:5: trl.learning_rate: Input should be a valid number"),
        ("trl: {output_dir: /tmp}", "recipe.yaml:5: trl.output_dir: cannot be set in a recipe: use --out"),
        ("metod: dpo", "unknown key 'metod': did you mean method"),
        ("method: ppo", "recipe.yaml:5: method"),
        ("quantization: {load_in_4bit: true}", "give lora too"),
    ],
)
def test_a_fault_is_named_with_its_line_and_the_nearest_name(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: mine\nversion: 1\ntitle: Mine\nbase: tiny\n{line}\n")
    with pytest.raises(UserError) as error:
        load_recipe(str(path))
    assert message in str(error.value)


def test_a_number_that_yaml_takes_for_text_is_a_number(tmp_path: Path) -> None:
    recipe, _ = load_recipe(write_recipe(tmp_path / "recipe.yaml", trl={"learning_rate": "1e-5"}))
    assert recipe.trl["learning_rate"] == 1e-5


def test_changes_override_the_file_and_are_checked_like_it() -> None:
    recipe, _ = load_recipe("tiny", ["trl.beta=0.3", "lora=null", "trl.loss_type=ipo", "trl.loss_weights=null"])
    assert (recipe.trl["beta"], recipe.lora, recipe.trl["loss_type"]) == (0.3, None, "ipo")
    for change, message in (
        ("trl.betta=1", "did you mean beta"),
        ("lorra=1", "did you mean lora"),
        ("trl.beta=much", "valid number"),
        ("trl.beta", "KEY=VALUE"),
        ("optimizer.lr=1", "no section 'optimizer'"),
        ("base.x=1", "has no keys"),
    ):
        with pytest.raises(UserError) as error:
            load_recipe("tiny", [change])
        assert message in str(error.value), change


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean openhermes"):
        load_recipe("openhermess")
