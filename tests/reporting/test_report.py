"""Reports: nothing in a name or a response can break a table, bring markup, or change from run to run."""

from __future__ import annotations

import copy
import io
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from cmarkgfm import github_flavored_markdown_to_html
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from cst_bench.escape import cell, text_of
from cst_bench.reporting import summary_table, write_report

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


def share(score: float | None, n: int, unscored: int = 0) -> dict[str, Any]:
    interval = None if score is None else [max(0.0, score - 0.1), min(1.0, score + 0.1)]
    return {"score": score, "n": n, "unscored": unscored, "interval": interval, "behaviours": {}, "reasons": {}}


def make_scores(label: str = "model") -> dict[str, Any]:
    return {
        "schema": 1,
        "checkpoint": {"label": label, "kind": "local"},
        "suite": {"name": "s", "version": 1, "title": "Suite"},
        "judges": {
            "task": {
                "name": "j",
                "version": 1,
                "kind": "rules",
                "sha256": "0",
                "calibration": None,
                "calibrated": False,
            }
        },
        "compliance": {
            "task": {
                "S1": share(0.7, 50),
                "S0": share(0.8, 48, 2),
                "joint": share(0.6, 48, 2),
                "reference": {"n": 50, "unscored": 0, "behaviours": {"harmless": 50}},
            }
        },
        "capabilities": {
            "arc": {"title": "ARC", "metric": "acc", "score": 0.5, "stderr": 0.1, "interval": [0.3, 0.7], "n": 25}
        },
        "averages": {
            "compliance": {"score": 0.75, "interval": [0.6, 0.9], "over": ["S1", "S0"]},
            "capabilities": {"score": 0.5, "stderr": 0.1, "interval": [0.3, 0.7], "over": ["arc"]},
        },
    }


def settings(scores: dict[str, Any]) -> dict[str, Any]:
    task = {
        "version": 1,
        "wording": "w",
        "prompts": 50,
        "data": "rows.csv",
        "data_sha256": "1",
        "judge": {"name": "j", "version": 1, "sha256": "0"},
        "generation": {"temperature": 0.0, "top_p": 1.0, "max_tokens": 8},
    }
    return {
        "checkpoint": scores["checkpoint"],
        "suite": scores["suite"],
        "compliance": {"task": task} if scores["compliance"] else {},
        "capabilities": {name: {"version": 1, "data_sha256": None} for name in scores["capabilities"]},
        "seed": 0,
        "split": "test",
        "limit": None,
        "packages": {"cst-bench": "0"},
    }


def report(scores: dict[str, Any], tmp_path: Path) -> str:
    return write_report(tmp_path, scores, settings(scores), {}, show_text=False).read_text()


def tables(text: str) -> list[list[int]]:
    """The number of cells in each row of each table."""
    found: list[list[int]] = []
    for token in MARKDOWN.parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append(0)
        elif token.type in ("td_open", "th_open"):
            found[-1][-1] += 1
    return found


def text_on_terminal(scores: dict[str, Any]) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(summary_table(scores))
    return out.getvalue()


@pytest.mark.parametrize("label", ["model", *HOSTILE, "x" * 200])
def test_every_table_is_whole_whatever_the_model_is_called(label: str, tmp_path: Path) -> None:
    found = tables(report(make_scores(label), tmp_path))
    assert len(found) == 5
    assert all(len(set(rows)) == 1 for rows in found)


def test_scores_come_with_interval_n_unscored_and_what_their_marks_mean(tmp_path: Path) -> None:
    text = report(make_scores(), tmp_path)
    assert "| task | S0 | 0.80<sup>u</sup><sup>x</sup> | 0.70 to 0.90 | 48 | 2 |" in text
    assert "uncalibrated: no calibration card of the judge" in text
    assert "more than 2% of the responses are unscored" in text
    assert "| 95 % interval | 30.0 to 70.0 | 30.0 to 70.0 |" in text


def test_what_is_undefined_is_a_dash(tmp_path: Path) -> None:
    scores = make_scores()
    scores["compliance"]["task"]["S1"] = share(None, 0, 50)
    scores["averages"]["compliance"] = {"score": None, "interval": None, "over": ["S1", "S0"]}
    text = report(scores, tmp_path)
    assert "| task | S1 | –<sup>u</sup><sup>x</sup> | – | 0 | 50 |" in text
    assert "–" in text_on_terminal(scores)


@pytest.mark.parametrize("missing", ["compliance", "capabilities"])
def test_a_run_of_one_kind_has_the_other_left_out(missing: str, tmp_path: Path) -> None:
    scores = make_scores()
    scores[missing] = {}
    scores["averages"][missing] = None
    text = report(scores, tmp_path)
    assert ("stay capable" in text) == (missing != "capabilities")
    assert ("system prompt asks?" in text) == (missing != "compliance")
    assert tables(text)
    text_on_terminal(scores)


def test_an_capability_that_could_not_be_run_says_why(tmp_path: Path) -> None:
    scores = make_scores()
    scores["capabilities"]["arc"] |= {"score": None, "stderr": None, "interval": None, "n": 0, "unavailable": "no key"}
    scores["averages"]["capabilities"] |= {"score": None, "stderr": None, "interval": None}
    assert "arc was not run: no key" in report(scores, tmp_path)
    assert "arc: not run, no key" in text_on_terminal(scores)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    scores = make_scores()
    assert report(scores, tmp_path) == report(copy.deepcopy(scores), tmp_path)


def test_the_terminal_table_fits_80_columns_and_takes_names_as_text() -> None:
    scores = make_scores("[red]x[/red]")
    task = scores["compliance"]["task"]
    for name in ("S_RP", "S_A", "S1_ordinary"):
        task[name] = share(1.0, 200)
    scores["averages"]["compliance"]["over"] = ["S1", "S0", "S_RP", "S_A"]
    shown = text_on_terminal(scores)
    assert max(map(len, shown.splitlines())) <= 80
    for name in ("S1", "S0", "S_RP", "S_A", "Avg.", "S1_ordinary"):
        assert name in shown


def test_many_configurations_take_several_tables_of_80_columns() -> None:
    scores = make_scores()
    names = [f"S{at}_of_many" for at in range(12)]
    scores["compliance"]["task"] |= {name: share(0.35, 200) for name in names}
    lines = text_on_terminal(scores).splitlines()
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
def test_every_table_is_whole_whatever_configurations_and_capabilities_are_called(name: str, tmp_path: Path) -> None:
    scores = make_scores()
    task = scores["compliance"]["task"]
    task[name] = task.pop("S1")
    task["reference"]["behaviours"] = {name: 50}
    scores["averages"]["compliance"] = None
    scores["capabilities"]["arc"]["title"] = name
    scores["suite"]["title"] = name
    found = tables(report(scores, tmp_path))
    assert len(found) == 5
    assert all(len(set(rows)) == 1 for rows in found)
    text_on_terminal(scores)


def test_a_run_of_one_configuration_has_no_joint_and_no_average(tmp_path: Path) -> None:
    scores = make_scores()
    scores["compliance"]["task"] = {"S1": share(1.0, 5)}
    scores["averages"]["compliance"] = None
    text = report(scores, tmp_path)
    assert "| Model | S1 |" in text
    assert "joint" not in text_on_terminal(scores)
    assert "joint" not in text
    assert len(tables(text)) == 5


@pytest.mark.parametrize("name", ["j", *HOSTILE])
def test_a_calibrated_judge_is_shown_with_its_f1_and_the_scores_corrected_by_it(name: str, tmp_path: Path) -> None:
    scores = make_scores()
    card = {"macro_f1": 0.953, "interval": [0.92, 0.98], "n": 104, "labels": name, "by": [name], "counts": {}}
    scores["judges"]["task"] |= {"name": name, "model": name, "calibration": card, "calibrated": True}
    scores["compliance"]["task"]["S1"]["corrected"] = {
        "method": "rogan-gladen",
        "score": 0.744,
        "interval": [0.61, 0.86],
    }
    text = report(scores, tmp_path)
    assert "0.95 | 0.92 to 0.98 |" in text
    assert "| task | S1 | 0.70 | 0.74 | 0.61 to 0.86 | rogan-gladen |" in text
    assert "uncalibrated" not in text
    found = tables(text)
    assert len(found) == 6
    assert all(len(set(rows)) == 1 for rows in found)
