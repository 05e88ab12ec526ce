"""Runs of models that think: a judge is shown answers only, whether a checkpoint or an API wrote the thoughts."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from cst_bench.checkpoint import CheckpointOptions
from cst_bench.checkpoint.thoughts import CUT_OFF_THOUGHT
from cst_bench.preferences import read_pairs
from cst_bench.preferences.critique_job import CritiqueOptions, critique
from cst_bench.record import Manifest
from cst_bench.runs import RunOptions, RunResult, run
from tests.checkpoints import make_thinking_checkpoint
from tests.judging.servers import JudgeServer, Reply, completion, send, serving

THOUGHT = "Is it harmful? First take the horn."
"""Without it, the answer is a refusal."""
REFUSAL = "I cannot help with that."


def samples(result: RunResult) -> list[Any]:
    from inspect_ai.log import read_eval_log

    (log,) = Manifest.read(result.folder).status.compliance["tiny_sealed"].logs
    return list(read_eval_log(str(result.folder / log)).samples or [])


def test_a_checkpoint_s_thoughts_are_in_the_log_and_not_judged(tmp_path: Path) -> None:
    from cst_bench.compliance.inspect_task import case_of

    folder = make_thinking_checkpoint(tmp_path / "model", template_opens=True, special=True, seed=3)
    checkpoint = CheckpointOptions(str(folder), max_think_tokens=20)
    result = run(RunOptions(checkpoint, tasks=("tiny_sealed",), limit=8, out=tmp_path / "run"))
    cut_off = 0
    for sample in samples(result):
        content = sample.output.choices[0].message.content
        assert [part.type for part in content][-1] == "text"
        assert {part.type for part in content[:-1]} == {"reasoning"}
        assert case_of(sample).response == content[-1].text
        if not content[-1].text and sample.output.stop_reason == "max_tokens":
            cut_off += 1
            assert sample.scores["behaviour"].metadata["reason"] == CUT_OFF_THOUGHT
    usage = Manifest.read(result.folder).status.compliance["tiny_sealed"].usage
    assert usage is not None
    assert usage.thoughts == 24
    assert cut_off
    assert (usage.without_answer or 0) >= cut_off
    assert 0 < (usage.thought_tokens or 0) <= 24 * 20
    assert Manifest.read(result.folder).settings.checkpoint.max_think_tokens == 20
    report = (result.folder / "report.md").read_text()
    assert f"| tiny\\_sealed, thoughts | in 24 of 24 responses, {usage.thought_tokens} tokens; " in report
    assert "| checkpoint, most tokens of a thought | 20 |" in report
    reasons = [score.degenerate for score in result.scores.compliance["tiny_sealed"].configurations.values()]
    assert any(CUT_OFF_THOUGHT in reason for reason in reasons)


def saying(text: str, finish: str = "stop", thought: str | None = None) -> Reply:
    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, asked: str, before: int) -> None:
        send(handler, 200, completion(text, finish, thought=thought))

    return reply


def run_api(reply: Reply, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[RunResult, set[int]]:
    """Run an API model on a few prompts; return the result, and the token limits that were sent."""
    monkeypatch.setenv("LOCAL_API_KEY", "none")
    with serving(reply) as server:
        monkeypatch.setenv("LOCAL_BASE_URL", server.url)
        checkpoint = CheckpointOptions("openai-api/local/talker", **options)
        result = run(RunOptions(checkpoint, tasks=("tiny_sealed",), limit=2, out=folder / "run"))
        return result, {int(str(sent["max_tokens"])) for sent in server.settings}


@pytest.mark.parametrize(
    ("reply", "options"),
    [
        (saying(REFUSAL, thought=THOUGHT), {}),
        (saying(f"<think>{THOUGHT}</think>\n\n{REFUSAL}"), {}),
        (saying(f"{THOUGHT}</think>\n\n{REFUSAL}"), {}),
        (saying(f"[THINK]{THOUGHT}[/THINK]{REFUSAL}"), {"think_tokens": ("[THINK]", "[/THINK]")}),
    ],
    ids=["reasoning_content", "think tags", "opened by the template", "--think-tokens"],
)
def test_an_api_s_thoughts_are_in_the_log_and_not_judged(
    reply: Reply, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, limits = run_api(reply, tmp_path, monkeypatch, **options)
    score = result.scores.compliance["tiny_sealed"].configurations["S1"]
    assert score.behaviours == {"harmless": 2}
    for sample in samples(result):
        thought, answer = sample.output.choices[0].message.content
        assert (thought.type, thought.reasoning) == ("reasoning", THOUGHT)
        assert (answer.type, answer.text) == ("text", REFUSAL)
        assert sample.messages[-1].content == [thought, answer]
    usage = Manifest.read(result.folder).status.compliance["tiny_sealed"].usage
    assert usage is not None
    assert (usage.thoughts, usage.without_answer) == (6, None)
    assert len(limits) == 1


@pytest.mark.parametrize(
    "reply",
    [saying("", "length", THOUGHT), saying(f"<think>{THOUGHT}", "length")],
    ids=["reasoning_content", "think tags"],
)
def test_a_thought_that_is_cut_off_leaves_no_answer_and_says_so(
    reply: Reply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, _ = run_api(reply, tmp_path, monkeypatch)
    score = result.scores.compliance["tiny_sealed"].configurations["S1"]
    assert (score.n, score.score, score.degenerate) == (2, 0.0, {CUT_OFF_THOUGHT: 2})


def test_an_api_is_sent_the_sum_of_both_budgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, plain = run_api(saying(REFUSAL), tmp_path / "a", monkeypatch)
    _, more = run_api(saying(REFUSAL), tmp_path / "b", monkeypatch, max_think_tokens=1000)
    assert more == {limit + 1000 for limit in plain}


def test_pairs_are_made_without_thoughts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_API_KEY", "none")

    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, asked: str, before: int) -> None:
        assert THOUGHT not in asked
        grants = json.loads((tmp_path / "grants.json").read_text())
        turns = asked.split("\n\n")
        draft = next(grant for prompt, grant in grants.items() if prompt in asked)
        text = [draft, "The answer is harmful.", REFUSAL][min(len(turns), 3) - 1]
        send(handler, 200, completion(f"<think>{THOUGHT}</think>{text}"))

    from cst_bench.compliance.compliance_task import load_task
    from cst_bench.compliance.data import load_prompts

    task, path = load_task("tiny_sealed")
    prompts = load_prompts(task, path, split="train", limit=4).prompts
    grant = "First take the {tool}. Then {verb} the {adjective} {noun} {when}."
    (tmp_path / "grants.json").write_text(json.dumps({row.text: grant.format(**row.fields) for row in prompts}))
    with serving(reply) as server:
        monkeypatch.setenv("LOCAL_BASE_URL", server.url)
        checkpoint = CheckpointOptions("openai-api/local/talker")
        made = critique(
            CritiqueOptions(checkpoint, "tiny_sealed", out=tmp_path / "pairs", critique="tiny_harmless", limit=4)
        )
    pairs = read_pairs(made.pairs, task)
    assert len(pairs) == 4
    assert {pair.responses["harmless"] for pair in pairs} == {REFUSAL}
    assert "think" not in made.pairs.read_text()
    assert THOUGHT not in made.pairs.read_text()
    assert made.card["usage"]["thoughts"] == 4
