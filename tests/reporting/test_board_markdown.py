"""The Markdown, CSV and JSON of several runs: the same bytes each time, and whatever a name is, it is text."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.console import Console
from statsmodels.stats.proportion import proportion_confint

from cst_bench.reporting.leaderboard.board import Leaderboard
from cst_bench.reporting.leaderboard.build import make_leaderboard
from cst_bench.reporting.leaderboard.markdown import markdown_report
from cst_bench.reporting.leaderboard.tabular import csv_report, json_report
from cst_bench.reporting.leaderboard.write import write_reports
from cst_bench.reporting.stored_run import read_run
from cst_bench.reporting.terminal import leaderboard_table
from tests.cli.invoke import invoke
from tests.reporting.stored_runs import make_run

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
HOSTILE = [
    "a | b",
    "<script>alert(1)</script>",
    "[x](https://example.com)",
    "**bold** _it_ `code`",
    "$x^2$ & \\textbf{x} #1 % ~",
    "=1+1",
    "x" * 200,
    "[red]markup[/red]",
    "line\nbreak",
    "\u202egnirts",
]
RATES = {"S1": 0.7, "S0": 0.85, "S_RP": 0.8, "S_A": 0.95}


def boards(folder: Path, names: list[str]) -> Leaderboard:
    runs = [
        read_run(make_run(folder / f"{at:02}", name, {**RATES, "S1": at / 40}, base_sha=f"{at:064}"))
        for at, name in enumerate(names)
    ]
    return make_leaderboard(runs)


@pytest.mark.parametrize("count", [1, 3, 30])
def test_every_model_has_a_line_in_every_table(tmp_path: Path, count: int) -> None:
    names = [f"model-{at}" for at in range(count)]
    text = markdown_report(boards(tmp_path, names), [])
    tables = [part for part in text.split("\n\n") if part.startswith("| Model | S1")]
    assert len(tables) == 2  # the leaderboard's and Table II
    for table in tables:
        lines = table.splitlines()
        assert [line.split(" |")[0] for line in lines[2:]] == [f"| {name}" for name in names]
        assert len({line.count(" |") for line in lines[2:]}) == 1


def test_the_papers_tables_carry_the_marks(tmp_path: Path) -> None:
    board = make_leaderboard([read_run(make_run(tmp_path / "a", "a", {}, unscored=["S1"]))])
    text = markdown_report(board, [])
    table = text[text.index("### Table II") :].split("###")[1]
    assert "–<sup>x</sup>" in table


def test_hostile_names_are_text(tmp_path: Path) -> None:
    text = markdown_report(boards(tmp_path, HOSTILE), [])
    tokens = MARKDOWN.parse(text)
    kinds = {child.type for token in tokens for child in token.children or []}
    assert not kinds & {"link_open", "image", "em_open", "code_inline"}
    html = {child.content for token in tokens for child in token.children or [] if child.type == "html_inline"}
    assert html <= {"<br>", "<sub>", "</sub>", "<sup>", "</sup>", "<!-- -->"}
    blocks = [token.content for token in tokens if token.type == "html_block"]
    assert all(block.startswith(("<details>", "</details>")) for block in blocks)
    assert "<script" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and "n 40" in line]
    assert len({line.count(" |") for line in rows if "<sub>n 160</sub>" in line}) == 1


def test_nothing_scored_is_a_dash_and_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "a", RATES, unscored=list(RATES), documents=0)
    text = markdown_report(make_leaderboard([read_run(run)]), [])
    assert "| a | –<sup>x</sup><br><sub>–</sub><br><sub>n 0, 40 unscored (0.00–1.00)</sub> |" in text
    assert "more than 2% of the responses are unscored" in text


def test_csv_has_every_score_in_full_and_no_formula(tmp_path: Path) -> None:
    board = boards(tmp_path, HOSTILE)
    rows = list(csv.DictReader(io.StringIO(csv_report(board))))
    cells = [cell for row in board.sections[0].rows for cell in row.cells.values()]
    assert [float(row["score"]) for row in rows] == [cell.score for cell in cells]
    assert [float(row["low"]) for row in rows] == [cell.interval and cell.interval[0] for cell in cells]
    assert not any(value.startswith(("=", "+", "@")) for row in rows for value in row.values())
    assert "'=1+1" in {row["model"] for row in rows}


def test_json_is_the_content(tmp_path: Path) -> None:
    board = boards(tmp_path, ["a", "b"])
    read = json.loads(json_report(board))
    (section,) = read["sections"]
    assert [model["model"] for model in section["models"]] == ["a", "b"]
    assert section["models"][1]["scores"]["truthy/S_A"]["score"] == 0.95
    assert str(tmp_path) not in json.dumps(read)


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, name, RATES, base_sha=name * 64) for name in "ab"]
    formats = ("md", "csv", "json")
    for out in ("one", "two"):
        write_reports(runs, tmp_path / out, formats)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) > len(formats)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
    text = (tmp_path / "one" / "report.md").read_text()
    assert str(tmp_path) not in text
    for line in text.splitlines():
        if line.startswith("!["):
            assert (tmp_path / "one" / line.rpartition("](")[2].rstrip(")")).is_file()


def test_the_terminal_shows_all_in_80_columns(tmp_path: Path) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(leaderboard_table(boards(tmp_path, [*HOSTILE[:6], HOSTILE[7]])))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "[red]" in text
    low, high = proportion_confint(34, 40, method="wilson")
    assert text.count(f"{low:.2f}–{high:.2f}") == 7  # S0 of each


def test_the_command_line_writes_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        make_run(tmp_path / "runs" / name, name, RATES, base_sha=name * 64)
    out = tmp_path / "out"
    given = ("report", str(tmp_path / "runs"), "--out", str(out))
    done = invoke(capsys, monkeypatch, *given, "--format", "csv", "--format", "md", "--title", "Mine")
    assert done.status == 0
    assert (out / "report.md").read_text().startswith("# Mine\n")
    assert "report.csv" in done.out
    assert "\x1b" not in done.out
    for wrong, said in (
        (("--show-text",), "--show-text needs --generations"),
        (("--model-card", str(tmp_path / "README.md")), "--model-card takes the scores of one run, but 2 were given"),
        (("--format", "docx"), "docx"),
    ):
        refused = invoke(capsys, monkeypatch, *given, *wrong)
        assert refused.status == 2
        assert said in " ".join(refused.err.split())
