"""Compliance tasks in Inspect: generation and judging apart, nothing finished repeated, metrics equal to scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from inspect_ai import eval as inspect_eval
from inspect_ai.log import read_eval_log
from inspect_ai.model import Model, get_model
from pydantic import JsonValue

from cst_bench.compliance.compliance_scores import summarise
from cst_bench.compliance.inspect_task import compliance
from cst_bench.compliance.judged_log import judge_log, read_outcomes
from cst_bench.compliance.logs import generate
from cst_bench.errors import Interrupted, UserError
from cst_bench.judging import load_judge
from cst_bench.record import ConfigurationScore
from cst_bench.statistics.intervals import wilson
from tests.compliance.own import model, says, write_task

REFUSAL = "I cannot help with that."
Reply = Callable[[str], str]


def talker(reply: Reply) -> Model:
    """Make Inspect's mock of a model, the only fake here; `reply` receives the system prompt, or an empty text."""
    return model(lambda system, _: reply(system or ""))


def run(folder: Path, reply: Reply, counted: list[int] | None = None) -> Path:
    task = compliance("tiny_sealed", prompts=3)
    return generate(task, talker(reply), folder, (counted if counted is not None else []).append)


def test_scores_count_what_was_asked_and_the_metrics_are_the_same(tmp_path: Path) -> None:
    log = run(tmp_path, lambda system: REFUSAL if "harmless" in system or not system else "Sure.")
    judged, _ = judge_log(log, load_judge("tiny_sealed"))
    summary = summarise(judged, ["S1", "S0"])
    scores = summary.configurations
    assert summary.joint is not None
    assert summary.reference is not None
    assert (scores["S1"].score, scores["S0"].score, summary.joint.score) == (1.0, 0.0, 0.0)
    assert scores["S0"].behaviours == {"neither": 3}
    assert summary.reference.behaviours == {"harmless": 3}
    assert read_outcomes(log) == judged
    results = read_eval_log(str(log), header_only=True).results
    assert results is not None
    assert {name: metric.value for name, metric in results.scores[0].metrics.items()} == {"S1": 1, "S0": 0, "joint": 0}


def test_a_sample_in_the_log_holds_no_verdict_but_its_own(tmp_path: Path) -> None:
    log = run(tmp_path, lambda _: REFUSAL)
    judge_log(log, load_judge("tiny_sealed"))
    samples = read_eval_log(str(log)).samples or []
    names = {str(sample.id) for sample in samples}
    for sample in samples:
        text = sample.model_dump_json()
        assert not [name for name in names - {str(sample.id)} if name in text]


def test_inspect_s_own_eval_finds_the_task_by_its_name_and_scores_the_same(tmp_path: Path) -> None:
    (log,) = inspect_eval(
        "cst_bench/tiny_sealed", model=talker(lambda _: REFUSAL), limit=6, log_dir=str(tmp_path), display="none"
    )
    assert log.status == "success"
    assert log.results is not None
    assert {name: metric.value for name, metric in log.results.scores[0].metrics.items()} == {
        "S1": 1,
        "S0": 0,
        "joint": 0,
    }


def test_epochs_are_averaged_within_the_prompt(tmp_path: Path) -> None:
    counts: Counter[tuple[str, str]] = Counter()

    def sometimes(system: str | None, prompt: str) -> str:
        counts[system or "", prompt] += 1
        refuses = "harmless" in (system or "") and counts[system or "", prompt] % 3 != 0
        return REFUSAL if refuses else "Sure."

    (log,) = inspect_eval(
        "cst_bench/tiny_sealed", model=model(sometimes), limit=9, epochs=6, log_dir=str(tmp_path), display="none"
    )
    assert log.results is not None
    metrics = {name: metric.value for name, metric in log.results.scores[0].metrics.items()}
    assert metrics == pytest.approx({"S1": 4 / 6, "S0": 0, "joint": 0})
    judged = read_outcomes(Path(log.location))
    assert sorted(outcome.epoch for outcome in judged) == sorted(list(range(1, 7)) * 9)
    score = summarise(judged, ["S1", "S0"]).configurations["S1"]
    assert (score.n, score.prompts) == (18, 3)


def test_wordings_are_asked_one_by_one_and_a_persona_once(tmp_path: Path) -> None:
    rows = [{"prompt": "Say no more?", "persona": "You are a parrot."}]
    configurations: dict[str, JsonValue] = {
        "yes": says("yes", first="Say yes.", second="Agree."),
        "no": {"behaviour": "no", "system_column": "persona"},
    }
    _, path = write_task(tmp_path, rows, configurations, unseen_wordings=["first", "second"])
    asked: list[str | None] = []

    def reply(system: str | None, _: str) -> str:
        asked.append(system)
        return "yes" if system == "Say yes." else "no"

    (log,) = inspect_eval(
        compliance(str(path), wording="all"), model=model(reply), log_dir=str(tmp_path), display="none"
    )
    assert Counter(asked) == {"Say yes.": 1, "Agree.": 1, "You are a parrot.": 1, None: 1}
    scores = summarise(read_outcomes(Path(log.location)), ["yes", "no"])
    assert scores.configurations["yes"].wordings == {"first": 1.0, "second": 0.0}
    assert scores.configurations["no"].wordings == {}
    assert scores.joint is not None
    assert scores.joint.score == 0.5


def test_an_empty_response_is_neither_with_its_reason(tmp_path: Path) -> None:
    log = run(tmp_path, lambda system: "" if "uncensored" in system else REFUSAL)
    summary = summarise(judge_log(log, load_judge("tiny_sealed"))[0], ["S1", "S0"])
    assert summary.configurations["S0"] == ConfigurationScore(
        score=0.0,
        n=3,
        unscored=0,
        interval=wilson(0, 3),
        behaviours={"neither": 3},
        degenerate={"empty response": 3},
        cut_off=0,
        repeated=0,
    )
    assert summary.configurations["S0"].useless == {"neither": 3}
    assert summary.joint is not None
    assert (summary.joint.score, summary.joint.unscored) == (0.0, 0)


def test_failed_samples_interrupt_and_only_they_are_tried_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def failing(system: str) -> str:
        if "uncensored" in system:
            raise RuntimeError("the service is down")
        return REFUSAL

    def counting(system: str) -> str:
        asked.append(system)
        return REFUSAL

    with pytest.raises(Interrupted, match="run the same command to retry them"):
        run(tmp_path, failing)
    (unfinished,) = tmp_path.glob("*.eval")
    before = {s.id: s.uuid for s in read_eval_log(str(unfinished)).samples or [] if s.error is None}
    assert len(before) == 6
    counted: list[int] = []
    log = run(tmp_path, counting, counted)
    assert len(asked) == 3
    assert all("uncensored" in system for system in asked)
    assert (counted[0], sum(counted)) == (6, 9)
    after = {s.id: s.uuid for s in read_eval_log(str(log)).samples or []}
    assert {name: after[name] for name in before} == before
    assert list(tmp_path.glob("*.eval")) == [log]


@pytest.mark.parametrize(("name", "seconds"), [("cst/tiny", None), ("mockllm/model", 600)])
def test_only_a_request_to_an_api_is_sent_again_after_a_time(name: str, seconds: int | None, tmp_path: Path) -> None:
    asked = get_model(name, memoize=False) if name == "cst/tiny" else talker(lambda _: REFUSAL)
    log = generate(compliance("tiny_sealed", prompts=1), asked, tmp_path, lambda _: None)
    header = read_eval_log(str(log), header_only=True)
    assert header.status == "success"
    assert header.plan.config.attempt_timeout == seconds


def test_another_judge_can_judge_the_same_responses(tmp_path: Path) -> None:
    log = run(tmp_path, lambda _: "I'm sorry, I can't help.")
    assert {o.behaviour for o in judge_log(log, load_judge("tiny_sealed"))[0]} == {"neither"}
    assert {o.behaviour for o in judge_log(log, load_judge("refusal_rules"))[0]} == {"harmless"}
    assert len((read_eval_log(str(log)).samples or [])[0].scores or {}) == 1


def test_a_task_of_ones_own_is_judged_by_the_judge_beside_it(tmp_path: Path) -> None:
    rows = [{"prompt": "Say no more?"}, {"prompt": "Say yes?"}]
    _, path = write_task(tmp_path, rows, {"yes": says("yes"), "no": says("no", first="Say no.", second="Deny.")})
    asked: list[str | None] = []

    def reply(system: str | None, prompt: str) -> str:
        asked.append(system)
        return "no" if system is None else system

    (log,) = inspect_eval(
        compliance(str(path), wording="second"), model=model(reply), log_dir=str(tmp_path), display="none"
    )
    summary = summarise(read_outcomes(Path(log.location)), ["yes", "no"])
    assert sorted(map(str, asked)) == ["Deny.", "Deny.", "None", "None", "Say yes.", "Say yes."]
    behaviours = {name: score.behaviours for name, score in summary.configurations.items()}
    assert behaviours == {"yes": {"yes": 2}, "no": {"neither": 2}}
    assert summary.reference is not None
    assert summary.reference.behaviours == {"no": 2}


def test_a_judge_that_does_not_know_what_is_asked_for_is_refused_before_any_model_time(tmp_path: Path) -> None:
    _, path = write_task(tmp_path, [{"prompt": "a"}], {"yes": says("yess")})
    with pytest.raises(
        UserError, match=r"judge mine distinguishes yes, no and cannot judge task mine, which asks for yess"
    ):
        compliance(str(path))


def test_a_judge_that_names_a_field_which_the_rows_lack_is_one_message(tmp_path: Path) -> None:
    _, path = write_task(tmp_path, [{"prompt": "a"}])
    log = generate(compliance(str(path)), model(lambda *_: "yes"), tmp_path / "log", lambda _: None)
    with pytest.raises(UserError, match="'tool', which the row doesn't have"):
        judge_log(log, load_judge("tiny_sealed"))
    assert {outcome.behaviour for outcome in judge_log(log, load_judge(str(tmp_path / "judge.yaml")))[0]} == {"yes"}
