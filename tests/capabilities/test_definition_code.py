"""Code that a user's task file leads to runs only with --trust-task-code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cst_bench.capabilities import evaluate_capability, load_capability
from cst_bench.checkpoint import CheckpointOptions, load_checkpoint
from cst_bench.errors import UserError
from tests.cli.invoke import invoke

DOCUMENTS = [{"question": f"Is {number} a number?", "answer": number % 2} for number in range(4)]


def write_task(folder: Path, *lines: str, metric: str = "acc") -> Path:
    """Write a suite with one capability, whose definition has these further lines; return the suite's file."""
    definitions = folder / "definitions"
    definitions.mkdir()
    data = folder / "documents.jsonl"
    data.write_text("".join(f"{json.dumps(document)}\n" for document in DOCUMENTS))
    (definitions / "quiz.yaml").write_text(
        "\n".join(
            [
                "task: my_quiz",
                "dataset_path: json",
                f"dataset_kwargs: {{data_files: {{test: {data}}}}}",
                "output_type: multiple_choice",
                "test_split: test",
                "doc_to_text: '{{question}}'",
                "doc_to_target: answer",
                "doc_to_choice: [' no', ' yes']",
                f"metric_list: [{{metric: {metric}, aggregation: mean, higher_is_better: true}}]",
                *lines,
            ]
        )
    )
    (definitions / "helper.py").write_text(
        f"from pathlib import Path\nPath({str(folder / 'ran')!r}).touch()\n\n\n"
        "def keep(documents):\n    return documents\n"
    )
    (folder / "quiz.yaml").write_text(
        "name: my_quiz\nversion: 1\ntitle: Quiz\ndescription: A quiz.\nsource: this test\nlm_eval: my_quiz\n"
        "definitions: definitions\nnum_fewshot: 0\nmetric: acc\n"
    )
    suite = folder / "suite.yaml"
    suite.write_text(
        f"name: mine\nversion: 1\ntitle: Mine\ncompliance: []\ncapabilities: [{folder / 'quiz.yaml'}]\naverage: []\n"
    )
    return suite


def test_python_functions_of_a_user_s_definitions_run_only_if_trusted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_task(tmp_path, "process_docs: !function helper.keep")
    command = ("run", "--suite", str(suite), "--out", str(tmp_path / "run"))
    refused = invoke(capsys, monkeypatch, *command)
    assert refused.status == 2
    assert "--trust-task-code" in refused.err
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "run").exists()
    done = invoke(capsys, monkeypatch, *command, "--trust-task-code")
    assert done.status == 0, done.err
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("lines", "metric", "said"),
    [
        (["include: ../elsewhere.yaml"], "acc", "names the Python function helper.keep"),
        ([], "some_metric_of_the_hub", "its code would be fetched"),
        (["doc_to_text: '{{question.__class__.__mro__}}'"], "acc", "does what none may do"),
    ],
)
def test_other_ways_to_code_are_refused_when_they_are_met(
    lines: list[str], metric: str, said: str, tmp_path: Path, llama: Path
) -> None:
    write_task(tmp_path, *lines, metric=metric)
    (tmp_path / "elsewhere.yaml").write_text("process_docs: !function helper.keep\n")
    (tmp_path / "helper.py").write_text((tmp_path / "definitions" / "helper.py").read_text())
    task, path = load_capability(str(tmp_path / "quiz.yaml"))
    with pytest.raises(UserError, match=said):
        evaluate_capability(load_checkpoint(CheckpointOptions(str(llama))), task, path)
    assert not (tmp_path / "ran").exists()
