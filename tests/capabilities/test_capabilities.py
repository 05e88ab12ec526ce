"""Capabilities are lm-eval's own numbers, on the loaded checkpoint, from the Hub's data or a local mirror of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from cst_bench.capabilities import CapabilityResult, evaluate_capability, load, load_capability, save
from cst_bench.checkpoint import Checkpoint, CheckpointOptions, load_checkpoint
from cst_bench.checkpoint.options import embedded_folder
from cst_bench.content import content_root
from cst_bench.errors import UserError
from tests.mirrors import MIRRORS, arc, truthfulqa, write_mirror

STOCK = {
    "arc_challenge": (25, "acc_norm"),
    "hellaswag": (10, "acc_norm"),
    "mmlu": (5, "acc"),
    "truthfulqa_mc2": (0, "acc"),
}


@pytest.fixture(scope="module")
def checkpoint(llama: Path) -> Checkpoint:
    return load_checkpoint(CheckpointOptions(name=str(llama)))


@pytest.fixture(scope="module")
def embedded() -> Checkpoint:
    return load_checkpoint(CheckpointOptions())


def evaluate(
    checkpoint: Checkpoint, name: str, data: Path | None = None, limit: int | None = None, documents: int | None = None
) -> CapabilityResult:
    task, path = load_capability(name)
    return evaluate_capability(checkpoint, task, path, data=data, limit=limit, documents=documents)


@pytest.mark.parametrize("name", STOCK)
def test_the_stock_tasks_have_the_paper_s_shots_and_metrics(name: str) -> None:
    task, path = load_capability(name)
    assert (task.num_fewshot, task.metric) == STOCK[name]
    assert task.definitions_folder(path).is_dir()


@pytest.mark.parametrize("name", ["arc_challenge", "truthfulqa_mc2", pytest.param("hellaswag", marks=pytest.mark.slow)])
def test_a_stock_task_runs_on_a_local_mirror_with_its_shots(name: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    result = evaluate(checkpoint, name, MIRRORS[name](tmp_path))
    assert result.n == 6
    assert result.score is not None
    assert 0 <= result.score <= 1
    shots = result.results["n-shot"]
    assert isinstance(shots, dict)
    assert shots[name] == STOCK[name][0]
    prompt = cast("list[tuple[str, str]]", result.samples[name][0]["arguments"])[0][0]
    assert prompt.count("Answer:" if name == "arc_challenge" else "Q:" if name == "truthfulqa_mc2" else "Baking:") >= (
        STOCK[name][0] + 1
    )


@pytest.mark.slow
def test_mmlu_runs_all_its_57_subjects(checkpoint: Checkpoint, tmp_path: Path) -> None:
    result = evaluate(checkpoint, "mmlu", MIRRORS["mmlu"](tmp_path))
    assert result.n == 114
    assert len(result.samples) == 57


def test_another_folder_of_the_same_name_and_an_edited_one_are_read_themselves(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """`datasets` caches a local folder by its name and the list of its files, and would read the first one again."""

    def prompts(folder: Path) -> list[str]:
        result = evaluate(checkpoint, "arc_challenge", folder, limit=1)
        return [cast("list[tuple[str, str]]", sample["arguments"])[0][0] for sample in result.samples["arc_challenge"]]

    first, second = arc(tmp_path / "one" / "arc"), arc(tmp_path / "two" / "arc")
    rows = second / "ARC-Challenge" / "test.jsonl"
    rows.write_text(rows.read_text().replace("Which number comes after", "What follows upon"))
    assert "Question: Which number comes after" in prompts(first)[0].rpartition("\n\n")[2]
    assert "Question: What follows upon" in prompts(second)[0].rpartition("\n\n")[2]
    rows.write_text(rows.read_text().replace("What follows upon", "Tell me the number after"))
    assert "Question: Tell me the number after" in prompts(second)[0].rpartition("\n\n")[2]


def test_limit_takes_the_first_documents(checkpoint: Checkpoint, tmp_path: Path) -> None:
    result = evaluate(checkpoint, "truthfulqa_mc2", truthfulqa(tmp_path), limit=2)
    assert result.n == 2
    assert [sample["doc_id"] for sample in result.samples["truthfulqa_mc2"]] == [0, 1]


def test_a_saved_result_comes_back_without_its_samples(checkpoint: Checkpoint, tmp_path: Path) -> None:
    result = evaluate(checkpoint, "truthfulqa_mc2", truthfulqa(tmp_path / "data"))
    assert load(tmp_path / "run", "truthfulqa_mc2") is None
    save(result, tmp_path / "run")
    loaded = load(tmp_path / "run", "truthfulqa_mc2")
    assert loaded == replace(result, samples={})
    samples = [
        json.loads(line) for line in (tmp_path / "run" / "truthfulqa_mc2.samples.jsonl").read_text().splitlines()
    ]
    assert [sample["doc_id"] for sample in samples] == list(range(6))
    assert json.loads((tmp_path / "run" / "truthfulqa_mc2.json").read_text())["results"]["truthfulqa_mc2"]["acc,none"]


def test_the_same_evaluation_saves_the_same_bytes(checkpoint: Checkpoint, tmp_path: Path) -> None:
    data = truthfulqa(tmp_path / "data")
    for run in ("first", "second"):
        save(evaluate(checkpoint, "truthfulqa_mc2", data), tmp_path / run)
    for name in ("truthfulqa_mc2.json", "truthfulqa_mc2.samples.jsonl"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_other_documents_have_another_hash(checkpoint: Checkpoint, tmp_path: Path) -> None:
    data = truthfulqa(tmp_path)
    whole = evaluate(checkpoint, "truthfulqa_mc2", data)
    part = evaluate(checkpoint, "truthfulqa_mc2", data, limit=3)
    assert whole.documents_sha256 != part.documents_sha256


def test_random_documents_are_the_same_in_every_run(embedded: Checkpoint) -> None:
    first, again = (evaluate(embedded, "tiny_arc", documents=5, limit=2) for _ in range(2))
    assert first.n == 5
    assert first.documents_sha256 == again.documents_sha256
    assert first.documents_sha256 != evaluate(embedded, "tiny_arc", limit=5).documents_sha256
    whole = evaluate(embedded, "tiny_arc")
    assert evaluate(embedded, "tiny_arc", documents=10**6).documents_sha256 == whole.documents_sha256
    prompts = [sample["doc_hash"] for sample in whole.samples["tiny_arc"]]
    drawn = [prompts.index(sample["doc_hash"]) for sample in first.samples["tiny_arc"]]
    assert drawn == sorted(drawn)


def test_progress_counts_every_log_likelihood(checkpoint: Checkpoint, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    task, path = load_capability("truthfulqa_mc2")
    evaluate_capability(
        checkpoint, task, path, data=truthfulqa(tmp_path), progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(i, 24) for i in range(1, 25)]


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown capability task 'arc_chalenge': did you mean arc_challenge"):
        load_capability("arc_chalenge")


def test_without_hub_and_data_the_message_says_how_to_give_it(checkpoint: Checkpoint) -> None:
    with pytest.raises(UserError, match="--data arc_challenge=FOLDER"):
        evaluate(checkpoint, "arc_challenge")


def test_wrong_columns_are_the_user_s_to_mend(checkpoint: Checkpoint, tmp_path: Path) -> None:
    rows = [{"something": "else"}] * 30
    data = write_mirror(tmp_path, {"ARC-Challenge": {"train": rows, "validation": rows, "test": rows}})
    with pytest.raises(UserError, match=r"--data arc_challenge=.*columns or splits do not match"):
        evaluate(checkpoint, "arc_challenge", data)


def test_an_empty_folder_is_no_data(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be a folder that mirrors"):
        evaluate(checkpoint, "arc_challenge", tmp_path)


def test_own_definitions_take_no_other_data(embedded: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has its own data"):
        evaluate(embedded, "tiny_arc", arc(tmp_path))


@pytest.mark.parametrize("name", ["tiny_arc", "tiny_hellaswag", "tiny_mmlu", "tiny_truthfulqa"])
def test_the_embedded_checkpoint_knows_its_world_but_not_all_of_it(name: str, embedded: Checkpoint) -> None:
    result = evaluate(embedded, name)
    assert result.n >= 60
    assert result.score is not None
    assert 0.5 < result.score < 1


@pytest.mark.slow
def test_lm_eval_s_own_command_gives_the_same_numbers(embedded: Checkpoint, tmp_path: Path) -> None:
    names = ["tiny_arc", "tiny_hellaswag", "tiny_mmlu", "tiny_truthfulqa"]
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "8"),
        *("--model_args", f"pretrained={embedded_folder()},dtype=float32"),
        *("--include_path", str(content_root() / "tasks" / "capabilities" / "tiny")),
        *("--tasks", ",".join(names), "--output_path", str(tmp_path / "out")),
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    (written,) = (tmp_path / "out").rglob("results_*.json")
    theirs = json.loads(written.read_text())["results"]
    for name in names:
        ours = evaluate(embedded, name)
        assert theirs[name][f"{ours.metric},none"] == pytest.approx(ours.score, abs=1e-6)
        assert theirs[name][f"{ours.metric}_stderr,none"] == pytest.approx(ours.stderr, abs=1e-6)
