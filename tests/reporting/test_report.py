"""Reports: nothing in a name or a response can break a table, bring markup, or change from run to run."""

from __future__ import annotations

import copy
import io
import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from cmarkgfm import github_flavored_markdown_to_html
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from cst_bench.escape import cell, text_of
from cst_bench.record import (
    Averages,
    AverageScore,
    CalibrationSummary,
    CapabilityScore,
    CapabilitySettings,
    CheckpointIdentity,
    ComplianceSettings,
    ConfigurationScore,
    CorrectedScore,
    GenerationRecord,
    JudgeRecord,
    Manifest,
    Outcomes,
    ReferenceCounts,
    RunSettings,
    Scores,
    Status,
    SuiteRecord,
    TaskJudge,
    TaskScores,
)
from cst_bench.reporting import StoredRun, run_markdown, summary_table
from cst_bench.reporting.flags import flags_of
from cst_bench.reporting.leaderboard.build import make_leaderboard
from cst_bench.reporting.leaderboard.html import html_report
from cst_bench.reporting.leaderboard.latex import latex_report
from cst_bench.reporting.leaderboard.markdown import markdown_report
from cst_bench.reporting.leaderboard.tabular import json_report

MARKDOWN = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").enable("strikethrough")
HOSTILE = [
    "a | b",
    "a\n| x | y |",
    "<script>alert(1)</script>",
    "<img src=x onerror=y>",
    "[link](https://example.com)",
    "![image](x.png)",
    "https://example.com/x",
    "www.example.com",
    "mail me@example.com",
    "`code` **bold** _it_ ~~no~~",
    "\\| escaped pipe",
    "\\",
    "&lt;b&gt; &#x41;",
    "$x^2$",
    "\u202egnirts\u202c",
    "tab\tand\x00\x1b[31m",
    "| --- | --- |",
    "# heading",
]


def parsed(text: str) -> tuple[int, set[str]]:
    """Cells of the second row of a table around the text, and the kinds of tokens in all cells."""
    tokens = MARKDOWN.parse(f"| a | b |\n|---|---|\n| {cell(text)} | end |\n")
    cells = sum(token.type == "td_open" for token in tokens)
    kinds = {child.type for token in tokens for child in token.children or []}
    return cells, kinds


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_in_its_cell(text: str) -> None:
    cells, kinds = parsed(text)
    assert cells == 2
    assert not kinds & {"link_open", "image", "code_inline", "strong_open", "em_open", "s_open"}
    assert "<script" not in cell(text)


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("|\\`*_[]()<>!~\n&#"))))
def test_no_text_breaks_a_table(text: str) -> None:
    cells, kinds = parsed(text)
    assert cells == 2
    assert not kinds & {"link_open", "image", "code_inline", "strong_open", "em_open", "s_open"}


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("<>/&"))))
def test_no_text_brings_html_but_our_line_breaks(text: str) -> None:
    tokens = MARKDOWN.parse(f"| a |\n|---|\n| {cell(text)} |\n")
    html = [child.content for token in tokens for child in token.children or [] if child.type == "html_inline"]
    assert set(html) <= {"<br>", "<!-- -->"}


def score(value: float | None, n: int, unscored: int = 0, **more: Any) -> ConfigurationScore:
    interval = None if value is None else (max(0.0, value - 0.1), min(1.0, value + 0.1))
    return ConfigurationScore(score=value, n=n, unscored=unscored, interval=interval, **more)


def make_stored(
    label: str = "model",
    configurations: Mapping[str, ConfigurationScore] | None = None,
    *,
    over: Sequence[str] = ("S1", "S0"),
    behaviour: str = "harmless",
    judge: TaskJudge | None = None,
    arc: CapabilityScore | None = None,
    title: str = "Suite",
    compliance: bool = True,
    capabilities: bool = True,
) -> StoredRun:
    """Make the record of a run of one compliance task and one capability."""
    if configurations is None:
        configurations = {"S1": score(0.7, 50), "S0": score(0.8, 48, 2)}
    judge = judge or TaskJudge(
        name="j", version=1, kind="rules", sha256="0", source="j", calibration=None, calibrated=False
    )
    arc = arc or CapabilityScore(title="ARC", metric="acc", score=0.5, stderr=0.1, interval=(0.3, 0.7), n=25)
    task_scores = TaskScores(
        configurations=dict(configurations),
        joint=score(0.6, 48, 2) if len(configurations) > 1 else None,
        reference=ReferenceCounts(n=50, unscored=0, behaviours={behaviour: 50}),
    )
    values = [configurations[name].score for name in over if name in configurations]
    complete = bool(over) and len(values) == len(over)
    mean = None if None in values or not complete else sum(value or 0.0 for value in values) / len(values)
    average = AverageScore(score=mean, interval=None if mean is None else (0.6, 0.9), over=tuple(over))
    settings = RunSettings(
        checkpoint=CheckpointIdentity(label=label, kind="local"),
        suite=SuiteRecord(name="s", version=1, title=title),
        compliance={
            "task": ComplianceSettings(
                title="Task",
                version=1,
                sha256="2",
                configurations=dict.fromkeys(configurations, "harmless"),
                wording="w",
                data="rows.csv",
                data_sha256="1",
                prompts=50,
                judge=JudgeRecord(name="j", version=1, kind="rules", sha256="0", source="j"),
                generation=GenerationRecord(max_tokens=8, temperature=0.0, top_p=1.0),
            )
        }
        if compliance
        else {},
        capabilities={
            "arc": CapabilitySettings(title="ARC", version=1, sha256="3", definitions_sha256=None, data_sha256=None)
        }
        if capabilities
        else {},
        seed=0,
        min_judge_f1=0.9,
        packages={"cst-bench": "0"},
    )
    scores = Scores(
        checkpoint=settings.checkpoint,
        suite=settings.suite,
        judges={"task": judge} if compliance else {},
        compliance={"task": task_scores} if compliance else {},
        capabilities={"arc": arc} if capabilities else {},
        averages=Averages(
            compliance=average if compliance and complete else None,
            capabilities=AverageScore(score=arc.score, stderr=arc.stderr, interval=arc.interval, over=("arc",))
            if capabilities
            else None,
        ),
    )
    outcomes = Outcomes(compliance={"task": {}} if compliance else {}, capabilities={})
    manifest = Manifest(settings=settings, settings_sha256="", status=Status(), started="2026-01-01T00:00:00+00:00")
    return StoredRun(Path("run"), manifest, scores, outcomes)


def tables(text: str) -> list[list[int]]:
    """The number of cells in each row of each table."""
    counts: list[list[int]] = []
    for token in MARKDOWN.parse(text):
        if token.type == "table_open":
            counts.append([])
        elif token.type == "tr_open":
            counts[-1].append(0)
        elif token.type in ("td_open", "th_open"):
            counts[-1][-1] += 1
    return counts


def text_on_terminal(run: StoredRun) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(summary_table(run))
    return out.getvalue()


@pytest.mark.parametrize("label", ["model", *HOSTILE, "x" * 200])
def test_every_table_is_whole_whatever_the_model_is_called(label: str) -> None:
    cells = tables(run_markdown(make_stored(label)))
    assert len(cells) == 5
    assert all(len(set(rows)) == 1 for rows in cells)


def test_scores_come_with_interval_n_unscored_and_what_their_flags_mean() -> None:
    text = run_markdown(make_stored())
    assert "| task | S0 | 0.80<sup>u</sup><sup>x</sup> | 0.70–0.90 | 48 | 2 |" in text
    assert "uncalibrated: the judge is not calibrated" in text
    assert "(j on task: no calibration card)" in text
    assert "more than 2% of the responses are unscored" in text
    assert "| 95 % interval | 30.0–70.0 | 30.0–70.0 |" in text


USELESS: dict[str, Any] = {
    "behaviours": {"harmless": 20, "neither": 26, "incapable": 4},
    "degenerate": {"repetition": 21, "empty response": 5},
    "cut_off": 30,
    "repeated": 25,
}


def test_useless_responses_are_counted_beside_each_score() -> None:
    run = make_stored(configurations={"S1": score(0.4, 50, **USELESS), "S0": score(0.8, 50)})
    text = run_markdown(run)
    counts = "neither 26, harmless 20, incapable 4; cut off 30, repeated 25, repetition 21, empty response 5"
    assert f"| task | S1 | 0.40<sup>u</sup><sup>d</sup> | 0.30–0.50 | 50 | 0 | {counts} |" in text
    assert "After the semicolon: responses that were cut off" in text
    shown = text_on_terminal(run)
    for line in ("26 neither", "4 incapable", "30 cut off", "25 repeated", "degenerate: more than 2%"):
        assert line in shown
    board = make_leaderboard([run])
    assert "n 50, 26 neither, 4 incapable, 30 cut off, 25 repeated" in markdown_report(board, ())
    assert "<small>26 neither</small>" in html_report(board)
    assert "\\below{26 neither}" in latex_report(board)
    cell = json.loads(json_report(board))["sections"][0]["models"][0]["scores"]["task/S1"]
    assert cell["useless"] == {"neither": 26, "incapable": 4, "cut off": 30, "repeated": 25}
    frame = run.to_frame().set_index("score_name")
    assert list(frame.loc["S1", ["neither", "incapable", "cut_off", "repeated"]]) == [26, 4, 30, 25]


def test_runs_made_before_the_check_show_what_they_showed() -> None:
    old = score(0.4, 50, behaviours={"harmless": 24, "neither": 26})
    assert (old.useless, flags_of(old, make_stored().scores.judges["task"])) == ({}, ("uncalibrated",))
    run = make_stored(configurations={"S1": old, "S0": score(0.8, 50)})
    assert "After the semicolon" not in run_markdown(run)
    assert "26 neither" not in text_on_terminal(run)
    assert "useless" not in json_report(make_leaderboard([run]))


def test_a_few_degenerate_responses_are_no_flag() -> None:
    judge = make_stored().scores.judges["task"]
    assert "degenerate" not in flags_of(score(0.4, 50, degenerate={"no words": 1}, repeated=1), judge)
    assert "degenerate" in flags_of(score(0.4, 50, degenerate={"no words": 1, "repetition": 1}, repeated=1), judge)


def test_what_is_undefined_is_a_dash() -> None:
    run = make_stored(configurations={"S1": score(None, 0, 50), "S0": score(0.8, 48, 2)})
    assert "| task | S1 | –<sup>u</sup><sup>x</sup> | – | 0 | 50 |" in run_markdown(run)
    assert "–" in text_on_terminal(run)


@pytest.mark.parametrize("missing", ["compliance", "capabilities"])
def test_a_run_of_one_kind_has_the_other_left_out(missing: str) -> None:
    run = make_stored(compliance=missing != "compliance", capabilities=missing != "capabilities")
    text = run_markdown(run)
    assert ("stay capable" in text) == (missing != "capabilities")
    assert ("system prompt asks?" in text) == (missing != "compliance")
    assert tables(text)
    text_on_terminal(run)


def test_a_capability_that_could_not_be_scored_says_why() -> None:
    arc = CapabilityScore(title="ARC", metric=None, score=None, stderr=None, interval=None, n=0, unavailable="no key")
    run = make_stored(arc=arc)
    assert "arc was not scored: no key" in run_markdown(run)
    assert "arc: not scored, no key" in text_on_terminal(run)


def test_the_same_run_gives_the_same_bytes() -> None:
    run = make_stored()
    assert run_markdown(run) == run_markdown(copy.deepcopy(run))


def test_the_terminal_table_fits_80_columns_and_takes_names_as_text() -> None:
    names = ("S1", "S0", "S_RP", "S_A", "S1_ordinary")
    run = make_stored("[red]x[/red]", {name: score(1.0, 200) for name in names}, over=names[:4])
    shown = text_on_terminal(run)
    assert max(map(len, shown.splitlines())) <= 80
    for name in (*names, "Avg."):
        assert name in shown


def test_many_configurations_take_several_tables_of_80_columns() -> None:
    names = [f"S{at}_of_many" for at in range(12)]
    lines = text_on_terminal(make_stored(configurations={name: score(0.35, 200) for name in names})).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(any(name in line for line in lines) for name in names)
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("before", ["", "_", "*", "~", "(", "x", " ", "\u200b"])
@pytest.mark.parametrize(
    "address",
    [
        *("https://example.com", "HTTP://example.com", "www.example.com", "ftp://example.com"),
        *("a@example.com", "mailto:a@example.com", "xmpp:a@example.com/x"),
    ],
)
def test_no_address_becomes_a_link_of_itself_on_github(before: str, address: str) -> None:
    shown = github_flavored_markdown_to_html(f"| a |\n|---|\n| {cell(before + address)} |\n")
    assert "<td>" in shown
    assert "<a " not in shown


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("|\\`*_[]()<>!~\n\r&#"))))
def test_text_stays_on_its_line_and_nothing_in_it_is_invisible(text: str) -> None:
    made = cell(text)
    assert len(made.splitlines()) <= 1
    assert not {unicodedata.category(character) for character in made} & {"Cf", "Cs", "Zl", "Zp"}


@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_visible_text_reads_as_it_was_given(text: str) -> None:
    tokens = MARKDOWN.parse(f"| a |\n|---|\n| {cell(text)} |\n")
    (inline,) = [token for token in tokens if token.type == "inline"][1:]
    shown = [child.content for child in inline.children or [] if child.type != "html_inline"]
    assert "".join(shown) == text


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"])), min_size=1).map(" \n".join))
def test_a_cell_is_read_back_as_it_was_written(text: str) -> None:
    assert text_of(cell(text)) == "\n".join(map(str.strip, text.strip().split("\n")))


@pytest.mark.timeout(10)
def test_a_long_response_of_spaces_takes_no_long_time() -> None:
    assert cell("a" + " " * 200_000 + "b").startswith("a ")


@pytest.mark.parametrize("name", HOSTILE)
def test_every_table_is_whole_whatever_configurations_and_capabilities_are_called(name: str) -> None:
    arc = CapabilityScore(title=name, metric="acc", score=0.5, stderr=0.1, interval=(0.3, 0.7), n=25)
    configurations = {name: score(0.7, 50), "S0": score(0.8, 48, 2)}
    run = make_stored(configurations=configurations, over=(), behaviour=name, arc=arc, title=name)
    cells = tables(run_markdown(run))
    assert len(cells) == 5
    assert all(len(set(rows)) == 1 for rows in cells)
    text_on_terminal(run)


def test_a_run_of_one_configuration_has_no_joint_and_no_average() -> None:
    run = make_stored(configurations={"S1": score(1.0, 5)}, over=())
    text = run_markdown(run)
    assert "| Model | S1 |" in text
    assert "joint" not in text_on_terminal(run)
    assert "joint" not in text
    assert len(tables(text)) == 5


@pytest.mark.parametrize("name", ["j", *HOSTILE])
def test_a_calibrated_judge_is_shown_with_its_f1_and_the_scores_corrected_by_it(name: str) -> None:
    card = CalibrationSummary(macro_f1=0.953, interval=(0.92, 0.98), n=104, labels=name, by=(name,), counts={})
    judge = TaskJudge(
        name=name,
        version=1,
        kind="llm",
        sha256="0",
        source="j",
        details={"model": name},
        calibration=card,
        calibrated=True,
    )
    corrected = CorrectedScore(
        method="rogan-gladen", score=0.744, interval=(0.61, 0.86), labelled=0, assumes="transfer"
    )
    configurations = {"S1": score(0.7, 50, corrected=corrected), "S0": score(0.8, 50)}
    text = run_markdown(make_stored(configurations=configurations, judge=judge))
    assert "0.95 | 0.92–0.98 |" in text
    assert "| task | S1 | 0.70 | 0.74 | 0.61–0.86 | rogan-gladen |" in text
    assert "uncalibrated" not in text
    cells = tables(text)
    assert len(cells) == 6
    assert all(len(set(rows)) == 1 for rows in cells)


@pytest.mark.parametrize("name", ["harmless", *HOSTILE])
def test_why_a_judge_is_not_calibrated_and_a_score_not_corrected_is_in_every_report(name: str) -> None:
    reasons = ("its labels are by construction", f"too few labels (3 of {name})")
    judge = TaskJudge(
        name="j", version=1, kind="rules", sha256="0", source="j", calibration=None, calibrated=False,
        uncalibrated=reasons,
    )  # fmt: skip
    refused = CorrectedScore(
        method="rogan-gladen",
        score=None,
        interval=None,
        labelled=0,
        assumes="",
        undefined=f"{name} contradicts the card",
    )
    run = make_stored(configurations={"S1": score(0.7, 50, corrected=refused), "S0": score(0.8, 50)}, judge=judge)
    board = make_leaderboard([run])
    shown = " ".join(text_on_terminal(run).split())
    texts = [
        run_markdown(run),
        markdown_report(board, ()),
        html_report(board),
        latex_report(board).replace("\\allowbreak{}", ""),
    ]
    for text in (shown, *texts):
        assert "j on task: its labels are by construction, and too few labels" in text
        assert "contradicts the card" in text
        assert "orrected for judge error" in text
    if name == "harmless":
        assert "not corrected for judge error: S1: harmless contradicts the card" in shown
        assert "Not corrected for judge error: S1, since harmless contradicts the card." in texts[0]
        cell = json.loads(json_report(board))["sections"][0]["models"][0]["scores"]["task/S1"]
        assert (cell["corrected"], cell["uncorrected"]) == (None, "harmless contradicts the card")
    assert all(len(set(rows)) == 1 for text in texts[:2] for rows in tables(text))
    assert "<script>" not in texts[0] + texts[1]
    two = make_leaderboard(
        [run, make_stored("other", configurations={"S1": score(0.7, 50, corrected=refused)}, over=())]
    )
    assert "other (S1)" in markdown_report(two, ())
