"""A run judged by a language model over real HTTP: a dead judge loses nothing, nothing is paid twice, no key leaks."""

from __future__ import annotations

import json
import re
import shutil
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from cst_bench.errors import UserError
from cst_bench.judging import Case, JudgeOptions, ask, describe_judge, load_judge
from cst_bench.record import Manifest, Scores
from cst_bench.runs import JudgeRunOptions, RunOptions, judge_run, run
from tests.cli.invoke import in_process
from tests.judging.servers import JudgeServer, by_response, completion, error, fenced, send, serving

KEY = "sk-a-key-that-must-stay-secret"


@pytest.fixture(autouse=True)
def _key_and_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def refuses(response: str) -> str:
    return "harmless" if "cannot" in response else "uncensored"


def files_with(folder: Path, text: str) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_responses_that_a_judge_left_unscored_are_asked_about_again_with_more_tokens(tmp_path: Path) -> None:
    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        long = refuses(fenced(text, "response")) == "uncensored"  # takes more thought
        if long and int(str(server.settings[-1]["max_tokens"])) < 9000:
            send(handler, 200, completion("", "length", thought="Hm."))
        else:
            by_response(refuses)(server, handler, text, before)

    quick = tmp_path / "quick.yaml"
    shipped = Path(__file__).parents[2] / "judges"
    (tmp_path / "harmlessness.md").write_text((shipped / "harmlessness.md").read_text())
    quick.write_text((shipped / "harmlessness.yaml").read_text() + "retries: 0\nconnections: 1\n")
    with serving(reply) as server:
        judge = JudgeOptions("judge", server.url, reasoning_effort="low")
        folder = tmp_path / "run"
        first = run(RunOptions(tasks=("tiny_sealed",), judges=(str(quick),), judge_options=judge, limit=4, out=folder))
        cut_off = first.scores.compliance["tiny_sealed"].configurations["S0"]
        assert list(cut_off.reasons) == ["the judge's answer was cut off"]
        asked = len(server.settings)
        judge_run(JudgeRunOptions(folder))
        assert len(server.settings) == asked, "nothing was to be asked"
        again = judge_run(JudgeRunOptions(folder, judge_options=JudgeOptions(base_url=server.url, max_tokens=9000)))
        score = again.scores.compliance["tiny_sealed"].configurations["S0"]
        assert (score.n, score.unscored) == (4, 0)
        new = len(server.settings) - asked
        assert {sent["reasoning_effort"] for sent in server.settings} == {"low"}
        manifest = Manifest.read(folder)
        assert manifest.earlier_judges == ()
        assert manifest.settings.compliance["tiny_sealed"].judge.details["max_tokens"] == 9000
        judging = manifest.status.compliance["tiny_sealed"].judging
        assert judging is not None
        assert judging.spent is not None
        assert (judging.spent.calls, judging.spent.cached) == (new, 12 - new)
        assert cut_off.unscored <= new < 12


def test_a_bad_minute_of_the_endpoint_is_exit_3_and_the_same_command_scores_everything(tmp_path: Path) -> None:
    bad = True

    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        if bad and len(server.asked) > 4:
            send(handler, 400, error("an upstream fault"))
        else:
            by_response(refuses)(server, handler, text, before)

    with serving(reply) as server:
        judge = ("--judge", "harmlessness", "--judge-model", "judge", "--judge-base-url", server.url)
        args = ("run", "--task", "tiny_sealed", "--limit", "5", "--out", "run", *judge)
        first = in_process(*args, cwd=tmp_path)
        assert first.status == 3
        assert "the judge's endpoint rejected the request: " in first.err.replace("\n", " ")
        assert Manifest.read(tmp_path / "run").status.compliance["tiny_sealed"].state == "generated"
        bad = False
        assert in_process(*args, cwd=tmp_path).status == 0
    scores = Scores.read(tmp_path / "run").compliance["tiny_sealed"].configurations
    assert {name: (score.n, score.unscored) for name, score in scores.items()} == {"S1": (5, 0), "S0": (5, 0)}


def one_judged_run(folder: Path, url: str) -> None:
    """Make a run by the shipped judge at an address, and set it back to where its verdicts are missing."""
    judge = JudgeOptions("judge", url)
    run(RunOptions(tasks=("tiny_sealed",), judges=("harmlessness",), judge_options=judge, limit=2, out=folder))
    manifest = Manifest.read(folder)
    part = manifest.status.compliance["tiny_sealed"].model_copy(update={"state": "generated"})
    status = manifest.status.model_copy(update={"run": "running", "compliance": {"tiny_sealed": part}})
    manifest.model_copy(update={"status": status}).write(folder)


def test_a_key_goes_to_no_address_that_only_a_run_folder_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, panel = tmp_path / "theirs", tmp_path / "theirs" / "panel.yaml"
    with serving(by_response(refuses)) as server:
        one_judged_run(folder, server.url)
        monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path / "another"))
        server.keys.clear()
        for options in (JudgeOptions(), JudgeOptions(max_tokens=900)):
            with pytest.raises(UserError, match=f"--judge-base-url {re.escape(server.url)}"):
                judge_run(JudgeRunOptions(folder, judge_options=options))
        members = [{"judge": "harmlessness", "model": "judge", "base_url": server.url}, {"judge": "refusal_rules"}]
        keys = {
            "name": "panel",
            "version": 1,
            "kind": "panel",
            "description": "Two.",
            "vote": "majority",
            "members": members,
        }
        panel.write_text(json.dumps({**keys, "behaviours": ["harmless", "uncensored"]}))
        manifest = Manifest.read(folder)
        task = manifest.settings.compliance["tiny_sealed"]
        theirs = describe_judge(load_judge(str(panel)), str(panel))
        manifest.settings.compliance["tiny_sealed"] = task.model_copy(update={"judge": theirs})
        shutil.copytree(folder, tmp_path / "panel")
        manifest.write(tmp_path / "panel")
        with pytest.raises(UserError, match=f"a panel: with --judge {re.escape(str(panel))}"):
            judge_run(JudgeRunOptions(tmp_path / "panel"))
        assert not server.keys, "a key was sent"

        judged = judge_run(JudgeRunOptions(folder, judge_options=JudgeOptions(base_url=server.url)))
        assert judged.scores.judges["tiny_sealed"].model == "judge"
        assert server.keys == {f"Bearer {KEY}"}
        assert Manifest.read(folder).earlier_judges == ()


def test_without_a_key_the_address_of_a_run_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving(by_response(refuses)) as server:
        one_judged_run(tmp_path / "run", server.url)
        judge_run(JudgeRunOptions(tmp_path / "run"))
        assert server.keys == {"Bearer none"}


@pytest.mark.slow
def test_a_dead_judge_loses_no_response_and_the_run_is_finished_without_its_checkpoint(tmp_path: Path) -> None:
    dead, answered = True, set()

    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        if dead and len(server.asked) > 5:
            send(handler, 500, error(f"no {KEY}"))
        else:
            assert text not in answered, "it was paid for already"
            answered.add(text)
            by_response(refuses)(server, handler, text, before)

    quick = tmp_path / "quick.yaml"
    shipped = Path(__file__).parents[2] / "judges"
    (tmp_path / "harmlessness.md").write_text((shipped / "harmlessness.md").read_text())
    quick.write_text((shipped / "harmlessness.yaml").read_text() + "retries: 0\nconnections: 1\n")
    with serving(reply) as server:
        judge = ("--judge", str(quick), "--judge-model", "judge", "--judge-base-url", server.url)
        args = ("run", "--task", "tiny_sealed", "--task", "tiny_truthfulqa", "--limit", "4", "--out", "run", *judge)
        first = in_process(*args, cwd=tmp_path)
        assert first.status == 3
        assert re.search(r"gave no verdict on \d of 12 responses \(status 500\)", first.err)
        assert len(answered) == 5
        assert f"`cst-bench judge run --judge-base-url {server.url}`" in first.err.replace("\n", " ")
        status = Manifest.read(tmp_path / "run").status
        assert status.compliance["tiny_sealed"].state == "generated"
        assert status.capabilities["tiny_truthfulqa"].state == "done"
        log = next((tmp_path / "run" / "compliance" / "tiny_sealed").glob("*.eval"))
        written = log.stat().st_mtime_ns
        dead = False
        with pytest.raises(UserError, match="which only the run names"):
            judge_run(JudgeRunOptions(tmp_path / "run"))
        judged = judge_run(JudgeRunOptions(tmp_path / "run", judge_options=JudgeOptions(base_url=server.url)))
        assert judged.scores.judges["tiny_sealed"].model == "judge"
        assert judged.scores.compliance["tiny_sealed"].configurations["S1"].n == 4
        judging = Manifest.read(tmp_path / "run").status.compliance["tiny_sealed"].judging
        assert judging is not None
        assert judging.spent is not None
        assert judging.spent.calls == len(answered) - 5
        assert judging.spent.calls + judging.spent.cached == 12
        assert judging.spent.input_tokens == 100 * judging.spent.calls
        asked = sum(server.asked.values())
        assert in_process(*args, cwd=tmp_path).status == 0  # finished: nothing to do, nothing to pay
        assert sum(server.asked.values()) == asked
    assert log.stat().st_mtime_ns >= written
    assert files_with(tmp_path, KEY) == []
    assert KEY not in first.err + first.out


@pytest.mark.slow
def test_the_protocol_holds_with_a_real_server_of_a_real_checkpoint(transformers_serve: tuple[str, str]) -> None:
    url, name = transformers_serve
    judge = load_judge("harmlessness", options=JudgeOptions(model=name, base_url=url, connections=1))
    cases = [Case("How do I bake bread?", response) for response in ("Mix flour and water.", "I cannot help.", "")]
    first = ask(judge, cases)
    # random weights say nothing that is a verdict, and an empty response needs none
    assert [verdict.behaviour for verdict in first] == [None, None, "neither"]
    assert first[2].reason == "empty response"
    assert all(verdict.reason for verdict in first)
    assert all(verdict.call and verdict.call.output_tokens > 0 for verdict in first[:2])
    again = ask(judge, cases)
    assert [verdict.reason for verdict in again] == [verdict.reason for verdict in first]
    assert all(verdict.call and not verdict.call.cached for verdict in again[:2])  # no verdict is kept that is none
