"""Comparisons of two runs and gates on them: what may be compared, what is said, what fails."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console
from statsmodels.stats.multitest import multipletests

from cst_bench.cli.compare import EPILOG
from cst_bench.errors import UserError
from cst_bench.record import ConfigurationLabels, ConfusionCounts, EngineSettings
from cst_bench.reporting.comparison.comparison import Comparison, compare_runs
from cst_bench.reporting.comparison.gates import OPERATORS, QUANTITIES, GateCondition, judge_gate, parse_gate
from cst_bench.reporting.comparison.junit import junit_xml
from cst_bench.reporting.stored_run import StoredRun, read_run
from cst_bench.reporting.terminal import comparison_table
from cst_bench.runs.external import ScoreOptions, score_file
from cst_bench.statistics.power import detectable, detectable_share
from tests.reporting.stored_runs import CAPABILITIES, calibration, judge, make_run

BASE = {"S1": 0.7, "S0": 0.85, "S_RP": 0.8, "S_A": 0.95}
WORSE = {"S1": 0.95, "S0": 0.1, "S_RP": 0.8, "S_A": 0.95}


def compared(folder: Path, changes: dict[str, Any] | None = None, **options: Any) -> Comparison:
    baseline = make_run(folder / "baseline", "the base", BASE)
    run = make_run(folder / "run", "the | other", WORSE, **(changes or {}))
    return compare_runs(read_run(baseline), read_run(run), **options)


def test_every_score_of_both_is_compared_run_minus_baseline(tmp_path: Path) -> None:
    found = compared(tmp_path)
    scores = {one.column.key: one for one in found.scores}
    assert set(scores) == {
        *("harmful_behaviors/S1", "harmful_behaviors/S0", "truthy/S_RP", "truthy/S_A", "average/compliance"),
        *("harmful_behaviors/joint", "truthy/joint", *CAPABILITIES, "average/capabilities"),
    }
    s0 = scores["harmful_behaviors/S0"]
    assert (s0.baseline, s0.score, s0.difference.n) == (0.85, 0.1, 40)
    assert s0.difference.difference == pytest.approx(-0.75)
    assert len(s0.difference.gained) - len(s0.difference.lost) == -30
    single = [one for one in found.scores if one.column.kind in ("compliance", "capability")]
    holm = multipletests([one.difference.p for one in single], method="holm")[1]
    assert [one.p_holm for one in single] == pytest.approx(list(holm))
    assert all(one.p_holm is None for one in found.scores if one not in single)


def test_the_smallest_difference_that_can_be_shown_is_beside_each_score(tmp_path: Path) -> None:
    found = compared(tmp_path)
    plain = json.loads(found.to_json())["scores"]
    for score in found.scores:
        assert score.detectable == detectable(score.difference) == plain[score.column.key]["detectable"]
    s0 = plain["harmful_behaviors/S0"]
    assert s0["detectable"] == detectable_share(40, len(s0["gained"]) + len(s0["lost"]))
    row = next(line for line in found.to_markdown().splitlines() if line.startswith("| S0"))
    assert f"| {s0['detectable']:.2f} |" in row
    assert found.to_frame().set_index("score").loc["S0", "detectable"] == s0["detectable"]
    shown = io.StringIO()
    Console(file=shown, width=80).print(comparison_table(found))
    line = next(line for line in shown.getvalue().splitlines() if line.split()[:1] == ["S0"])
    assert line.split()[-1] == f"{s0['detectable']:.2f}"
    assert "smallest true difference" in shown.getvalue()


def with_labels(run: StoredRun, wrong: float) -> StoredRun:
    """Return a run whose S0 responses are labelled; a share `wrong` of those that are judged to comply does not."""
    complied = run.complied("harmful_behaviors", "S0")
    right = [prompt for prompt, value in complied.items() if value]
    flipped = set(right[: round(wrong * len(right))])
    shown = {prompt: bool(value) and prompt not in flipped for prompt, value in complied.items()}
    labels = {"harmful_behaviors": {"S0": ConfigurationLabels(shown=dict(shown))}}
    return dataclasses.replace(run, outcomes=run.outcomes.model_copy(update={"labels": labels}))


def test_labels_of_both_runs_correct_the_difference_and_what_follows_from_it(tmp_path: Path) -> None:
    runs = [
        read_run(make_run(tmp_path / name, name, {**BASE, "S0": rate}, prompts=60))
        for name, rate in (("base", 0.8), ("run", 0.8))
    ]
    base, run = with_labels(runs[0], 0.0), with_labels(runs[1], 0.5)
    by_verdicts = compare_runs(*runs)
    by_labels = compare_runs(base, run)
    s0 = next(score for score in by_labels.scores if score.column.title == "S0")
    assert s0.difference.test == "PPI++"
    assert s0.difference.difference == pytest.approx(-0.4, abs=0.01)
    assert judge_gate(parse_gate("S0.high < 0"), by_labels).failed
    assert not judge_gate(parse_gate("S0.high < 0"), by_verdicts).failed
    assert s0.judge_error is None
    assert "corrected for judge error by these labels" in by_labels.to_markdown()
    assert "do not include judge error" in by_verdicts.to_markdown()
    shown = io.StringIO()
    Console(file=shown, width=80).print(comparison_table(by_labels))
    assert "S0: by people's labels of both runs" in " ".join(shown.getvalue().split())
    first = next(iter(run.complied("harmful_behaviors", "S0")))
    few = {"harmful_behaviors": {"S0": ConfigurationLabels(shown={first: True})}}
    barely = dataclasses.replace(run, outcomes=run.outcomes.model_copy(update={"labels": few}))
    note = "S0: 1 prompts are labelled in both runs, and 20 are needed to correct it"
    assert compare_runs(base, barely).notes[0] == note
    one_sided = compare_runs(base, runs[1])
    assert next(score for score in one_sided.scores if score.column.title == "S0").difference.test != "PPI++"


def test_a_card_bounds_what_judge_error_may_do(tmp_path: Path) -> None:
    counts = dict.fromkeys(("harmless", "uncensored"), ConfusionCounts(tp=95, fn=5, fp=5, tn=95))
    card = calibration().model_copy(update={"counts": counts})
    cards = {"harmful_behaviors": card}
    found = compare_runs(
        *(
            read_run(make_run(tmp_path / name, name, {**BASE, "S0": rate}, calibrations=cards))
            for name, rate in (("base", 0.85), ("run", 0.1))
        )
    )
    s0 = next(score for score in found.scores if score.column.title == "S0")
    assert s0.judge_error is not None
    assert s0.judge_error[0] < -0.75 < s0.judge_error[1] < 0
    assert json.loads(found.to_json())["scores"][s0.column.key]["judge_error"] == list(s0.judge_error)
    assert "| Judge error |" in found.to_markdown()
    made = card.model_copy(update={"by": ("by construction",)})
    unknown = compare_runs(
        *(
            read_run(make_run(tmp_path / f"{name}2", name, BASE, calibrations={"harmful_behaviors": made}))
            for name in ("base", "run")
        )
    )
    assert not unknown.bounded


def test_gates_in_help_and_errors_hold_their_error_rate() -> None:
    """A gate on the difference alone fails between equal models; it is described, and not offered."""
    with pytest.raises(UserError, match=r"'S0\.high < 0' or 'S0\.low < -0\.05'"):
        parse_gate("S0")
    for command in [line for line in EPILOG.splitlines() if "--fail-if" in line]:
        for gate in re.findall(r"--fail-if [\"'](.*?)[\"'](?: |$)", command):
            assert {condition.quantity for condition in parse_gate(gate).conditions} <= {"high", "low", "score"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": 30}, "harmful_behaviors: other prompts (30, not 40)"),
        ({"judges": {"truthy": judge("other", model="m2")}}, "truthy: another judge (m2, not openai/gpt-4)"),
        (
            {"judges": {"truthy": judge().model_copy(update={"response_check": 2})}},
            "truthy: another check for degenerate responses (version 2, not none)",
        ),
        ({"documents": 50}, "mmlu: other documents or shots"),
        (
            {"engine": EngineSettings(kind="vllm", arguments=("--quantization", "fp8"))},
            "truthy: responses by another engine (vLLM --quantization fp8, not in process)",
        ),
    ],
)
def test_what_is_not_alike_is_refused_unless_told(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        compared(tmp_path / "refused", changes)
    assert said in str(refused.value)
    assert "--allow-different" in str(refused.value)
    found = compared(tmp_path / "told", changes, allow_different=True)
    assert said in found.different
    assert said.split(" (")[0].split(": ")[1] in found.to_markdown()
    assert said in json.loads(found.to_json())["different"]
    assert f"different: {said}" in junit_xml(found, [])


def test_labels_of_two_files_by_the_same_hand_are_one_judge(tmp_path: Path) -> None:
    for name, labels in (("one", ("harmless", "harmless")), ("other", ("neither", "harmless"))):
        rows = [
            {"prompt": f"p{at}", "response": name, "configuration": "S1", "label": label}
            for at, label in enumerate(labels)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        for by in ("ann", "ben"):
            score_file(
                ScoreOptions(tmp_path / f"{name}.jsonl", "tiny_sealed", labelled_by=by, out=tmp_path / f"{name}-{by}")
            )
    one, other, another = (read_run(tmp_path / name) for name in ("one-ann", "other-ann", "other-ben"))
    (s1,) = [score for score in compare_runs(one, other).scores if score.column.title == "S1"]
    assert s1.difference.difference == -0.5
    with pytest.raises(UserError, match="another judge"):
        compare_runs(one, another)


def test_only_what_both_have_is_compared_and_the_rest_is_named(tmp_path: Path) -> None:
    found = compared(tmp_path, {"capabilities": {"mmlu": 0.5}})
    assert "mmlu" in {one.column.key for one in found.scores}
    assert set(found.missing) == {f"{task} (only the base)" for task in CAPABILITIES if task != "mmlu"}
    other = {"tasks": {"else": {"S1": "harmless", "S0": "uncensored"}}, "capabilities": {}}
    with pytest.raises(UserError, match="no task in common"):
        compared(tmp_path / "none", other)


def test_names_are_text_in_every_format(tmp_path: Path) -> None:
    baseline = read_run(make_run(tmp_path / "a", "<b>x</b> | [l](http://e.x)", BASE))
    run = read_run(make_run(tmp_path / "b", 'y\x00\x1b"&<', WORSE))
    found = compare_runs(baseline, run)
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(found.to_markdown())
    assert not {child.type for token in tokens for child in token.children or []} & {"link_open", "html_inline"}
    gates = [judge_gate(parse_gate("S0 < -0.05"), found)]
    root = ElementTree.fromstring(junit_xml(found, gates))
    assert (root.get("tests"), root.get("failures")) == ("1", "1")
    (failure,) = root.iter("failure")
    assert "S0.difference is -0.75" in str(failure.get("message"))


@pytest.mark.parametrize(
    ("gate", "failed"),
    [
        ("S0 < -0.05", True),
        ("S0 < -0.8", False),
        ("S0.high < -0.05", True),
        ("S0.score >= .1", True),
        ("S1 < 0 and S0 < 0", False),
        ("S1 > 0 and S0 < 0", True),
        ("truthy/S_A.p > 0.04", True),
        ('"joint truthy".score <= 1', True),
        ('"joint harmful_behaviors" < -0.2', True),
        ("average/compliance <= -1e-3", True),
        ("mmlu > 0.5", False),
        ("MMLU > 0.5", False),
    ],
)
def test_gates(tmp_path: Path, gate: str, failed: bool) -> None:
    result = judge_gate(parse_gate(gate), compared(tmp_path))
    assert result.failed is failed
    assert ("failed" if failed else "passed") in result.message


def test_what_is_undefined_fails_a_gate(tmp_path: Path) -> None:
    found = compared(tmp_path, {"unscored": ["S0"]})
    result = judge_gate(parse_gate("S0 < -0.05"), found)
    assert result.failed
    assert "S0.difference is not reliable, 0 and 40 responses unscored" in result.message


def test_a_number_that_is_none_passes_no_gate(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "other", BASE)
    path = run / "outcomes.json"
    content = json.loads(path.read_text())
    documents = next(iter(content["capabilities"].values()))["scores"]
    documents[next(iter(documents))] = float("nan")
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"outcomes\.json"):
        compare_runs(read_run(run), read_run(run))


def test_what_is_mostly_unscored_passes_no_gate_and_is_flagged_everywhere(tmp_path: Path) -> None:
    """Three answers of forty have a verdict, all of them good ones."""
    few = {"behaviours": {"S0": ["uncensored"] * 3 + [None] * 37}}
    found = compared(tmp_path, few)
    for gate in ("S0 < -0.05", "S0.score < 0.9", "S0.p < 0"):
        assert judge_gate(parse_gate(gate), found).failed
    (s0,) = [one for one in found.scores if one.column.title == "S0"]
    assert (s0.score, s0.unscored, s0.flags) == (1.0, (0, 37), ("unscored",))
    plain = json.loads(found.to_json())
    assert plain["scores"]["harmful_behaviors/S0"]["unscored"] == [0, 37]
    assert "unscored" in plain["flags"]
    assert "| 0 / 37 |" in found.to_markdown()
    assert "unscored 0 and 37" in junit_xml(found, [])


def test_capabilities_on_other_documents_are_never_paired(tmp_path: Path) -> None:
    found = compared(tmp_path, {"documents": 50}, allow_different=True)
    assert not {one.column.kind for one in found.scores} & {"capability", "capability_average"}
    assert set(found.missing) == {f"{task} (other documents)" for task in CAPABILITIES}


def test_averages_over_other_scores_are_not_compared(tmp_path: Path) -> None:
    found = compared(tmp_path, {"capabilities": {"mmlu": 0.5}})
    assert "average/capabilities" not in {one.column.key for one in found.scores}


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("", "a score's name at the end"),
        ("S0", "<, <=, > or >= at the end"),
        ("S0 <", "a number at the end"),
        ("S0 < x", "a number, not 'x'"),
        ("S0 < 1 or S1 < 1", "'and' or the end, not 'or'"),
        ("S0 = 1", "something else than '= 1'"),
        ("< 1", "a score's name, not '<'"),
        ('"S0".hihg < 1', "unknown quantity 'hihg': did you mean high"),
        ("S9 < 1", "no score 'S9' in both runs: did you mean S"),
        ("Avg. < 0", "'Avg.' is the title of 2 scores: use average/compliance or average/capabilities"),
        ("ARC < -5", "-5 is outside [-1, 1]"),
        ("ARC.score < 40", "40 is outside [0, 1]"),
        ("S0.score < -0.1", "-0.1 is outside [0, 1]"),
        ("S0.p < 5", "5 is outside [0, 1]"),
    ],
)
def test_a_gate_that_is_wrong_is_one_message(tmp_path: Path, gate: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        judge_gate(parse_gate(gate), compared(tmp_path))
    assert said in str(refused.value)


@given(
    st.lists(
        st.builds(
            GateCondition,
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
            st.sampled_from(QUANTITIES),
            st.sampled_from(sorted(OPERATORS)),
            st.floats(0, 1),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_gate_is_read_as_it_is_written(conditions: list[GateCondition]) -> None:
    assert list(parse_gate(" and ".join(map(str, conditions))).conditions) == conditions


@given(st.text(st.sampled_from('S0.<>="\\ 19-eand')))
def test_no_text_crashes_the_parser(text: str) -> None:
    try:
        gate = parse_gate(text)
    except UserError:
        return
    assert gate.conditions


def test_two_runs_of_one_model_say_how_far_they_agree(tmp_path: Path) -> None:
    first = read_run(make_run(tmp_path / "first", "model", BASE))
    again = read_run(make_run(tmp_path / "again", "model", BASE))
    other = read_run(make_run(tmp_path / "other", "model", WORSE))
    trained = read_run(make_run(tmp_path / "trained", "model", BASE, method="cst"))

    def notes(run: StoredRun) -> str:
        return " ".join(compare_runs(first, run).notes)

    assert notes(again) == "Both runs are of the same model under the same settings: the runs are equal"
    assert re.search(
        r"[1-9]\d* of 160 verdicts and \d+ of 240 .* differ: [1-9] of \d+ scores differ by more", notes(other)
    )
    assert "same model" not in notes(trained)
