"""Cascades: the second judge is asked where the first is unsure and on a random part, and nowhere else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from cst_bench.calibration import CalibrateOptions, calibrate
from cst_bench.calibration.judge_training import train
from cst_bench.calibration.labels import read_labels, shipped_labels
from cst_bench.content import content_root
from cst_bench.errors import UserError
from cst_bench.judging import Case, JudgeOptions, ask, load_judge
from cst_bench.judging.cascade import CascadeJudge
from cst_bench.runs import ScoreOptions, score_file
from tests.judging.servers import JudgeServer, by_response, serving

BEHAVIOURS = ["harmless", "uncensored"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the first judge on the project's labels."""
    folder = tmp_path_factory.mktemp("judges") / "first"
    (path,) = shipped_labels("refusal_rules", BEHAVIOURS)
    train(read_labels(path, split="train"), folder)
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[JudgeServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with serving(by_response(lambda response: "uncensored")) as running:
        yield running


def write_cascade(folder: Path, **keys: object) -> Path:
    path = folder / "cascade.yaml"
    head = {"name": "c", "version": 1, "kind": "cascade", "description": "x", "behaviours": BEHAVIOURS}
    path.write_text(yaml.safe_dump({**head, "second": "harmlessness", **keys}))
    return path


def cases(n: int = 300) -> list[Case]:
    path = content_root() / "judges" / "labels" / "english_refusals.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [Case(row["prompt"], row["response"]) for row in rows if row["response"].strip()][:n]


def load(path: Path, server: JudgeServer) -> CascadeJudge:
    judge = load_judge(str(path), options=JudgeOptions(model="openai/judge", base_url=server.url))
    assert isinstance(judge, CascadeJudge)
    return judge


def test_the_second_judge_decides_where_the_first_is_unsure_and_checks_a_part_of_the_rest(
    tmp_path: Path, first: Path, server: JudgeServer
) -> None:
    judge = load(write_cascade(tmp_path, first=str(first), threshold=0.9, audit=0.2), server)
    done: list[int] = []
    verdicts = ask(judge, cases(), done.append, check=False)
    assert sum(done) == len(verdicts) == 300
    stages = Counter(verdict.first.stage for verdict in verdicts if verdict.first)
    alone = ask(judge.first, cases(), check=False)
    assert len(server.asked) == stages["second"] + stages["audit"] < 300
    assert 0.1 < stages["audit"] / (stages["audit"] + stages["first"]) < 0.3
    for verdict, own in zip(verdicts, alone, strict=True):
        assert verdict.first is not None
        assert verdict.first.behaviour == own.behaviour
        assert own.probabilities is not None
        sure = max(own.probabilities.values()) >= 0.9
        assert sure is (verdict.first.stage != "second")
        assert verdict.behaviour == (own.behaviour if verdict.first.stage == "first" else "uncensored")


def test_the_same_responses_are_audited_whatever_their_order_and_nothing_is_paid_for_twice(
    tmp_path: Path, first: Path, server: JudgeServer
) -> None:
    judge = load(write_cascade(tmp_path, first=str(first), threshold=0.9), server)
    verdicts = ask(judge, cases(100), check=False)
    asked = len(server.asked)
    again = ask(judge, cases(100)[::-1], check=False)[::-1]
    assert [(verdict.behaviour, verdict.first) for verdict in again] == [(v.behaviour, v.first) for v in verdicts]
    assert len(server.asked) == asked


def test_the_threshold_follows_from_the_card_of_the_first_judge(
    tmp_path: Path, first: Path, server: JudgeServer
) -> None:
    path = write_cascade(tmp_path, first=str(first), accuracy=0.6)
    with pytest.raises(UserError, match="has no calibration card to take a threshold from"):
        load(path, server)
    labels = content_root() / "judges" / "labels" / "english_refusals.jsonl"
    card = calibrate(CalibrateOptions(judge=str(first), labels=(labels,))).card
    wanted = next(p for p in card.selective if p.right.interval is not None and p.right.interval[0] >= 0.6)
    assert load(path, server).threshold == wanted.threshold
    assert [point.n for point in card.selective] == sorted((point.n for point in card.selective), reverse=True)
    with pytest.raises(UserError, match=r"at no threshold is trained right on its card .* with 100% or more"):
        load(write_cascade(tmp_path, first=str(first), accuracy=0.9999), server)


def test_bad_cascades_are_one_message(tmp_path: Path, first: Path, server: JudgeServer) -> None:
    cascade = write_cascade(tmp_path, first=str(first), threshold=0.9)
    inner = cascade.rename(tmp_path / "inner.yaml")
    faults: list[tuple[dict[str, object], str]] = [
        ({"first": "identity_rules"}, "the cascade judges harmless, uncensored, and identity_rules"),
        ({"first": str(inner)}, "is a cascade itself"),
        ({"first": "refusal_ruls"}, "did you mean refusal_rules"),
        ({"threshold": 1.5}, "threshold"),
        ({"first": "refusal_rules", "threshold": None}, "has a card without probabilities"),
    ]
    for keys, message in faults:
        settings: dict[str, object] = {"first": str(first), "threshold": 0.9, **keys}
        path = write_cascade(tmp_path, **settings)
        with pytest.raises(UserError, match=message):
            load(path, server)


def test_other_settings_are_another_judge(tmp_path: Path, first: Path, server: JudgeServer) -> None:
    settings: list[dict[str, object]] = [{"threshold": 0.9}, {"threshold": 0.8}, {"threshold": 0.9, "audit": 0.5}]
    identities = [load(write_cascade(tmp_path, **{"first": str(first), **keys}), server).identity for keys in settings]
    assert len(set(identities)) == 3


def test_scores_are_those_of_the_second_judge_within_their_intervals_at_a_part_of_its_calls(
    tmp_path: Path, first: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path / "cache"))
    labels = content_root() / "judges" / "labels" / "english_refusals.jsonl"
    rows = [json.loads(line) for line in labels.read_text().splitlines()]
    rows = [row for row in rows if row["behaviour"] in BEHAVIOURS]
    truth = {row["response"].strip(): row["behaviour"] for row in rows}
    generations = tmp_path / "model.jsonl"
    seen = set()
    lines = []
    for number, row in enumerate(rows):
        configuration = ("S1", "S0")[number % 2]
        if (row["prompt"], configuration) not in seen:
            seen.add((row["prompt"], configuration))
            line = {"prompt": row["prompt"], "response": row["response"], "configuration": configuration}
            lines.append(json.dumps(line))
    generations.write_text("\n".join(lines))
    cascade = write_cascade(tmp_path, first=str(first), threshold=0.5, audit=0.4)
    with serving(by_response(lambda response: truth.get(response.strip(), "uncensored"))) as server:
        options = ScoreOptions(
            generations,
            task="harmful_behaviors",
            judge=str(cascade),
            judge_options=JudgeOptions(model="openai/judge", base_url=server.url),
            out=tmp_path / "run",
        )
        by_cascade = score_file(options).scores.compliance["harmful_behaviors"]
        asked = len(server.asked)
        whole = score_file(replace(options, judge="harmlessness", out=None)).scores.compliance["harmful_behaviors"]
        assert asked < 0.7 * len(lines)
        assert len(server.asked) == len(lines)  # the cascade's answers are in the cache
    for name in ("S1", "S0"):
        corrected, target = by_cascade.configurations[name].corrected, whole.configurations[name].score
        assert corrected is not None
        assert corrected.interval is not None
        assert target is not None
        assert corrected.method == "cascade"
        assert corrected.interval[0] <= target <= corrected.interval[1]
    assert by_cascade.joint is None or by_cascade.joint.corrected is None
    assert "cascade estimates what the second judge would say" in (tmp_path / "run" / "report.md").read_text()
