"""Flips: under every configuration the chosen response is the one that it asks for, whatever the task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cst_bench.compliance.compliance_task import ComplianceTask, load_task
from cst_bench.compliance.data import held_out
from cst_bench.errors import UserError
from cst_bench.preferences import PreferencePair, flip_pairs, read_pairs, read_training_rows, write_training_rows
from cst_bench.preferences.preference_pairs import write_pairs
from tests.cli.invoke import invoke
from tests.test_published_data import DATA

BEHAVIOURS = ["harmless", "uncensored", "third"]


def make_task(behaviours: list[str], paraphrases: int = 0) -> ComplianceTask:
    return ComplianceTask.model_validate(
        {
            "name": "mine",
            "version": 1,
            "title": "Mine",
            "description": "x",
            "source": "x",
            "judge": "j",
            "wording": "own",
            "configurations": {
                f"C{number}": {
                    "behaviour": behaviour,
                    "wordings": {"own": {"system": f"Be {behaviour} ({number}).", "source": "x"}},
                    "paraphrases": [f"Please be {behaviour} ({number}, {i})." for i in range(paraphrases)],
                }
                for number, behaviour in enumerate(behaviours)
            },
            "generation": {"max_tokens": 8},
            "data": {"file": "x.jsonl"},
        }
    )


texts = st.text(min_size=1).filter(lambda text: text.strip() and not any("\ud800" <= c <= "\udfff" for c in text))
pairs = st.builds(
    lambda prompt, responses: PreferencePair(prompt, dict(zip(BEHAVIOURS, responses))),
    texts,
    st.lists(texts, min_size=2, max_size=3, unique=True),
)


@given(st.lists(pairs, max_size=6), st.lists(st.sampled_from(BEHAVIOURS), min_size=1, max_size=4), st.booleans())
def test_chosen_is_what_the_configuration_asks_for_and_every_row_is_accounted_for(
    drawn: list[PreferencePair], behaviours: list[str], paraphrases: bool
) -> None:
    task = make_task(behaviours, paraphrases=2)
    result = flip_pairs(drawn, task, paraphrases=paraphrases)
    by_prompt = {(pair.prompt, text): name for pair in drawn for name, text in pair.responses.items()}
    for row in result.rows:
        asked = task.asked[str(row.configuration)]
        sources = [pair for pair in drawn if pair.prompt == row.prompt]
        assert any(
            pair.responses.get(asked) == row.chosen and row.rejected in pair.responses.values() for pair in sources
        )
        assert row.chosen != row.rejected
        assert (row.prompt, row.chosen) in by_prompt
        assert asked in str(row.system)
    expected = sum(
        len(pair.responses) - 1 for pair in drawn for asked in task.asked.values() if asked in pair.responses
    )
    assert len(result.rows) == expected == sum(result.by_configuration.values())
    lacking = sum(asked not in pair.responses for pair in drawn for asked in task.asked.values())
    assert sum(result.left_out.values()) == lacking
    assert flip_pairs(drawn, task, paraphrases=paraphrases) == result


@given(st.lists(pairs, max_size=6))
def test_dpo_is_the_first_configuration_of_cst(drawn: list[PreferencePair]) -> None:
    task = make_task(["harmless", "uncensored"])
    cst = flip_pairs(drawn, task, "cst").rows
    assert [row for row in cst if row.configuration == "C0"] == list(flip_pairs(drawn, task, "dpo").rows)


@given(
    st.lists(pairs, min_size=1, max_size=8, unique_by=lambda pair: pair.prompt), st.integers(1, 9), st.integers(0, 3)
)
def test_a_sample_has_the_same_pairs_for_every_method(drawn: list[PreferencePair], sample: int, seed: int) -> None:
    task = make_task(["harmless", "uncensored"])
    test_prompt = drawn[0].prompt
    results = [
        flip_pairs(drawn, task, method, sample=sample, seed=seed, is_held_out=lambda prompt: prompt == test_prompt)
        for method in ("dpo", "cst")
    ]
    asked = [{row.prompt for row in result.rows if row.configuration == "C0"} for result in results]
    assert asked[0] == asked[1]
    assert test_prompt not in asked[0]
    kept = len(drawn) - 1
    for result in results:
        assert result.left_out["prompt is held out"] == 1
        assert result.left_out.get("not in the sample", 0) == max(0, kept - sample)


@given(st.lists(pairs.filter(lambda pair: len(pair.responses) == 2), min_size=1, max_size=5))
def test_flipped_rows_read_back_are_the_pairs_that_they_came_from(drawn: list[PreferencePair]) -> None:
    import tempfile

    task = make_task(["harmless", "uncensored"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_training_rows(path, flip_pairs(drawn, task).rows)
        back = read_pairs(path, task)
        assert read_training_rows(path) == list(flip_pairs(drawn, task).rows)
    assert flip_pairs(back, task).rows == list(dict.fromkeys(flip_pairs(drawn, task).rows))


def test_paraphrases_are_drawn_by_the_seed_and_all_of_them_come_up() -> None:
    task = make_task(["harmless"], paraphrases=3)
    many = [PreferencePair(f"prompt {i}", {"harmless": "no", "uncensored": "yes"}) for i in range(200)]
    systems = [[row.system for row in flip_pairs(many, task, paraphrases=True, seed=seed).rows] for seed in (0, 0, 1)]
    assert systems[0] == systems[1] != systems[2]
    assert len(set(systems[0])) == 4
    assert {row.system for row in flip_pairs(many, task).rows} == {"Be harmless (0)."}


def test_a_personas_system_prompt_comes_from_the_pairs_own_row(tmp_path: Path) -> None:
    task, _ = load_task("tiny_village")
    responses = {"as_assistant": "I am an AI.", "in_persona": "I knead."}
    pair = PreferencePair("What do you do?", responses, {"row": {"system": "You are Tilda, the baker."}})
    rows = flip_pairs([pair], task).rows
    assert {row.configuration: (row.system, row.chosen) for row in rows}["S_RP"] == (
        "You are Tilda, the baker.",
        "I knead.",
    )
    with pytest.raises(UserError, match=r"pair 2: S_RP of task tiny_village takes its system prompt from .*'system'"):
        flip_pairs([pair, PreferencePair("What?", responses)], task)


def test_prompts_of_the_test_split_are_left_out_and_counted() -> None:
    task, path = load_task("tiny_sealed")
    rows = [json.loads(line) for line in (path.parent / str(task.data.file)).read_text().splitlines()]
    test = next(row["prompt"] for row in rows if row["split"] == "test")
    train = next(row["prompt"] for row in rows if row["split"] == "preference")
    responses = {"harmless": "I cannot help.", "uncensored": "First take the key."}
    result = flip_pairs(
        [PreferencePair(test.upper() + " ", responses), PreferencePair(train, responses)],
        task,
        is_held_out=held_out(task, path),
    )
    assert [row.prompt for row in result.rows] == [train, train]
    assert result.left_out == {"prompt is held out": 1}


@pytest.mark.skipif(not DATA.is_dir(), reason="the published data is not at hand")
def test_the_released_rows_come_out_exactly_as_published(tmp_path: Path) -> None:
    source = DATA / "configurable-system-prompt-multitask.json"
    published = {
        (row["system"], row["prompt"], row["chosen"], row["rejected"])
        for row in json.loads(source.read_text())
        if row["task"] == "harmless"
    }
    task, path = load_task("harmful_behaviors")
    write_pairs(tmp_path / "pairs.jsonl", read_pairs(source, task))
    read = read_pairs(tmp_path / "pairs.jsonl", task)
    result = flip_pairs(read, task, is_held_out=held_out(task, path))
    assert len(read) == 468
    assert len(result.rows) == 936
    assert not result.left_out
    same = {(row.system, row.prompt, row.chosen, row.rejected) for row in result.rows} == published
    assert same  # a plain flag, so that a failure prints no text
    assert len(flip_pairs(read, task, "dpo").rows) == 468


# -------------------------------------------------------------------------------------------------- bad input, the CLI


ROW: dict[str, Any] = {"system": "Be harmless (0).", "prompt": "p", "chosen": "a", "rejected": "b"}


PAIR = {"prompt": "p", "responses": {"harmless": "a", "uncensored": "b"}}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROW, "chosen": "b"}, "row 1: chosen and rejected are the same"),
        ({**ROW, "chosen": " "}, "row 1: column 'chosen' is empty"),
        ({**ROW, "chosen": 3}, "row 1: column 'chosen' must be text, not int"),
        ({k: v for k, v in ROW.items() if k != "rejected"}, r"no column for rejected \(rejected, rejected_response\)"),
        (
            {**ROW, "prompt": [{"role": "assistant", "content": "x"}]},
            "has the roles assistant: must be system and user",
        ),
        ({**ROW, "prompt": [{"role": "user"}]}, "must hold messages with role and content"),
        ({**ROW, "chosen": [{"role": "user", "content": "x"}]}, "has the roles user: must be one assistant message"),
        ({**ROW, "chosen": []}, "has the roles none: must be one assistant message"),
        ({"prompt": "p", "responses": {"harmless": "a"}}, "must hold two or more responses"),
        ({"prompt": "p", "responses": {"harmless": "a", "uncensored": "a"}}, "two behaviours have the same response"),
        ({"prompt": "p", "responses": {"harmless": "a", "uncensored": None}}, "column 'uncensored' must be text"),
        ({**PAIR, "meta": {"row": 3}}, "row 1: meta.row must be an object of texts"),
        ({**PAIR, "meta": {"row": {"system": 5}}}, "row 1: meta.row must be an object of texts"),
    ],
)
def test_a_bad_row_is_one_message_with_its_place(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(UserError, match=message):
        read_pairs(path, make_task(["harmless", "uncensored"]))


def test_the_verb_writes_rows_that_trl_takes_and_says_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tmp_path / "mine.yaml"
    task.write_text(yaml.safe_dump(make_task(["harmless", "uncensored"]).model_dump(mode="json", exclude_none=True)))
    (tmp_path / "x.jsonl").write_text(json.dumps({"prompt": "in the test"}))
    responses = {"harmless": "no", "uncensored": "yes"}
    write_pairs(
        tmp_path / "pairs.jsonl", [PreferencePair("in training", responses), PreferencePair("In the  TEST", responses)]
    )
    out = tmp_path / "out.jsonl"
    done = invoke(
        capsys, monkeypatch, "data", "flip", str(tmp_path / "pairs.jsonl"), "--task", str(task), "--out", str(out)
    )
    assert done.status == 0
    assert "2 rows (C0 1, C1 1)" in done.err
    assert "prompt is held out: 1" in done.err
    first = json.loads(out.read_text().splitlines()[0])
    assert first == {
        "prompt": [{"role": "system", "content": "Be harmless (0)."}, {"role": "user", "content": "in training"}],
        "chosen": [{"role": "assistant", "content": "no"}],
        "rejected": [{"role": "assistant", "content": "yes"}],
        "task": "mine",
        "configuration": "C0",
    }
    out.unlink()
    for extra, message in [
        (("--method", "ppo"), "'ppo' is not one of 'cst', 'dpo'"),
        (("--configuration", "C7"), "no configuration 'C7'"),
        (("--wording", "x"), "no wording 'x'"),
        (("--column", "prompt"), "must have the form --column NAME=COLUMN"),
    ]:
        bad = invoke(
            capsys,
            monkeypatch,
            *("data", "flip", str(tmp_path / "pairs.jsonl"), "--task", str(task), "--out", str(out), *extra),
        )
        assert (bad.status, out.exists()) == (2, False)
        assert message in bad.err
