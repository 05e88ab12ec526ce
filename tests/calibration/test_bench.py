"""Judges beside each other on label sets: the numbers are those of their cards, and no text is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sklearn.metrics import f1_score

from cst_bench.calibration.judge_comparison import JudgeBench, JudgeBenchOptions, judge_bench
from cst_bench.calibration.label_sets import load_labels
from cst_bench.errors import UserError
from cst_bench.judging import JudgeOptions
from cst_bench.statistics.intervals import Estimate
from tests.calibration.test_label_sets import LABELS
from tests.cli.invoke import invoke
from tests.judging.servers import by_response, serving

ROWS = [
    {"prompt": f"Question {number}?", "response": response, "behaviour": label}
    for number, (response, label) in enumerate(
        [("I'm sorry, but I can't help.", "harmless"), ("Cross the ends.", "uncensored"), ("Not today.", "harmless")]
        * 4
    )
]
SECRET = "Cross the ends."


@pytest.fixture
def labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(f"{json.dumps({**row, 'by': 'human'})}\n" for row in ROWS))
    return path


def test_figures_are_those_of_scikit_learn_and_texts_are_nowhere(
    labels: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outcome = invoke(capsys, monkeypatch, "judge", "bench", "refusal_rules", "--labels", str(labels), "--out", "out")
    assert outcome.status == 0, outcome
    (measured,) = JudgeBench.read(tmp_path / "out").sets
    (row,) = measured.rows
    verdicts = ["harmless", "uncensored", "uncensored"] * 4
    truth = [item["behaviour"] for item in ROWS]
    assert row.macro_f1.value == pytest.approx(f1_score(truth, verdicts, average="macro"))
    assert row.f1["uncensored"].value == pytest.approx(f1_score(truth, verdicts, pos_label="uncensored"))
    assert row.accuracy.value == pytest.approx(8 / 12)
    assert (row.n, row.unscored, row.source) == (12, 0, "judged")
    assert row.seconds_per_1000 is not None
    assert row.cost_per_1000 is None
    report = (tmp_path / "out" / "report.md").read_text()
    assert SECRET not in outcome.out + outcome.err + report + (tmp_path / "out" / "bench.json").read_text()
    assert f"{row.macro_f1.value:.3f}" in report
    assert f"{row.macro_f1.value:.3f}" in outcome.out
    read = JudgeBench.read(tmp_path / "out")
    assert read._repr_markdown_() == report
    assert read.to_frame()["macro_f1"].tolist() == [row.macro_f1.value]


def test_one_judge_with_two_models_beside_rules(labels: Path) -> None:
    with serving(by_response(lambda response: "uncensored" if "ends" in response else "harmless")) as server:
        measured = judge_bench(
            JudgeBenchOptions(
                judges=("refusal_rules", "harmlessness=openai/first", "harmlessness=openai/second"),
                labels=(labels,),
                judge_options=JudgeOptions(base_url=server.url),
            )
        )
    (result,) = measured.sets
    assert [row.judge for row in result.rows] == [
        "refusal_rules",
        "harmlessness (first)",
        "harmlessness (second)",
    ]
    assert [row.macro_f1.value for row in result.rows[1:]] == [1.0, 1.0]


def test_a_judge_of_other_behaviours_is_listed_with_the_reason(labels: Path) -> None:
    (result,) = judge_bench(JudgeBenchOptions(judges=("identity_rules", "refusal_rules"), labels=(labels,))).sets
    assert result.rows[0].n is None
    assert "not one of the judge's behaviours" in str(result.rows[0].note)
    assert result.rows[1].n == 12


def test_bad_judges_are_one_message(labels: Path) -> None:
    for judges, message in [
        ((), "no judge to measure"),
        (("refusal_ruls",), "did you mean refusal_rules"),
        (("refusal_rules=openai/gpt-4",), "asks no model"),
    ]:
        with pytest.raises(UserError, match=message):
            judge_bench(JudgeBenchOptions(judges=judges, labels=(labels,)))


@pytest.mark.skipif(not LABELS.is_dir(), reason="no published labels here")
def test_people_and_gpt_4_stand_beside_a_phrase_list_on_xstest() -> None:
    options = JudgeBenchOptions(judges=("refusal_rules",), labels=("xstest",), data={"xstest": LABELS})
    (result,) = judge_bench(options).sets
    rows = {row.source: row for row in result.rows}
    (labels,) = load_labels(["xstest"], {"xstest": LABELS})
    scored = [(row.behaviour, row.verdicts["gpt-4"]) for row in labels.rows if row.verdicts["gpt-4"]]
    truth, verdicts = zip(*scored, strict=True)
    assert rows["released"].macro_f1.value == pytest.approx(f1_score(truth, verdicts, average="macro"))
    assert rows["released"].unscored == 11
    both = [pair for row in labels.rows for pair in (row.annotations, row.annotations[::-1])]
    assert rows["people"].macro_f1.value == pytest.approx(f1_score(*zip(*both, strict=True), average="macro"))
    assert rows["people"].n == 1350
    assert set(rows["judged"].degrees) == {"full compliance", "partial refusal", "full refusal"}
    assert sum(part.n for part in rows["judged"].degrees.values()) == 1350


@pytest.mark.skipif(not LABELS.is_dir(), reason="no published labels here")
def test_published_figures_stand_in_the_table_with_their_source(tmp_path: Path) -> None:
    options = JudgeBenchOptions(
        judges=("refusal_rules",), labels=("harmbench",), data={"harmbench": LABELS}, out=tmp_path / "out"
    )
    (result,) = judge_bench(options).sets
    published = {row.judge: row for row in result.rows if row.source == "published"}
    assert published["gpt-4"].accuracy == Estimate(0.884, None)
    assert "| gpt-4 § | – | – | – | 0.884 |" in (tmp_path / "out" / "report.md").read_text()
