"""A training that is killed or interrupted and continued by the same command has the weights of an undisturbed one, bit
for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cst_bench.errors import UserError
from cst_bench.tuning import TrainOptions, train
from cst_bench.tuning.training_callbacks import Quiet, Steps
from tests.cli.interrupted import running
from tests.tuning.conftest import cst_rows, write_recipe, write_rows

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


class Interrupting(Quiet):
    """Sends SIGINT to this process after steps."""

    def __init__(self, after: Sequence[int]) -> None:
        self._after = after

    @contextmanager
    def training(self, total: int, done: int) -> Iterator[Steps]:
        yield self

    def step(self, done: int) -> None:
        for _ in range(self._after.count(done)):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def _as_in_a_terminal() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_as_in_a_terminal")
@pytest.mark.parametrize("lora", [True, False])
def test_interrupted_at_any_step_it_continues_from_there(tmp_path: Path, llama: Path, lora: bool) -> None:
    recipe, _ = settings(tmp_path, llama, lora)
    data = write_rows(tmp_path / "rows.jsonl", cst_rows(9))  # three steps an epoch
    changes = ("trl.num_train_epochs=5", "trl.save_steps=100")
    left_alone = train(TrainOptions(recipe, data=data, out=tmp_path / "whole", changes=changes))
    options = TrainOptions(recipe, data=data, out=tmp_path / "out", changes=changes)
    checkpoints = tmp_path / ".out.partial" / "checkpoints"
    for step in (4, 5, 9, 15):  # within epochs, at the end of one, and at the end of all
        with pytest.raises(KeyboardInterrupt):
            train(options, Interrupting([step]))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert (checkpoints / f"checkpoint-{step}" / "complete.json").is_file()
    continued = train(options)
    assert continued.training["weights_sha256"] == left_alone.training["weights_sha256"]
    assert continued.training["steps"] == 15


@pytest.mark.usefixtures("_as_in_a_terminal")
def test_interrupted_twice_it_stops_without_another_checkpoint(tmp_path: Path, llama: Path) -> None:
    recipe, data = settings(tmp_path, llama, True)
    options = TrainOptions(recipe, data=data, out=tmp_path / "out", changes=("trl.num_train_epochs=10",))
    with pytest.raises(KeyboardInterrupt):
        train(options, Interrupting([11, 11]))
    checkpoints = tmp_path / ".out.partial" / "checkpoints"
    assert [path.name for path in checkpoints.glob("checkpoint-*")] == ["checkpoint-8"]
    assert train(options).training["steps"] == 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_saves_a_checkpoint_and_says_how_to_continue(
    tmp_path: Path, llama: Path, number: signal.Signals
) -> None:
    recipe, data = settings(tmp_path, llama, True)
    checkpoints = tmp_path / ".out.partial" / "checkpoints"
    args = ("train", recipe, "--data", str(data), "--restart", "--set", "trl.save_steps=1000", "--out", "out")
    epochs = ("--set", "trl.num_train_epochs=2000")
    with running(*args, *epochs, cwd=tmp_path) as process:
        process.wait_until(lambda: "step 3/" in process.said)
        process.interrupt(number)
        assert process.status() == 3, process.said
    (saved,) = checkpoints.glob("checkpoint-*/complete.json")
    assert "interrupted: finishing the step and saving a checkpoint; again to stop at once" in process.said
    resume = process.said.strip().splitlines()[-1]
    assert resume.startswith("cst-bench: interrupted; the same command continues: cst-bench train ")
    assert "--restart" not in resume
    step = int(saved.parent.name.removeprefix("checkpoint-"))
    with running(*(part for part in (*args, *epochs) if part != "--restart"), cwd=tmp_path) as process:
        process.wait_until(lambda: f"continued from step {step}" in process.said)


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
