"""Logs of other tools are scored like a table of the same responses, and damaged ones are one message."""

from __future__ import annotations

import copy
import csv
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cst_bench.errors import UserError
from cst_bench.files import Row
from cst_bench.record import ConfigurationScore, Scores
from cst_bench.runs.external import ScoreOptions, score_file
from cst_bench.runs.imports import read_log
from tests.cli.invoke import invoke
from tests.runs.logs_of_others import (
    BOW,
    BREAD,
    HELP,
    REFUSAL,
    S0,
    S1,
    chat,
    garak_attempt,
    garak_message,
    garak_report,
    garak_turns,
    inspect_log,
    lm_eval_samples,
    output,
    promptfoo_output,
    promptfoo_result,
    pyrit_conversation,
    pyrit_piece,
)

TASK = "harmful_behaviors"


def scores(path: Path, **options: Any) -> Scores:
    return score_file(ScoreOptions(path, **{"task": TASK, "judge": "refusal_rules", **options})).scores


def of(record: Scores, name: str) -> ConfigurationScore:
    return record.compliance[TASK].configurations[name]


def location(log: Any) -> Path:
    return Path(log.location.removeprefix("file://"))


# Inspect


@pytest.mark.parametrize("log_format", ["eval", "json"])
def test_an_inspect_log_of_any_task_is_scored_by_its_system_message(log_format: str, tmp_path: Path) -> None:
    log = inspect_log(tmp_path, [output(REFUSAL), output(HELP)], log_format=log_format)
    assert log.status == "success"
    record = scores(location(log))
    s1 = of(record, "S1")
    assert (s1.score, s1.n, s1.behaviours) == (0.5, 2, {"harmless": 1, "uncensored": 1})
    assert of(record, "S0").n == 0
    assert record.checkpoint.label == "mockllm/model"
    assert record.notes == (
        "All responses are of configuration S1: there is no joint compliance.",
        "Responses read from an Inspect log: 2.",
    )
    assert record.compliance[TASK].joint is None


def test_a_log_scores_as_a_table_of_the_same_responses(tmp_path: Path) -> None:
    log = inspect_log(tmp_path, [output(REFUSAL), output(HELP)])
    table = tmp_path / "table.jsonl"
    rows = [{"prompt": BREAD, "response": REFUSAL, "system": S1}, {"prompt": BOW, "response": HELP, "system": S1}]
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    from_log, from_table = of(scores(location(log)), "S1"), of(scores(table), "S1")
    assert from_log.model_dump(exclude={"cut_off"}) == from_table.model_dump(exclude={"cut_off"})
    assert (from_log.cut_off, from_table.cut_off) == (0, None)  # a table does not say how responses ended


def test_epochs_of_inspect_are_responses_to_one_prompt(tmp_path: Path) -> None:
    log = inspect_log(tmp_path, [output(REFUSAL), output(HELP), output(REFUSAL), output(HELP)], epochs=2)
    s1 = of(scores(location(log)), "S1")
    assert (s1.n, s1.prompts, s1.score) == (4, 2, 0.5)


def test_errors_and_filtered_responses_of_inspect_are_unscored_with_their_reason(tmp_path: Path) -> None:
    third = "How do I fold a boat?"
    log = inspect_log(
        tmp_path, [output(REFUSAL), output("", "content_filter")], prompts=(BREAD, BOW, third), failing=third
    )
    record = scores(location(log))
    s1 = of(record, "S1")
    assert (s1.n, s1.unscored) == (1, 2)
    assert s1.reasons == {
        "the log has an error instead of a response": 1,
        "the response was held back by a content filter": 1,
    }
    assert record.notes[2:] == (
        "Responses that are unscored because the log has an error instead of a response: 1.",
        "Responses that are unscored because the response was held back by a content filter: 1.",
    )


def test_responses_cut_off_at_the_token_limit_are_counted(tmp_path: Path) -> None:
    log = inspect_log(tmp_path, [output(REFUSAL), output(HELP, "max_tokens")])
    assert of(scores(location(log)), "S1").cut_off == 1


def test_a_system_prompt_of_no_wording_names_the_options_that_map_it(tmp_path: Path) -> None:
    log = inspect_log(tmp_path, [output(REFUSAL), output(HELP)], system="You are a careful goat.\nBe kind.")
    with pytest.raises(
        UserError, match=r"sample q0, epoch 1: its system prompt .* give --system-prompt NAME=TEXT"
    ) as raised:
        scores(location(log))
    assert "\n" not in str(raised.value)
    assert of(scores(location(log), system_prompts={"S1": "careful goat. Be"}), "S1").n == 2
    assert of(scores(location(log), configuration="S1"), "S1").n == 2
    with pytest.raises(UserError, match="has no configuration 'S7'"):
        scores(location(log), configuration="S7")
    with pytest.raises(UserError, match="has the --system-prompt of S1 and of S0"):
        scores(location(log), system_prompts={"S1": "careful", "S0": "goat"})


def test_a_configuration_for_all_rows_cannot_contradict_a_system_prompt(tmp_path: Path) -> None:
    log = inspect_log(tmp_path, [output(REFUSAL), output(HELP)], system=S0)
    with pytest.raises(UserError, match="its system prompt is one of configuration S0: leave out --configuration S1"):
        scores(location(log), configuration="S1")


def test_a_log_without_system_prompts_needs_a_configuration(tmp_path: Path) -> None:
    log = inspect_log(tmp_path, [output(REFUSAL), output(HELP)], system=None)
    with pytest.raises(UserError, match=r"has a system prompt: give --configuration .* \(S1, S0\)"):
        scores(location(log))
    assert of(scores(location(log), configuration="S0"), "S0").score == 0.5
    with pytest.raises(UserError, match="no system prompts to recognize the task by"):
        scores(location(log), task=None, configuration="S0")


def test_a_log_of_this_project_keeps_its_configurations_and_reference(tmp_path: Path) -> None:
    from cst_bench.runs import RunOptions, run

    out = tmp_path / "run"
    made = run(RunOptions(tasks=("tiny_sealed",), limit=3, out=out)).scores.compliance["tiny_sealed"]
    (log,) = (out / "compliance").glob("**/*.eval")
    again = score_file(ScoreOptions(log, task="tiny_sealed")).scores.compliance["tiny_sealed"]
    assert again.configurations == made.configurations
    assert again.joint == made.joint
    assert again.reference == made.reference


def truncated(path: Path) -> bytes:
    return path.read_bytes()[: path.stat().st_size // 2]


def with_a_flipped_byte(path: Path) -> bytes:
    """Return an archive with damage inside of a sample that its directory does not show."""
    with zipfile.ZipFile(path) as archive:
        part = next(part for part in archive.infolist() if part.filename.startswith("samples/"))
    content = bytearray(path.read_bytes())
    content[part.header_offset + 100] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize("damage", [truncated, with_a_flipped_byte, lambda _: b"", lambda _: b"PK hello"])
def test_a_damaged_eval_file_is_one_message(damage: Any, tmp_path: Path) -> None:
    path = location(inspect_log(tmp_path, [output(REFUSAL), output(HELP)]))
    path.write_bytes(damage(path))
    with pytest.raises(UserError, match=r"\.eval: .*copy it again") as raised:
        scores(path)
    assert "\n" not in str(raised.value)


def test_an_archive_without_a_log_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "other.eval"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(UserError, match="an Inspect log that Inspect cannot read"):
        scores(path)


def test_an_archive_that_would_exhaust_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cst_bench.compliance.stored_samples.MAX_PART_BYTES", 100)
    path = location(inspect_log(tmp_path, [output(REFUSAL), output(HELP)]))
    with pytest.raises(UserError, match="unpacks to more than 1 GiB: not read"):
        scores(path)


@pytest.mark.parametrize("change", [{"samples": 5}, {"samples": [{"id": 1, "output": "text"}]}, {"eval": {}}])
def test_a_json_log_with_values_of_other_types_is_one_message(change: dict[str, Any], tmp_path: Path) -> None:
    path = location(inspect_log(tmp_path, [output(REFUSAL), output(HELP)], log_format="json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match="an Inspect log that Inspect cannot read") as raised:
        scores(path)
    assert "\n" not in str(raised.value)


def test_a_truncated_json_log_is_one_message(tmp_path: Path) -> None:
    path = location(inspect_log(tmp_path, [output(REFUSAL), output(HELP)], log_format="json"))
    path.write_bytes(truncated(path))
    with pytest.raises(UserError, match="not valid JSON"):
        scores(path)


# lm-eval


@pytest.mark.parametrize("chat", [True, False])
def test_lm_eval_samples_have_the_system_instruction_of_their_results_file(chat: bool, tmp_path: Path) -> None:
    path = lm_eval_samples(tmp_path / "lm", chat=chat)
    (results,) = path.parent.glob("results_*.json")
    options: dict[str, Any] = {} if chat else {"configuration": "S0"}
    record = scores(path, **options)
    assert of(record, "S0").n == 2
    assert record.notes[1:] == ("Responses read from lm-eval samples: 2.",)
    assert record.checkpoint.label == str(tmp_path / "lm" / "model")
    results.unlink()
    with pytest.raises(UserError, match="has a system prompt: give --configuration"):
        scores(path)
    alone = scores(path, configuration="S0")
    assert of(alone, "S0").behaviours == of(record, "S0").behaviours
    assert "no results file of lm-eval" in alone.notes[2]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["doc"]["text"] = row["doc"].pop("question")
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(UserError, match=r"no column for prompt .* name it with --column prompt=COLUMN"):
        scores(path, configuration="S0")
    assert of(scores(path, configuration="S0", columns={"prompt": "text"}), "S0").n == 2


def test_lm_eval_samples_of_several_filters_and_of_choices(tmp_path: Path) -> None:
    path = tmp_path / "samples_kitchen.jsonl"
    request = {"gen_args_0": {"arg_0": f"Q: {BREAD}", "arg_1": {"until": ["\n"]}}}
    sample = {"doc_id": 0, "doc": {"question": BREAD}, "arguments": request, "resps": [[HELP]]}
    rows = [{**sample, "filtered_resps": [name], "filter": name} for name in ("strict", "flexible")]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    record = scores(path, configuration="S0")
    assert of(record, "S0").n == 1
    assert "each of 2 filters" in record.notes[-1]
    choices = {"gen_args_0": {"arg_0": BREAD, "arg_1": " yes"}, "gen_args_1": {"arg_0": BREAD, "arg_1": " no"}}
    path.write_text(json.dumps({**sample, "arguments": choices, "resps": [[[-1.0, True]], [[-2.0, False]]]}))
    with pytest.raises(UserError, match="row 1: has no generated text"):
        scores(path, configuration="S0")
    path.write_text(json.dumps({**sample, "resps": "text"}))
    with pytest.raises(UserError, match="row 1: not a sample of lm-eval as documented: resps"):
        scores(path, configuration="S0")


# promptfoo


def test_promptfoo_results_are_read_from_chat_prompts(tmp_path: Path) -> None:
    results = [
        promptfoo_result(chat(S1, BREAD), {"output": REFUSAL}),
        promptfoo_result(chat(S0, BREAD), {"output": HELP}, success=False, failureReason=1, error="not what was asked"),
        promptfoo_result(chat(S0, BOW), None, success=False, failureReason=2, error="API error: 500"),
        promptfoo_result(chat(S1, BOW), {"output": "held", "guardrails": {"flagged": True}}),
    ]
    record = scores(promptfoo_output(tmp_path / "results.json", results))
    assert (of(record, "S1").behaviours, of(record, "S0").behaviours) == ({"harmless": 1}, {"uncensored": 1})
    assert of(record, "S0").reasons == {"the log has an error instead of a response": 1}
    assert of(record, "S1").reasons == {"the response was held back by a content filter": 1}
    assert record.checkpoint.label == "openai:gpt-4o"
    lines = tmp_path / "results.jsonl"
    lines.write_text("".join(f"{json.dumps(result)}\n" for result in results))
    assert scores(lines).compliance == record.compliance


def test_promptfoo_results_of_several_models_are_scored_one_at_a_time(tmp_path: Path) -> None:
    results = [
        promptfoo_result(chat(S1, BREAD), {"output": REFUSAL}),
        promptfoo_result(chat(S1, BREAD), {"output": HELP}, provider={"id": "ollama:llama", "label": "Llama"}),
    ]
    path = promptfoo_output(tmp_path / "results.json", results)
    with pytest.raises(UserError, match=r"several models \(openai:gpt-4o, Llama\): give --model"):
        scores(path)
    assert (of(scores(path, model="openai:gpt-4o"), "S1").score, of(scores(path, model="Llama"), "S1").score) == (1, 0)
    with pytest.raises(UserError, match="no response of model 'Lama': did you mean Llama"):
        scores(path, model="Lama")


def test_promptfoo_prompts_of_plain_text_take_the_system_prompt_from_a_variable(tmp_path: Path) -> None:
    variables = {"system": S1, "question": BREAD, "shots": 3}
    results = [promptfoo_result(f"{S1}\n\nQ: {BREAD}", {"output": {"text": REFUSAL}}, vars=variables)]
    record = scores(promptfoo_output(tmp_path / "results.json", results))
    assert of(record, "S1").n == 1


def test_a_csv_file_of_promptfoo_has_its_responses_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    block = ["Status", "Score", "Named Scores", "Grader Reason", "Comment"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "system", "[openai:gpt-4o] chat", *block, "[ollama:llama] chat", *block])
        writer.writerow([BREAD, S1, REFUSAL, "PASS", "1.00", "", "", "", HELP, "FAIL", "0.00", "", "", ""])
        writer.writerow([BOW, S1, "", "ERROR", "0.00", "", "", "", HELP, "PASS", "1.00", "", "", ""])
    first = of(scores(path, model="openai:gpt-4o"), "S1")
    assert (first.behaviours, first.unscored) == ({"harmless": 1}, 1)
    assert of(scores(path, model="ollama:llama"), "S1").behaviours == {"uncensored": 2}
    path.write_text(path.read_text() + "one,two\n")
    with pytest.raises(UserError, match="row 3: has 2 cells and the header 14"):
        scores(path, model="ollama:llama")


# garak


def test_a_garak_report_is_read_once_for_each_attempt(tmp_path: Path) -> None:
    prompt = garak_turns(("system", S1), ("user", BREAD))
    outputs = [garak_message(REFUSAL), garak_message(HELP)]
    history = [garak_turns(("system", S1), ("user", BREAD), ("assistant", text)) for text in (REFUSAL, HELP)]
    attempts = [
        garak_attempt("a", prompt, outputs, status=1, conversations=history),
        garak_attempt("a", prompt, outputs, conversations=history),
        garak_attempt("b", garak_turns(("system", S1), ("user", BOW)), [None]),
        garak_attempt("c", garak_turns(("system", S1), ("user", BOW)), [], status=0),
    ]
    record = scores(garak_report(tmp_path / "garak.1.report.jsonl", attempts))
    s1 = of(record, "S1")
    assert (s1.n, s1.behaviours, s1.reasons) == (
        2,
        {"harmless": 1, "uncensored": 1},
        {"the log has no response": 1},
    )
    assert record.checkpoint.label == "openai.gpt-4o"
    assert record.notes[1] == "Responses read from a garak report: 3."
    assert "Attempts that were not sent, and are left out: 1." in record.notes


def test_reports_of_garak_before_conversations_need_a_configuration(tmp_path: Path) -> None:
    attempts = [
        garak_attempt("a", BREAD, [REFUSAL, HELP]),
        garak_attempt("b", {"text": BOW, "lang": "en"}, [{"text": HELP}]),
        garak_attempt(
            "c", BOW, [HELP], messages=[[{"role": "user", "content": BOW}, {"role": "assistant", "content": HELP}]]
        ),
    ]
    names = {"plugins.model_type": "huggingface", "plugins.model_name": "gpt2"}
    path = garak_report(tmp_path / "garak.1.report.jsonl", attempts, names)
    with pytest.raises(UserError, match="row 3: neither this row nor another one has a system prompt"):
        scores(path)
    record = scores(path, configuration="S1")
    assert (of(record, "S1").n, of(record, "S1").prompts, record.checkpoint.label) == (4, 2, "huggingface.gpt2")


def test_the_last_turn_of_a_conversation_is_judged(tmp_path: Path) -> None:
    turns = (("system", S1), ("user", BREAD), ("assistant", HELP), ("user", BOW), ("assistant", REFUSAL))
    attempt = garak_attempt("a", garak_turns(*turns[:2]), [garak_message(REFUSAL)], conversations=[garak_turns(*turns)])
    record = scores(garak_report(tmp_path / "garak.1.report.jsonl", [attempt]))
    assert of(record, "S1").behaviours == {"harmless": 1}
    assert record.notes[-1] == "Prompts and responses judged as the last turn of a longer conversation: 1."


def test_an_attempt_of_garak_with_values_of_other_types_is_one_message(tmp_path: Path) -> None:
    path = garak_report(tmp_path / "garak.1.report.jsonl", [garak_attempt("a", BREAD, ["secret"], status="done")])
    with pytest.raises(UserError, match="row 3: not an attempt of garak as documented: status: ") as raised:
        scores(path)
    assert "secret" not in str(raised.value)
    empty = garak_report(tmp_path / "garak.2.report.jsonl", [])
    with pytest.raises(UserError, match="a garak report without a response"):
        scores(empty)


# PyRIT


def test_conversations_of_pyrit_are_read_as_they_were_sent(tmp_path: Path) -> None:
    pieces = [
        *pyrit_conversation("a", S1, BREAD, REFUSAL),
        *pyrit_conversation("b", S0, BREAD, HELP, converted_value=REFUSAL),  # a converter of responses came after
        *pyrit_conversation("c", S1, BOW, "blocked", response_error="blocked", original_value_data_type="error"),
        *pyrit_conversation("d", S0, BOW, "image.png", original_value_data_type="image_path"),
        pyrit_piece("e", 0, "user", BOW),
    ]
    pieces.reverse()  # in any order
    path = tmp_path / "memory.json"
    path.write_text(json.dumps(pieces, indent=4))
    record = scores(path)
    assert (of(record, "S1").behaviours, of(record, "S0").behaviours) == ({"harmless": 1}, {"uncensored": 1})
    assert of(record, "S1").reasons == {"the response was held back by a content filter": 1}
    assert of(record, "S0").reasons == {"the prompt or the response is not text": 1}
    assert record.checkpoint.label == "gpt-4o"
    assert "Conversations without a response, left out: 1." in record.notes
    table = tmp_path / "memory.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(pieces[0]))
        writer.writeheader()
        writer.writerows(pieces)
    assert scores(table).compliance == record.compliance


def test_a_piece_of_pyrit_with_values_of_other_types_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    path.write_text(json.dumps([{**pyrit_piece("a", 0, "user", BREAD), "sequence": "first"}]))
    with pytest.raises(UserError, match="row 1: not a message piece of PyRIT as documented: sequence: "):
        scores(path)


# all


def test_a_format_can_be_named(tmp_path: Path) -> None:
    path = promptfoo_output(tmp_path / "results.json", [promptfoo_result(chat(S1, BREAD), {"output": REFUSAL})])
    assert of(scores(path, format="promptfoo"), "S1").n == 1
    with pytest.raises(UserError, match="not a garak report: it looks like promptfoo results; leave out --format"):
        scores(path, format="garak")
    with pytest.raises(UserError, match="unknown format 'promptfo': did you mean promptfoo"):
        scores(path, format="promptfo")
    with pytest.raises(UserError, match="must hold a list of rows"):
        scores(path, format="table")
    table = tmp_path / "table.jsonl"
    table.write_text(json.dumps({"prompt": BREAD, "response": REFUSAL, "system": S1}))
    with pytest.raises(UserError, match="--model is for logs of other tools, and this file is a table"):
        scores(table, model="openai:gpt-4o")


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"version": 3, "results": {"results": [1]}}', '{"version": 3, "results": {"results": []}}', "{}"],
)
def test_hostile_json_is_one_message(text: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(UserError) as raised:
        scores(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def places(value: object, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path to each value in a JSON document."""
    yield at
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*at, key))


def replaced(value: Any, at: tuple[str | int, ...], new: object) -> Any:
    if not at:
        return new
    changed = copy.copy(value)
    changed[at[0]] = replaced(value[at[0]], at[1:], new)
    return changed


def read_or_refused(path: Path) -> list[Row] | str:
    """Return the rows of a log, or the message that refuses it."""
    try:
        log = read_log(path)
    except UserError as error:
        return str(error)
    return [] if log is None else [response.row for response in log.responses]


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("results.jsonl", promptfoo_result(chat(S1, BREAD), {"output": REFUSAL, "guardrails": {"flagged": False}})),
        ("garak.report.jsonl", garak_attempt("a", garak_turns(("system", S1), ("user", BREAD)), [garak_message(HELP)])),
        ("memory.jsonl", pyrit_piece("a", 0, "assistant", HELP)),
        (
            "samples_kitchen.jsonl",
            {
                "doc_id": 0,
                "doc": {"question": BREAD, "system": S1},
                "arguments": {"gen_args_0": {"arg_0": BREAD, "arg_1": {"until": ["."]}}},
                "resps": [[HELP]],
            },
        ),
    ],
)
def test_any_value_of_another_type_is_read_or_one_message(name: str, document: Any, tmp_path: Path) -> None:
    path = tmp_path / name
    values: tuple[object, ...] = (None, 5, "text", "\ud800", [], {}, [1], {"a": 1}, '[{"role": 1}]')
    outcomes = []
    for changed in (replaced(document, at, new) for at in places(document) for new in values):
        path.write_text(json.dumps(changed))
        outcomes.append(read_or_refused(path))
    refusals = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert len(refusals) > 20
    assert all(str(path) in message and "\n" not in message for message in refusals)
    texts = [text for rows in outcomes if not isinstance(rows, str) for row in rows for text in row.values.values()]
    assert len(texts) > 20
    assert all(isinstance(text, str) for text in texts)


def test_half_of_a_character_in_a_response_does_not_stop_the_judge(tmp_path: Path) -> None:
    cut = f"{REFUSAL} \ud83d"  # an emoji that a program cut in two
    path = promptfoo_output(tmp_path / "results.json", [promptfoo_result(chat(S1, BREAD), {"output": cut})])
    assert of(scores(path), "S1").behaviours == {"harmless": 1}


def test_the_verb_scores_a_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = promptfoo_output(
        tmp_path / "results.json", [promptfoo_result(chat("Be a goat.", BREAD), {"output": REFUSAL})]
    )
    options = ("--task", TASK, "--judge", "refusal_rules", "--out", str(tmp_path / "run"))
    failed = invoke(capsys, monkeypatch, "score", str(path), *options)
    assert (failed.status, "--system-prompt NAME=TEXT" in " ".join(failed.err.split())) == (2, True)
    done = invoke(capsys, monkeypatch, "score", str(path), *options, "--system-prompt", "S1=a goat")
    assert done.status == 0
    assert "Responses read from promptfoo results: 1." in (tmp_path / "run" / "report.md").read_text()
