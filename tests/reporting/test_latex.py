"""The LaTeX report compiles whatever anything is called, and shows it all."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from cst_bench.reporting.leaderboard.board import Leaderboard
from cst_bench.reporting.leaderboard.latex import latex_report, tex
from tests.reporting.boards import HOSTILE, bare, family, of_size, renamed

LATEX = shutil.which("pdflatex") or shutil.which("tectonic")
PLAIN = r"[A-Za-z0-9 !().,/:;=?@+\-\u00a1-\u00ac\u00ae-\u00ff]"
NAMED = {
    "textbackslash": "\\", "textasciicircum": "^", "textasciitilde": "~", "textbar": "|", "textless": "<",
    "textgreater": ">", "textquotedbl": '"', "textquotesingle": "'", "textasciigrave": "`", "textendash": "–",
    "textemdash": "—", "textquoteleft": "‘", "textquoteright": "’", "textquotedblleft": "“", "textquotedblright": "”",
    "textellipsis": "…", "allowbreak": "",
}  # fmt: skip
TOKEN = re.compile(
    r"\\texttt\{U\+(?P<number>[0-9A-F]{4,6})\}"
    r"|\\(?P<name>[a-z]+)\{\}"
    r"|\\(?P<symbol>[{}%&#_$])"
    r"|\{(?P<held>[\[\]*])\}"
    r"|(?P<minus>\$-\$)"
    r"|(?P<nothing>\{\})"
    rf"|(?P<plain>{PLAIN})"
)
LIGATURES = ("--", ",,", "``", "''", "<<", ">>", "?`", "!`")


def read(source: str) -> str:
    """What escaped text stands for; fails on anything that TeX would take for more than a character."""
    shown, at = [], 0
    while at < len(source):
        token = TOKEN.match(source, at)
        assert token, f"not safe: {source[at : at + 20]!r} in {source!r}"
        found = token.groupdict()
        if found["number"]:
            shown.append(chr(int(found["number"], 16)))
        elif found["name"]:
            shown.append(NAMED[found["name"]])
        elif found["minus"]:
            shown.append("−")
        else:
            shown.append(found["symbol"] or found["held"] or found["plain"] or "")
        at = token.end()
    return "".join(shown)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Leaderboard:
    return family(tmp_path_factory.mktemp("runs"))


@given(st.text() | st.text(st.sampled_from("\\{}%&#_$^~|<>\"'`-,[]*–—‘’“”…− ab\n")))
def test_any_text_is_escaped_and_stands_for_itself(text: str) -> None:
    escaped = tex(text)
    assert read(escaped) == " ".join(text.split())
    assert not any(ligature in escaped for ligature in LIGATURES)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_escaped(text: str) -> None:
    assert read(tex(text)) == " ".join(text.split())


def test_a_character_that_fonts_may_lack_is_shown_by_its_number() -> None:
    assert tex("中") == r"\texttt{U+4E2D}"
    assert tex("\u202e\x00") == r"\texttt{U+202E}\texttt{U+0000}"


def test_long_names_may_be_broken_and_short_ones_not() -> None:
    assert tex("x" * 24) == "x" * 12 + r"\allowbreak{}" + "x" * 12
    assert tex("org/model-name-7B") == r"org/\allowbreak{}model-\allowbreak{}name-\allowbreak{}7B"
    assert tex("tiny_run") == r"tiny\_run"


def test_none_is_a_dash_and_what_the_template_made_is_left_alone() -> None:
    assert tex(None) == r"\textendash{}"
    assert tex(Markup(r"\textbf{1}")) == r"\textbf{1}"


def lines(source: str, title: str) -> list[list[str]]:
    """The cells of a table's rows, by the title above it."""
    body = source.partition(rf"\textbf{{{title}}}")[2].partition(r"\endfoot")[2].partition(r"\end{longtable}")[0]
    rows = " ".join(body.split()).split(r"\\")[:-1]
    return [[cell.strip() for cell in row.split(" & ")] for row in rows]


def test_the_leaderboard_has_scores_intervals_n_and_differences(board: Leaderboard) -> None:
    base, dpo, cst = lines(latex_report(board), "Compliance")
    for row, cells in zip(board.sections[0].rows, (base, dpo, cst), strict=True):
        for column, cell in zip(board.sections[0].columns, cells[1:], strict=False):
            found = row.cells[column.key]
            assert found.interval is not None
            low, high = found.interval
            shown = cell.replace(r"\textbf{", "").replace("}", "", 1) if found.best else cell
            assert shown.startswith(
                rf"{found.score:.2f}\below{{{low:.2f}\textendash{{}}{high:.2f}}}\below{{n {found.n}}}"
            )
            assert found.best is cell.startswith(r"\textbf{")
            assert (r"\Delta" in cell) is (row is not board.sections[0].rows[0])
    assert r"\below{$\Delta$ $-$0.78}" in dpo[2]
    assert any(cell.startswith(r"\textbf{") for cell in cst)


def test_the_papers_tables_have_the_published_values(board: Leaderboard) -> None:
    source = latex_report(board)
    assert lines(source, "Table II: several tasks")[1][2].startswith(r"0.12 {\scriptsize(0.12)}\below{")
    assert r"{\scriptsize(64.9)}" in lines(source, "Table III: capabilities")[0][1]


def test_every_part_of_the_content_is_there(board: Leaderboard) -> None:
    source = latex_report(board)
    for said in (
        "lost\\below{mid-p McNemar}", tex("openai/gpt-4"), tex("rogan-gladen"), r"0.61\below{0.52\textendash{}0.69}",
        "A note.", "Not ranked with the models above", "another judge", "uncalibrated: ", "unscored: ",
        r"\below{10 unscored", "weights, SHA-256", tex("transformers"),
    ):  # fmt: skip
        assert said in source
    for run in board.runs:
        assert rf"\subsection*{{{tex(run.label)}}}" in source


def test_the_same_content_gives_the_same_bytes(board: Leaderboard) -> None:
    assert latex_report(board) == latex_report(board)


def test_wide_tables_are_continued_in_another(board: Leaderboard) -> None:
    section = board.sections[0]
    compliance = [column for column in section.columns if not column.percent]
    assert len(compliance) == 7
    twice = dataclasses.replace(section, columns=[*compliance, *compliance])
    source = latex_report(dataclasses.replace(board, sections=[twice]))
    assert source.count(r"\textbf{Compliance}") == 2


@pytest.mark.skipif(LATEX is None, reason="no LaTeX here")
@pytest.mark.parametrize("content", ["family", "one", "thirty", "hostile", "latin", "bare", "empty"])
def test_it_compiles_and_nothing_sticks_out(board: Leaderboard, content: str, tmp_path: Path) -> None:
    assert LATEX is not None
    names, latin = itertools.cycle(HOSTILE), "".join(map(chr, (*range(0x20, 0x7F), *range(0xA0, 0x100))))
    contents: dict[str, Callable[[], Leaderboard]] = {
        "family": lambda: board,
        "one": lambda: of_size(board, 1),
        "thirty": lambda: of_size(board, 30),
        "hostile": lambda: renamed(board, lambda: next(names)),
        "latin": lambda: renamed(board, lambda: latin + "–—‘’“”…−"),
        "bare": lambda: bare(board),
        "empty": lambda: Leaderboard("Empty", (), {}, (), ()),
    }
    (tmp_path / "report.tex").write_text(latex_report(contents[content]()), encoding="utf-8")
    options = ["-interaction=nonstopmode", "-halt-on-error"] if LATEX.endswith("pdflatex") else ["--keep-logs"]
    done = subprocess.run([LATEX, *options, "report.tex"], cwd=tmp_path, capture_output=True, timeout=120)
    log = (tmp_path / "report.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert (tmp_path / "report.pdf").stat().st_size > 1000
    assert "Missing character" not in log
    if content in ("family", "one", "thirty"):
        assert "Overfull" not in log
