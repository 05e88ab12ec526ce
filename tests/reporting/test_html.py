"""The HTML report is one safe file with the runs' own figures, readable and sortable on any screen."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cst_bench.escape import visible
from cst_bench.reporting.leaderboard.board import Leaderboard
from cst_bench.reporting.leaderboard.html import html_report
from cst_bench.reporting.plots.draw import Plot
from tests.reporting.boards import HOSTILE, bare, family, of_size, renamed
from tests.reporting.browser import CHROMIUM, Page, browser

VOID = {"meta", "img", "wbr"}
PICTURE = Plot(
    "plane",
    "A <b>plane</b>",
    'S1 "and" S0 <i>&</i>',
    '<svg xmlns="http://www.w3.org/2000/svg" width="360pt" height="90pt" viewBox="0 0 360 90">'
    '<style>rect{fill:#0072b2}</style><rect width="360" height="90"/></svg>',
)


class Reader(HTMLParser):
    """What a browser would find: elements with their attributes, in order, and the text of each table's cells."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.tables: list[list[list[tuple[str, str | None]]]] = []
        """Tables of rows of cells: (text, data-value)."""
        self.inline: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append(("", dict(attrs).get("data-value")))
        if tag == "small":
            self.handle_data(" ")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("style", "script"):
            self.inline[self._open[-1]] = data
            return
        self.text.append(data)
        if {"td", "th"} & set(self._open):
            text, value = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = (text + data, value)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Leaderboard:
    return family(tmp_path_factory.mktemp("runs"))


def shape(page: str) -> list[tuple[str, tuple[str, ...]]]:
    """Elements and their attributes' names, without the places where a name may be broken."""
    return [(tag, tuple(found)) for tag, found in Reader(page).elements if tag != "wbr"]


def test_the_leaderboard_has_the_scores_of_scores_json(board: Leaderboard) -> None:
    table = Reader(html_report(board)).tables[0]
    section = board.sections[0]
    for row, cells in zip(section.rows, table[1:], strict=True):
        stored = row.run.scores.compliance
        assert cells[0][1] == row.label
        for column, (text, value) in zip(section.columns, cells[1:], strict=False):
            if column.kind == "compliance":
                score = stored[str(column.task)].configurations[column.title]
                assert score.interval is not None
                assert float(value or "nan") == score.score
                low, high = score.interval
                assert text.split()[:4] == [f"{score.score:.2f}", f"{low:.2f}–{high:.2f}", "n", str(score.n)]


def test_trained_models_show_their_difference_to_the_base_and_bases_none(board: Leaderboard) -> None:
    base, dpo, _ = Reader(html_report(board)).tables[0][1:]
    assert "Δ −0.78" in " ".join(dpo[2][0].split())
    assert not any("Δ" in text for text, _ in base)


def test_published_values_stand_in_brackets_in_the_papers_tables_alone(board: Leaderboard) -> None:
    tables = Reader(html_report(board)).tables
    titled = {table[1][1][0].split()[1] for table in tables if len(table) == 4 and "(" in table[1][1][0]}
    assert titled == {"(0.73)", "(64.9)"}
    assert not any("(" in text for row in tables[0] for text, _ in row[1:])


def test_every_part_of_the_content_is_there(board: Leaderboard) -> None:
    page = html_report(board, [PICTURE])
    text = " ".join("".join(Reader(page).text).split())
    for said in (
        "Table II", "Table III", "lost", "mid-p McNemar", "openai/gpt-4", "english_refusals", "rogan-gladen",
            "0.52–0.69",
        "A note.", "Not ranked with the models above", "another judge", "uncalibrated:", "unscored:", "10 unscored",
        "weights, SHA-256", "transformers",
    ):  # fmt: skip
        assert said in text
    assert re.search(r"<b>0\.\d\d</b>", page), "something is really ahead in this content"
    for section in board.sections:
        for reason in section.why:
            assert reason in text


def test_a_policy_allows_the_pages_own_style_and_script_by_hash_and_no_network(board: Leaderboard) -> None:
    reader = Reader(html_report(board, [PICTURE]))
    found = [tag for tag, at in reader.elements if at.get("http-equiv") == "Content-Security-Policy"]
    (policy,) = (at["content"] for _, at in reader.elements if at.get("http-equiv") == "Content-Security-Policy")
    assert len(found) == 1
    hashes = {
        kind: "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
        for kind, text in reader.inline.items()
    }
    assert set((policy or "").split("; ")) == {
        "default-src 'none'", "base-uri 'none'", "form-action 'none'", "img-src data:",
        f"style-src {hashes['style']}", f"script-src {hashes['script']}",
    }  # fmt: skip


def test_links_lead_to_places_on_the_page_only(board: Leaderboard) -> None:
    elements = Reader(html_report(board, [PICTURE])).elements
    ids = [found["id"] for _, found in elements if "id" in found]
    assert len(ids) == len(set(ids))
    links = [found["href"] for _, found in elements if "href" in found]
    assert {link for link in links if link} <= {f"#{name}" for name in ids}
    assert all((found["src"] or "").startswith("data:image/svg+xml;base64,") for _, found in elements if "src" in found)


def test_pictures_are_embedded_with_their_alternative_text(board: Leaderboard) -> None:
    (image,) = (found for tag, found in Reader(html_report(board, [PICTURE])).elements if tag == "img")
    assert image["alt"] == PICTURE.alt
    assert base64.b64decode((image["src"] or "").partition(",")[2]).decode() == PICTURE.svg


@pytest.mark.parametrize("models", [1, 3, 12, 30])
def test_any_number_of_models(board: Leaderboard, models: int) -> None:
    reader = Reader(html_report(of_size(board, models)))
    assert [len(table) for table in reader.tables[:4]] == [models + 1] * 4
    assert sum(tag == "details" for tag, _ in reader.elements) == models


def test_what_is_missing_is_a_dash_or_left_out(board: Leaderboard) -> None:
    reader = Reader(html_report(bare(board)))
    assert {text.strip() for row in reader.tables[0][1:] for text, _ in row[1:]} == {"–", "– n 0"}
    assert {value for row in reader.tables[0][1:] for _, value in row[1:]} == {None}
    text = "".join(reader.text)
    assert "No scores." in text
    assert "judge" not in text.lower().replace("not asked or judged", "")
    assert "No runs." in html_report(Leaderboard("Empty", (), {}, (), ()))


def test_the_same_content_gives_the_same_bytes(board: Leaderboard) -> None:
    assert html_report(board, [PICTURE]) == html_report(board, [PICTURE])


def test_hostile_names_change_no_element_and_are_shown(board: Leaderboard) -> None:
    names = itertools.cycle(HOSTILE)
    page = html_report(renamed(board, lambda: next(names)))
    assert shape(page) == shape(html_report(board))
    text = "".join(Reader(page).text)
    for name in HOSTILE:
        assert "".join(map(visible, name)) in text
    page.encode()


@pytest.fixture(scope="module")
def usual(board: Leaderboard) -> list[tuple[str, tuple[str, ...]]]:
    return shape(html_report(board, [PICTURE]))


@settings(max_examples=25, deadline=None)
@given(name=st.text(max_size=30), alt=st.text(max_size=30))
def test_no_text_becomes_markup(
    board: Leaderboard, usual: list[tuple[str, tuple[str, ...]]], name: str, alt: str
) -> None:
    page = html_report(renamed(board, lambda: name), [Plot("name", name, alt, PICTURE.svg)])
    assert shape(page) == usual


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def written(path: Path, board: Leaderboard, plots: Sequence[Plot] = (PICTURE,)) -> Path:
    path.write_text(html_report(board, plots), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("content", ["one", "family", "thirty", "hostile", "bare"])
def test_a_browser_shows_it_without_a_fault_or_a_request_and_never_scrolls_it_sideways(
    page: Page, board: Leaderboard, content: str, width: int, tmp_path: Path
) -> None:
    names = itertools.cycle(HOSTILE)
    contents = {
        "one": lambda: of_size(board, 1),
        "family": lambda: board,
        "thirty": lambda: of_size(board, 30),
        "hostile": lambda: renamed(board, lambda: next(names)),
        "bare": lambda: bare(board),
    }
    path = written(tmp_path / "report.html", contents[content]())
    backgrounds = set()
    for scheme in ("light", "dark"):
        page.open(path, width, scheme)
        backgrounds.add(page.run("getComputedStyle(document.body).backgroundColor"))
        assert page.faults == []
        assert page.requests[0] == path.as_uri()
        assert all(url.startswith("data:image/svg+xml") for url in page.requests[1:])
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run("[...document.images].every((image) => image.naturalWidth > 0)")
        assert page.run("document.title") != "run"
    assert len(backgrounds) == 2


def test_the_first_column_stays_when_a_table_is_scrolled(page: Page, board: Leaderboard, tmp_path: Path) -> None:
    page.open(written(tmp_path / "report.html", board), 390)
    page.run("box = document.querySelector('.scroll'); box.scrollLeft = 200; box.scrollLeft")
    assert page.run("box.scrollLeft") == 200
    gap = page.run("box.querySelector('tbody th').getBoundingClientRect().left - box.getBoundingClientRect().left")
    assert 0 <= gap <= 2


COLUMN = "[...document.querySelector('table').tBodies[0].rows].map((row) => row.cells[{at}].dataset.value ?? null)"
SORTS = "[...document.querySelectorAll('table:first-of-type')][0].tHead.querySelectorAll('th')"


def test_headers_order_the_rows_by_click_and_by_key_with_undefined_last(
    page: Page, board: Leaderboard, tmp_path: Path
) -> None:
    section = board.sections[0]
    key = section.columns[1].key
    hole = dataclasses.replace(section.rows[0].cells[key], score=None)
    rows = [dataclasses.replace(section.rows[0], cells={**section.rows[0].cells, key: hole}), *section.rows[1:]]
    holed = dataclasses.replace(board, sections=[dataclasses.replace(section, rows=rows)])
    page.open(written(tmp_path / "report.html", holed), 1280)

    dpo, cst = (row.cells[key].score for row in rows[1:])
    assert dpo is not None
    assert cst is not None
    assert dpo < cst

    def values() -> list[float | None]:
        found: list[str | None] = page.run(COLUMN.format(at=2))
        return [None if value is None else float(value) for value in found]

    def sorts() -> list[str]:
        found: list[str] = page.run(f"[...{SORTS}].map((header) => header.getAttribute('aria-sort')).slice(0, 4)")
        return found

    assert (values(), sorts()) == ([None, dpo, cst], ["none"] * 4)
    page.run(f"{SORTS}[2].querySelector('button').click()")
    assert (values(), sorts()) == ([cst, dpo, None], ["none", "none", "descending", "none"])
    page.run(f"{SORTS}[2].querySelector('button').focus()")
    page.press("Enter", 13, "\r")
    assert (values(), sorts()) == ([dpo, cst, None], ["none", "none", "ascending", "none"])
    page.press(" ", 32, " ")
    assert (values(), sorts()) == ([None, dpo, cst], ["none"] * 4)
    page.run(f"{SORTS}[0].querySelector('button').click()")
    labels = page.run(COLUMN.format(at=0))
    assert labels == sorted(row.label for row in rows)


def test_differences_are_ordered_as_numbers_with_their_signs(page: Page, board: Leaderboard, tmp_path: Path) -> None:
    page.open(written(tmp_path / "report.html", board), 1280)
    page.run("table = document.querySelector('#capabilities table'); table.tHead.querySelectorAll('button')[3].click()")
    found = page.run("[...table.tBodies[0].rows].map((row) => Number(row.cells[3].dataset.value))")
    differences = [verdict.difference.difference or 0.0 for verdict in board.sections[0].capabilities]
    assert min(differences) < -0.1 < 0.05 < max(differences)
    assert found == sorted(differences, reverse=True)


def test_a_sorted_model_says_which_base_it_is_under(page: Page, board: Leaderboard, tmp_path: Path) -> None:
    page.open(written(tmp_path / "report.html", board), 1280)
    shown = "getComputedStyle(document.querySelector('tr.under .of')).display !== 'none'"
    assert page.run(shown) is False
    page.run("document.querySelector('thead button').click()")
    assert page.run(shown) is True
