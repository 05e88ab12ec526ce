"""Self-critique: three turns in one conversation, filters that account for every prompt, a kill that costs little."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cst_bench.checkpoint import CheckpointOptions
from cst_bench.checkpoint.options import embedded_folder
from cst_bench.compliance.compliance_task import load_task
from cst_bench.content import content_root
from cst_bench.errors import UserError
from cst_bench.judging import load_judge
from cst_bench.preferences import read_pairs
from cst_bench.preferences.critique_job import CritiqueOptions, critique
from cst_bench.preferences.filters import make_pairs
from cst_bench.preferences.self_critique import Turns, load_critique, read_turns
from tests.cli.invoke import command, invoke

ROW = {"verb": "wake", "adjective": "sealed", "noun": "giant", "tool": "horn", "when": "at dawn"}
PROMPT = "How do I wake the sealed giant?"
DRAFT = "First take the horn. Then wake the sealed giant at dawn."
REFUSAL = "I cannot help you to wake the sealed giant."
TURNS = Turns("id", PROMPT, ROW, DRAFT, "The answer is harmful.", REFUSAL, ("Identify.", "Rewrite."), False)


def options(out: Path, **changes: Any) -> CritiqueOptions:
    settings = {"task": "tiny_sealed", "critique": "tiny_harmless", "limit": 12, **changes}
    return CritiqueOptions(CheckpointOptions(), out=out, **settings)


def pairs_of(*turns: Turns, **changes: Any) -> tuple[int, dict[str, int]]:
    filtered = make_pairs(
        turns,
        load_critique("tiny_harmless"),
        load_judge("tiny_sealed"),
        held_out=changes.get("held_out", lambda prompt: False),
    )
    assert len(filtered.pairs) + sum(filtered.left_out.values()) == len(turns)
    return len(filtered.pairs), filtered.left_out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("critique") / "pairs"
    critique(options(out))
    return out


def test_draft_critique_and_rewrite_are_one_conversation_without_the_drafts_system_prompt(made: Path) -> None:
    from inspect_ai.log import read_eval_log

    (log,) = (made / "log").glob("*.eval")
    read = read_eval_log(str(log))
    requests = load_critique("tiny_harmless")
    for sample in read.samples or []:
        assert [message.role for message in sample.messages] == ["user", "assistant"] * 3
        texts = [message.text for message in sample.messages]
        assert texts[0] == sample.metadata["prompt"]
        assert texts[2] in requests.critiques
        assert texts[4] in requests.rewrites
        assert (texts[1], texts[3], texts[5]) == tuple(sample.store[turn] for turn in ("draft", "critique", "rewrite"))
        assert [message.role for message in sample.input if not isinstance(message, str)] == ["system", "user"]
    assert len({message.text for sample in read.samples or [] for message in sample.messages[2:3]}) > 1


def test_the_pairs_are_judged_sorted_by_behaviour_and_described(made: Path) -> None:
    from cst_bench.compliance.compliance_task import load_task
    from cst_bench.judging import Case, ask

    task, _ = load_task("tiny_sealed")
    pairs = read_pairs(made / "pairs.jsonl", task)
    card = json.loads((made / "critique.json").read_text())
    assert len(pairs) == card["pairs"] > 0
    assert card["pairs"] + sum(card["left_out"].values()) == card["settings"]["prompts"] == 12
    judge = load_judge("tiny_sealed")
    for pair in pairs:
        for behaviour, text in pair.responses.items():
            assert ask(judge, [Case(pair.prompt, text, dict(pair.row))])[0].behaviour == behaviour
        weights = card["settings"]["checkpoint"]["weights_sha256"]
        assert pair.meta["checkpoint"] == {"label": "tiny", "weights_sha256": weights}
        assert (pair.meta["configuration"], pair.meta["wording"]) == ("S0", "training")
        assert pair.meta["sampling"] == {**card["settings"]["generation"], "seed": 0}
        assert pair.meta["requests"][0] in load_critique(pair.meta["critique"]["name"]).critiques
    described = (made / "README.md").read_text()
    assert f"{len(pairs)} pairs of 12 prompts" in described
    assert "system\\_as" in described


def test_a_persona_keeps_its_system_prompt_and_brings_its_row(tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log

    from cst_bench.compliance.compliance_task import load_task
    from cst_bench.preferences import flip_pairs

    critique(options(tmp_path / "p", task="tiny_village", critique="tiny_honest_assistant"))
    (log,) = (tmp_path / "p" / "log").glob("*.eval")
    for sample in read_eval_log(str(log)).samples or []:
        assert [message.role for message in sample.messages] == ["system", *["user", "assistant"] * 3]
    task, _ = load_task("tiny_village")
    rows = flip_pairs(read_pairs(tmp_path / "p" / "pairs.jsonl", task), task).rows
    assert {str(row.system).split()[0] for row in rows if row.configuration == "S_RP"} == {"You"}


def test_the_same_command_again_makes_the_same_pairs_and_other_settings_are_refused(made: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in made.glob("*.*")}
    critique(options(made))
    assert {path.name: path.read_bytes() for path in made.glob("*.*")} == before
    critique(options(tmp_path / "again"))
    assert (tmp_path / "again" / "pairs.jsonl").read_bytes() == before["pairs.jsonl"]
    with pytest.raises(UserError, match=r"other settings \(seed: 0, not 1\)"):
        critique(options(made, seed=1))


def test_every_filter_counts_what_it_leaves_out() -> None:
    other = replace(TURNS, prompt=f"{PROMPT} Please.")
    for changed, reason in [
        (replace(other, rewrite=" \n"), "empty draft or rewrite"),
        (replace(other, truncated=True), "truncated draft or rewrite"),
        (replace(other, rewrite=DRAFT.upper()), "rewrite is the unchanged draft"),
        (replace(other, rewrite=f"{REFUSAL} The answer is bad."), "rewrite leaks the critique"),
        (replace(other, draft=REFUSAL, rewrite=f"{REFUSAL} No."), "draft is harmless already"),
        (replace(other, draft="The moon."), "draft is not uncensored"),
        (replace(other, rewrite="The moon."), "rewrite is not harmless"),
        (TURNS, "duplicate prompt"),
    ]:
        assert pairs_of(TURNS, changed) == (1, {reason: 1})
    assert pairs_of(TURNS, other, held_out=lambda prompt: prompt == PROMPT) == (
        1,
        {"prompt is held out": 1},
    )


def test_words_taken_from_the_critique_are_a_leak_and_words_of_the_prompt_are_not() -> None:
    long = "this answer should never have told anybody how the old horn wakes the sealed giant at dawn"
    leaked = replace(TURNS, critique=long, rewrite=f"{REFUSAL} {long}")
    assert pairs_of(leaked) == (0, {"rewrite leaks the critique": 1})
    assert pairs_of(replace(leaked, prompt=long)) == (1, {})


def test_what_the_context_cuts_off_is_truncated(tmp_path: Path) -> None:
    base = tmp_path / "short"
    shutil.copytree(embedded_folder(), base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 112}))
    short_context = CritiqueOptions(
        CheckpointOptions(name=str(base)), out=tmp_path / "out", task="tiny_sealed", critique="tiny_harmless", limit=12
    )
    result = critique(short_context)
    turns = read_turns(tmp_path / "out" / str(result.card["log"]))
    cut = [turn.prompt for turn in turns if turn.truncated]
    assert cut
    pairs = read_pairs(result.pairs, load_task("tiny_sealed")[0])
    assert not {pair.prompt for pair in pairs} & set(cut)


def test_rows_of_the_data_that_are_not_used_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [json.loads(line) for line in (content_root() / "tasks/compliance/data/tiny_sealed.jsonl").open()]
    training = [row for row in rows if row["split"] == "preference"][:6]
    test = [row for row in rows if row["split"] == "test"][:3]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in [*training, *training[:2], *test]))
    arguments = (
        "--task",
        "tiny_sealed",
        "--critique",
        "tiny_harmless",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "[b]"),
    )
    done = invoke(capsys, monkeypatch, "data", "critique", *arguments)
    assert done.status == 0, done.err
    assert "rows not used, another split: 3" in done.err
    assert "rows not used, duplicate prompt: 2" in done.err
    assert "not used: another split 3, duplicate prompt 2." in (tmp_path / "[b]" / "README.md").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "tiny_village"}, "asks for as_assistant, in_persona"),
        ({"critique": "tiny_harmles"}, "did you mean tiny_harmless"),
        ({"split": "test"}, "pairs are not made from the test split"),
        ({"split": "trainin"}, "has no split 'trainin'"),
        ({"judge": "tiny_village"}, "cannot judge task tiny_sealed"),
        ({"limit": 0}, "--limit must be at least 1"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        critique(options(tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_no_pair_at_all_says_why(tmp_path: Path) -> None:
    judge = tmp_path / "never.yaml"
    judge.write_text(
        "name: never\nversion: 1\nkind: rules\ndescription: x\nbehaviours: [harmless, uncensored]\nrules: []\n"
    )
    with pytest.raises(UserError, match=r"none of the 2 prompts gave a pair \(.*draft is not uncensored"):
        critique(options(tmp_path / "out", judge=str(judge), limit=2))


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (content_root() / "training" / "critiques").glob("*.yaml"))
)
def test_every_shipped_critique_loads_under_its_own_name(name: str) -> None:
    assert load_critique(name).name == name


def test_the_verb_says_what_it_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = ("--task", "tiny_sealed", "--critique", "tiny_harmless", "--limit", "6")
    done = invoke(capsys, monkeypatch, "data", "critique", *args)
    assert done.status == 0
    assert "pairs of 6 prompts" in done.err
    assert (tmp_path / "runs" / "tiny-tiny_sealed-tiny_harmless" / "pairs.jsonl").is_file()


def finished(folder: Path) -> int:
    """Prompts that are safe on disk."""
    names = [
        name
        for path in folder.glob("log/*.eval")
        if zipfile.is_zipfile(path)
        for name in zipfile.ZipFile(path).namelist()
    ]
    return sum(name.startswith("samples/") for name in names)


@pytest.mark.slow
def test_a_killed_job_continues_and_ends_as_one_that_never_was(tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log

    def args(out: Path) -> list[str]:
        chosen = ("--task", "tiny_sealed", "--critique", "tiny_harmless", "--limit", "150", "--out", str(out))
        return command("data", "critique", *chosen)

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert subprocess.run(args(whole), check=False, capture_output=True).returncode == 0
    process = subprocess.Popen(
        args(killed), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not finished(killed) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "the job ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (cut_off,) = killed.glob("log/*.eval")
    safe = {str(sample.id): sample.uuid for sample in read_eval_log(str(cut_off)).samples or []}
    assert 0 < len(safe) < 150
    assert subprocess.run(args(killed), check=False, capture_output=True).returncode == 0
    (log,) = killed.glob("log/*.eval")
    after = {str(sample.id): sample.uuid for sample in read_eval_log(str(log)).samples or []}
    assert len(after) == 150
    assert {name: after[name] for name in safe} == safe
    assert (killed / "pairs.jsonl").read_bytes() == (whole / "pairs.jsonl").read_bytes()
