"""Estimates of capabilities: their documents and tokens are those of the evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest

from cst_bench.capabilities import ScoringCost, estimate_scoring, load_capability
from cst_bench.capabilities.evaluation import evaluate_documents, scoring_model
from cst_bench.capabilities.scoring_cost import packed_tokens
from cst_bench.checkpoint import Checkpoint, CheckpointOptions, load_checkpoint
from cst_bench.errors import UserError
from tests.checkpoints import make_checkpoint
from tests.mirrors import truthfulqa, write_mirror


@pytest.fixture(scope="module")
def checkpoint(llama: Path) -> Checkpoint:
    return load_checkpoint(CheckpointOptions(name=str(llama)))


def estimate(
    checkpoint: Checkpoint, name: str, data: Path | None = None, limit: int | None = None, documents: int | None = None
) -> ScoringCost:
    task, path = load_capability(name)
    return estimate_scoring(
        checkpoint, task, path, data=data, limit=limit, documents=documents, trust_code=False, seconds=0.0
    )


@pytest.mark.parametrize(("name", "limit"), [("tiny_truthfulqa", None), ("tiny_arc", 20), ("tiny_mmlu", 5)])
def test_tokens_are_those_that_the_evaluation_reads(checkpoint: Checkpoint, name: str, limit: int | None) -> None:
    task, path = load_capability(name)
    model = scoring_model(checkpoint)
    raw = evaluate_documents(
        model, task, path, data=None, limit=limit, documents=None, draw=lambda _: None, trust_code=False
    )
    cost = estimate(checkpoint, name, limit=limit)
    assert cost.documents == sum(len(rows) for rows in raw["samples"].values())
    assert cost.tokens == model.forwarded_tokens
    assert cost.seconds > 0
    assert cost.pass_bytes > 0


def test_what_a_sample_does_not_hold_is_taken_to_be_like_it(checkpoint: Checkpoint) -> None:
    task, path = load_capability("tiny_arc")
    model = scoring_model(checkpoint)
    evaluate_documents(model, task, path, data=None, limit=None, documents=None, draw=lambda _: None, trust_code=False)
    cost = estimate(checkpoint, "tiny_arc")
    assert cost.documents == 86  # of which 64 are sampled
    assert cost.tokens == pytest.approx(model.forwarded_tokens, rel=0.1)


def test_random_documents_are_counted(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert estimate(checkpoint, "truthfulqa_mc2", truthfulqa(tmp_path), documents=4).documents == 4


def test_shots_of_all_documents_are_read_once_and_others_as_often_as_in_the_sample() -> None:
    shots = list(range(100, 150))
    alike = [([*shots, question], [1, 2]) for question in range(10)]
    assert packed_tokens(alike, 1000, 1) == 50 + 10 * 2
    assert packed_tokens(alike, 1000, 7) == 50 + 7 * 10 * 2
    pair = [*alike[:2], *(([first] * 40 + [0], [1]) for first in range(200, 208))]
    assert packed_tokens(pair, 1000, 1) == 50 + 2 * 2 + 8 * 41
    assert packed_tokens(pair, 1000, 7) == 7 * packed_tokens(pair, 1000, 1)


def test_a_model_left_to_stock_reads_every_request_whole(checkpoint: Checkpoint, tmp_path: Path) -> None:
    mamba = load_checkpoint(CheckpointOptions(name=str(make_checkpoint(tmp_path / "mamba", "mamba"))))
    stock, packed = estimate(mamba, "tiny_arc", limit=4), estimate(checkpoint, "tiny_arc", limit=4)
    assert stock.documents == packed.documents == 4
    assert stock.tokens > packed.tokens  # each of a document's answers after its context again


def test_the_checkpoint_is_left_as_it_was(llama: Path) -> None:
    """lm-eval gives a tokenizer without a padding token one, before the run's own prompts are made."""
    checkpoint = load_checkpoint(CheckpointOptions(name=str(llama)))
    before = checkpoint.tokenizer.pad_token, len(checkpoint.tokenizer)
    assert before[0] is None
    estimate(checkpoint, "tiny_truthfulqa", limit=2)
    assert (checkpoint.tokenizer.pad_token, len(checkpoint.tokenizer)) == before


def test_data_without_the_columns_of_the_task_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = write_mirror(tmp_path / "wrong", {"multiple_choice": {"validation": [{"a": 1}]}})
    with pytest.raises(UserError, match="columns or splits do not match"):
        estimate(checkpoint, "truthfulqa_mc2", folder)
