"""A training that is killed and continued by the same command has the weights of an undisturbed one, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cst_bench.errors import UserError
from cst_bench.tuning import TrainOptions, train
from tests.tuning.conftest import write_recipe, write_rows

pytestmark = pytest.mark.slow
_RUN = "from cst_bench.cli.train import command; command()"


def settings(tmp_path: Path, base: Path, lora: bool, dtype: str = "float32") -> tuple[str, Path]:
    """Write a recipe of many short steps with dropout, so that the state of the random numbers matters."""
    trl = {"num_train_epochs": 40, "learning_rate": 1e-3, "disable_dropout": False, "save_steps": 8}
    changes: dict[str, Any] = {"trl": trl, "dtype": dtype}
    changes["lora"] = {"r": 4, "target_modules": "all-linear", "lora_dropout": 0.2} if lora else None
    return write_recipe(tmp_path / "recipe.yaml", base, **changes), write_rows(tmp_path / "rows.jsonl")


def killed_at(checkpoint: int, out: Path, args: list[str]) -> None:
    """Start a training and kill it (SIGKILL) when the trainer's checkpoint of a step is complete."""
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    mark = out.parent / f".{out.name}.partial" / "checkpoints" / f"checkpoint-{checkpoint}" / "complete.json"
    try:
        deadline = time.monotonic() + 180
        while not mark.is_file():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not out.exists()


@pytest.mark.parametrize(("lora", "dtype"), [(True, "float32"), (False, "float32"), (True, "bfloat16")])
def test_killed_and_continued_is_bit_for_bit_the_same(tmp_path: Path, llama: Path, lora: bool, dtype: str) -> None:
    recipe, data = settings(tmp_path, llama, lora, dtype)
    left_alone = train(TrainOptions(recipe, data=data, out=tmp_path / "whole"))
    assert left_alone.training["packed"]
    out = tmp_path / "killed"
    args = [recipe, "--data", str(data), "--out", str(out)]
    killed_at(16, out, args)
    killed_at(48, out, args)
    work = tmp_path / ".killed.partial"
    torn = work / "checkpoints" / "checkpoint-999"  # a checkpoint that was being written
    torn.mkdir()
    (torn / "trainer_state.json").write_text("{")
    with pytest.raises(UserError, match="an unfinished training with other settings"):
        train(TrainOptions(recipe, data=data, out=out, seed=5))
    continued = train(TrainOptions(recipe, data=data, out=out))
    assert not work.exists()
    assert continued.training["weights_sha256"] == left_alone.training["weights_sha256"]
    steps = [entry["step"] for entry in continued.training["metrics"]]
    assert steps == [entry["step"] for entry in left_alone.training["metrics"]]
    losses = [[entry.get("loss") for entry in result.training["metrics"][:-1]] for result in (continued, left_alone)]
    assert losses[0] == losses[1]


def test_restart_begins_again_with_other_settings(tmp_path: Path, llama: Path) -> None:
    recipe, data = settings(tmp_path, llama, True)
    out = tmp_path / "out"
    killed_at(8, out, [recipe, "--data", str(data), "--out", str(out)])
    changes = ("trl.num_train_epochs=1",)
    result = train(TrainOptions(recipe, data=data, out=out, changes=changes, restart=True))
    assert result.training["steps"] == 2


@pytest.mark.parametrize("processes", [1, 2])
def test_launched_trainings_make_one_checkpoint(tmp_path: Path, llama: Path, processes: int) -> None:
    """Launch one process with `accelerate launch`, and two on the CPU with torch's launcher, which accelerate uses."""
    recipe = write_recipe(tmp_path / "recipe.yaml", llama)
    data = write_rows(tmp_path / "rows.jsonl")
    script = tmp_path / "launched.py"
    script.write_text(f"{_RUN}\n")
    launchers = {
        1: ["accelerate.commands.launch", "--cpu", "--num_processes=1", "--num_machines=1", "--mixed_precision=no",
            "--dynamo_backend=no"],
        2: ["torch.distributed.run", "--nproc_per_node=2", "--master_port=29571"],
    }  # fmt: skip
    args = [str(script), recipe, "--data", str(data), "--out", str(tmp_path / "out"), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", *launchers[processes], *args],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    training = json.loads((tmp_path / "out" / "training.json").read_text())
    assert training["steps"] == 2 // processes  # of two batches a process, of 12 rows
    assert done.stdout.count("Checkpoint:") == 1
    assert done.stderr.count("Template gate") == 1
    rows = [line for path in (tmp_path / "cache" / "reference").iterdir() for line in path.read_text().splitlines()]
    assert len(rows) == 12
    if processes == 1:
        alone = train(TrainOptions(recipe, data=data, out=tmp_path / "alone"))
        assert alone.training["weights_sha256"] == training["weights_sha256"]
