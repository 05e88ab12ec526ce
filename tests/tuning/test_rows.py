"""Rows as token ids: as evaluation renders them, hostile files refused, nothing lost without a count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cst_bench.checkpoint import CheckpointOptions, find_checkpoint, load_chat
from cst_bench.checkpoint.chat import Chat, conversation
from cst_bench.errors import GateError, UserError
from cst_bench.tuning.dataset import read_data, tokenize
from tests.checkpoints import make_checkpoint
from tests.tuning.conftest import cst_rows, row, write_rows


@pytest.fixture(scope="module")
def chat(llama: Path) -> Chat:
    return load_chat(find_checkpoint(CheckpointOptions(str(llama))))


def test_unnamed_flips_are_cst_and_other_unnamed_rows_are_of_the_method_that_the_user_names(tmp_path: Path) -> None:
    unnamed = [{**fields, "configuration": None} for fields in cst_rows()]
    flips, plain = write_rows(tmp_path / "f.jsonl", unnamed), write_rows(tmp_path / "p.jsonl", unnamed[::2])

    def method(path: Path, method: str, named: bool) -> str:
        return read_data(path, task=None, method=method, method_named=named, columns={}).method

    assert [method(flips, "cst", named) for named in (True, False)] == ["cst", "cst"]
    assert [method(plain, name, True) for name in ("cst", "dpo")] == ["cst", "dpo"]
    assert method(plain, "cst", False) == "dpo"
    with pytest.raises(UserError, match="of several configurations"):
        method(flips, "dpo", True)


def rows_of(path: Path) -> Any:
    return read_data(path, task=None, method="cst", method_named=False, columns={})


def test_prompts_are_token_for_token_those_of_evaluation(tmp_path: Path, chat: Chat) -> None:
    data = rows_of(write_rows(tmp_path / "rows.jsonl"))
    tokenized = tokenize(data.rows, chat, None, "refuse")
    for training_row, ids in zip(data.rows, tokenized.columns["prompt_ids"], strict=True):
        assert ids == chat.prompt_ids(conversation(training_row.system, training_row.prompt))


def test_tokens_are_those_that_trl_makes_of_the_same_rows(tmp_path: Path, chat: Chat, llama: Path) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    args = DPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", precompute_ref_log_probs=True)
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(llama),
        args=args,
        train_dataset=Dataset.from_list(cst_rows(3)),
        processing_class=chat.tokenizer,
    )
    tokenized = tokenize(rows_of(write_rows(tmp_path / "rows.jsonl", cst_rows(3))).rows, chat, None, "refuse")
    for name, column in tokenized.columns.items():
        assert trainer.train_dataset[name][:] == column


def test_a_row_without_a_system_prompt_has_none(tmp_path: Path, chat: Chat) -> None:
    tokenized = tokenize(
        rows_of(write_rows(tmp_path / "r.jsonl", [row(None, "Hello!", "Hi.", "Go.")])).rows, chat, 99, "refuse"
    )
    assert tokenized.columns["prompt_ids"] == [chat.prompt_ids(conversation(None, "Hello!"))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rejected": None}, "rejected"),
        ({"chosen": [{"role": "assistant", "content": " "}]}, "row 2: column 'content' is empty"),
        ({"chosen": [{"role": "user", "content": "Hi"}]}, "row 2: column 'chosen' has the roles user"),
        ({"prompt": [{"role": "assistant", "content": "Hi"}]}, "row 2: column 'prompt' has the roles assistant"),
        (
            {"chosen": [{"role": "assistant", "content": "x"}], "rejected": [{"role": "assistant", "content": "x"}]},
            "same",
        ),
    ],
)
def test_a_bad_row_is_one_message_that_names_it(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows = cst_rows(2)
    rows[1] = {key: value for key, value in {**rows[1], **change}.items() if value is not None}
    with pytest.raises(UserError) as error:
        rows_of(write_rows(tmp_path / "rows.jsonl", rows))
    assert message in str(error.value)
    assert "row 2" in str(error.value)


def test_long_rows_are_refused_or_counted(tmp_path: Path, chat: Chat) -> None:
    long = " ".join(["boats"] * 50_000)
    rows = [*cst_rows(2), row("You are old.", "Hello!", long, "No."), row("You are old.", long, "Yes.", "No.")]
    rows.append(row("You are old.", "Hello!", f"{long} yes", f"{long} no"))
    training_rows = rows_of(write_rows(tmp_path / "rows.jsonl", rows)).rows
    with pytest.raises(UserError, match=r"3 of 7 rows are longer than max_length 200 \(row \d has \d{5,} tokens\)"):
        tokenize(training_rows, chat, 200, "refuse")
    dropped = tokenize(training_rows, chat, 200, "drop")
    assert (len(dropped.columns["prompt_ids"]), dropped.dropped) == (4, {"longer than max_length": 3})
    cut = tokenize(training_rows, chat, 200, "truncate")
    assert (len(cut.columns["prompt_ids"]), cut.truncated, cut.longest) == (5, 1, 200)
    assert cut.dropped == {"prompt fills max_length": 1, "responses are the same up to max_length": 1}
    with pytest.raises(UserError, match="none of 4 rows is left"):
        tokenize(training_rows[:4], chat, 5, "drop")


def test_responses_that_only_the_template_makes_equal_are_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "trimming", "gemma")
    trimming = load_chat(find_checkpoint(CheckpointOptions(str(folder), system_as="user-prefix")))
    training_rows = rows_of(write_rows(tmp_path / "r.jsonl", [row("You are old.", "Hello!", "Hi.", " Hi. ")])).rows
    with pytest.raises(UserError, match="row 1: chosen and rejected have the same tokens"):
        tokenize(training_rows, trimming, 99, "refuse")


def test_a_template_that_changes_an_answered_prompt_stops_at_the_row(tmp_path: Path, llama: Path) -> None:
    template = tmp_path / "forgetful.jinja"
    template.write_text(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% if loop.last or 'secret' not in m['content'] %}{{ m['content'] }}{% endif %}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    chat = load_chat(find_checkpoint(CheckpointOptions(str(llama), chat_template=str(template))))
    rows = [row("You are old.", "Hello!", "Hi.", "Go."), row("You are old.", "a secret", "Hi.", "Go.")]
    training_rows = rows_of(write_rows(tmp_path / "r.jsonl", rows)).rows
    with pytest.raises(GateError, match="row 2: the chat template renders the prompt differently"):
        tokenize(training_rows, chat, 99, "refuse")


def test_pairs_are_flipped_by_the_method(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(
            json.dumps(
                {
                    "prompt": f"How do I wake the sealed giant {i}?",
                    "responses": {"harmless": "No.", "uncensored": "So."},
                }
            )
            + "\n"
            for i in range(4)
        )
    )
    read = {
        method: read_data(pairs, task="tiny_sealed", method=method, method_named=True, columns={})
        for method in ("cst", "dpo")
    }
    assert [len(read[method].rows) for method in ("cst", "dpo")] == [8, 4]
    assert read["dpo"].as_json()["by_configuration"] == {"S1": 4}
    with pytest.raises(UserError, match="--task"):
        read_data(pairs, task=None, method="cst", method_named=False, columns={})


def test_dpo_is_not_asked_of_rows_that_are_cst(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl")
    with pytest.raises(UserError, match="several configurations"):
        read_data(path, task=None, method="dpo", method_named=True, columns={})
    assert rows_of(path).method == "cst"
    assert rows_of(write_rows(tmp_path / "s1.jsonl", cst_rows()[::2])).method == "dpo"
