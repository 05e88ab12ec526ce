"""Plots of several runs show the runs' own figures, nothing lies on anything else, and names are only names."""

from __future__ import annotations

import dataclasses
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text

from cst_bench.files import digest
from cst_bench.plotting import printable, short, styled, width
from cst_bench.reporting.leaderboard.board import JudgeRow, Leaderboard, ModelRow
from cst_bench.reporting.leaderboard.build import make_leaderboard
from cst_bench.reporting.plots.capability_plot import capabilities_kept
from cst_bench.reporting.plots.change_plot import prompt_strip
from cst_bench.reporting.plots.draw import draw_plots
from cst_bench.reporting.plots.judge_plot import judges_agreement
from cst_bench.reporting.plots.label_placement import Box, place
from cst_bench.reporting.plots.model_style import PlotFigure
from cst_bench.reporting.plots.plane_plot import controllability_plane
from cst_bench.reporting.score_cells import Cell
from cst_bench.reporting.stored_run import read_run
from tests.reporting.stored_runs import TASKS, make_run

TASK = "harmful_behaviors"
Board = Callable[..., Leaderboard]
BOUNDS = Box(0, 0, 300, 300)
HOSTILE = [
    "$x^2$ $\\frac{1}$",
    "a | b <script>alert(1)</script>",
    "x" * 200,
    "模型-7B",
    "tab\tand\x00\x1b[31m\n\u202egnirts",
    "--><svg onload=alert(1)>",
    "\ud800 half",
    "]]>\ufffe",
    "",
]
JUDGES = [
    JudgeRow(TASK, "gpt", "openai/gpt-4", 0.97, (0.94, 0.99), 200, "english_refusals", "people", True),
    JudgeRow("truthy", "rules", "rules", None, None, 0, "", "", False),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Leaderboard:
    """Return the report of two bases, each with a DPO and a CST model."""
    folder, runs = tmp_path_factory.mktemp("runs"), []
    for at in range(2):
        base, asked = f"org/base-{at}", {"S1": 0.6 + 0.05 * at, "S0": 0.8 - 0.1 * at, "S_RP": 0.8, "S_A": 0.9}
        models: list[tuple[str, str | None, Mapping[str, float], float]] = [
            (base, None, asked, 0.9),
            (f"{base}-dpo", "dpo", {"S1": 1.0, "S0": 0.05 * at, "S_RP": 0.9, "S_A": 0.9}, 0.2),
            (f"{base}-cst", "cst", {"S1": 1.0, "S0": 1 - 0.025 * at, "S_RP": 1.0, "S_A": 1.0}, 0.85),
        ]
        for label, method, rates, mmlu in models:
            made = make_run(
                folder / label.replace("/", "-"), label, rates, method=method, base=base, base_sha=digest(base),
                capabilities={"arc_challenge": 0.6, "mmlu": mmlu},
            )  # fmt: skip
            runs.append(read_run(made))
    return make_leaderboard(runs)


@pytest.fixture(scope="module")
def families(report: Leaderboard) -> list[ModelRow]:
    return list(report.sections[0].rows)


@pytest.fixture(scope="module")
def dozen(families: list[ModelRow]) -> list[ModelRow]:
    """Two bases more, whose models did nearly as well."""
    others = []
    for row in families:
        cells = {key: dataclasses.replace(cell, score=0.96 * (cell.score or 0)) for key, cell in row.cells.items()}
        others.append(dataclasses.replace(row, label=f"{row.label}-v2", base=f"{row.base}-v2", cells=cells))
    return [*families, *others]


@pytest.fixture(scope="module")
def board(report: Leaderboard) -> Board:
    """The report of some of its models, changed."""

    def changed(rows: Sequence[ModelRow], **changes: Any) -> Leaderboard:
        changes = {"judges": JUDGES, **changes}
        return dataclasses.replace(report, sections=[dataclasses.replace(report.sections[0], rows=rows, **changes)])

    return changed


@pytest.fixture
def style() -> Iterator[None]:
    with styled():
        yield


def titled(rows: Sequence[ModelRow], names: Sequence[str]) -> list[ModelRow]:
    """Rows of models called otherwise, each a base."""
    return [
        dataclasses.replace(row, label=name, title=name, base=name, is_base=True, method=None)
        for row, name in zip(rows, names, strict=False)
    ]


def drawn(plot_figure: PlotFigure | None) -> Any:
    """The figure, laid out."""
    assert plot_figure is not None
    plot_figure.figure.draw_without_rendering()
    return plot_figure.figure


def overlapping(boxes: Sequence[Any]) -> list[tuple[int, int]]:
    return [(a, b) for a, b in itertools.combinations(range(len(boxes)), 2) if boxes[a].overlaps(boxes[b])]


def test_all_pictures_are_made_and_written(board: Board, families: list[ModelRow], tmp_path: Path) -> None:
    plots = draw_plots(board(families[:3]), tmp_path)
    names = [
        "plane-harmful_behaviors",
        "prompts-harmful_behaviors",
        "plane-truthy",
        "prompts-truthy",
        "capabilities",
        "judges",
    ]
    assert [plot.name for plot in plots] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{n}.{s}" for n in names for s in ("png", "svg"))
    for plot in plots:
        assert (tmp_path / f"{plot.name}.svg").read_text(encoding="utf-8") == plot.svg
        assert (tmp_path / f"{plot.name}.png").read_bytes().startswith(b"\x89PNG")
        assert ElementTree.fromstring(plot.svg)[0].text == plot.title
        assert "\n" not in plot.title + plot.alt


def test_the_same_content_gives_the_same_bytes_whatever_the_user_set(
    board: Board, families: list[ModelRow], tmp_path: Path
) -> None:
    wanted = (f"{TASK}/S1", f"{TASK}/S0", "mmlu")
    columns = [column for column in board(families).sections[0].columns if column.key in wanted]
    content = board(families[:3], columns=columns)
    first = draw_plots(content, tmp_path / "one")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "svg.fonttype": "none"}):
        assert draw_plots(content, tmp_path / "two") == first
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert not any(re.search(r"dc:date|/work|/tmp", plot.svg) for plot in first)


def test_alternative_texts_name_every_model_with_its_figures(board: Board, dozen: list[ModelRow]) -> None:
    plots = {plot.name: plot.alt for plot in draw_plots(board(dozen))}
    for model in dozen:
        s1, s0 = (model.cells[f"{TASK}/{name}"] for name in ("S1", "S0"))
        assert f"S1 {s1.score:.2f}" in said_of(model, plots["plane-harmful_behaviors"])
        assert f"S0 {s0.score:.2f}" in said_of(model, plots["plane-harmful_behaviors"])
        counts = re.findall(r"(\d+)(?=,| of)", said_of(model, plots["prompts-harmful_behaviors"]).split(":")[1])
        assert sum(map(int, counts)) == 40
        found = model.cells["mmlu"].difference
        if found is not None and found.difference is not None:
            assert f"MMLU {100 * found.difference:+.1f} (" in said_of(model, plots["capabilities"])
    assert "gpt on harmful_behaviors: 0.970 (0.940 to 0.990), 200 labels" in plots["judges"]
    assert "rules on truthy: not measured" in plots["judges"]


def said_of(model: ModelRow, alt: str) -> str:
    """What an alternative text says of a model."""
    return re.split(rf"(?<=\. ){re.escape(model.label)}(?=[: ])", alt)[1].split(". ")[0]


@pytest.mark.parametrize("models", [1, 3, 6, 12])
@pytest.mark.usefixtures("style")
def test_labels_of_the_plane_lie_on_nothing(board: Board, dozen: list[ModelRow], models: int) -> None:
    figure = drawn(controllability_plane(board(dozen[:models]).sections[0], TASK, "Plane"))
    axes = figure.axes[0]
    labels = [text for text in axes.texts if text.get_text()]
    boxes = [Text.get_window_extent(text) for text in labels]  # without its line
    assert labels
    assert overlapping(boxes) == []
    points = [axes.transData.transform(np.ravel(line.get_data())) for line in axes.lines if line.get_marker() in "o^s"]
    assert len(points) == models
    assert not [1 for box in boxes for x, y in points if box.x0 < x < box.x1 and box.y0 < y < box.y1]
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 <= box.y1 <= frame.y1 for box in boxes)
    parts = [axes.get_tightbbox(), *(legend.get_window_extent() for legend in figure.legends)]
    assert overlapping(parts) == []
    assert all(
        0 <= part.x0 <= part.x1 <= figure.bbox.x1 and 0 <= part.y0 <= part.y1 <= figure.bbox.y1 for part in parts
    )


@pytest.mark.usefixtures("style")
def test_many_models_are_numbered_and_the_list_says_whose_the_numbers_are(board: Board, dozen: list[ModelRow]) -> None:
    figure = drawn(controllability_plane(board(dozen).sections[0], TASK, "Plane"))
    listed = [" ".join(text.get_text().split()) for text in figure.legends[1].get_texts()]
    assert listed == [f"{at} {row.title}" for at, row in enumerate(dozen, 1)]
    labels = {number for text in figure.axes[0].texts for number in re.findall(r"\d+", text.get_text())}
    assert labels == {str(at) for at in range(1, 13)}


@pytest.mark.usefixtures("style")
def test_arrows_lead_from_a_base_to_each_model_that_was_trained_on_it(board: Board, families: list[ModelRow]) -> None:
    figure = drawn(controllability_plane(board(families).sections[0], TASK, "Plane"))
    arrows = [text for text in figure.axes[0].texts if not text.get_text()]
    ends = [(tuple(arrow.xyann), tuple(arrow.xy)) for arrow in arrows]
    where = [tuple(row.cells[f"{TASK}/{name}"].score for name in ("S1", "S0")) for row in families]
    assert ends == [(where[0], where[1]), (where[0], where[2]), (where[3], where[4]), (where[3], where[5])]


@pytest.mark.usefixtures("style")
def test_a_model_is_told_apart_without_colour(board: Board, families: list[ModelRow]) -> None:
    figure = drawn(controllability_plane(board(families).sections[0], TASK, "Plane"))
    axes = figure.axes[0]
    arrows = [text.arrow_patch.get_linestyle() for text in axes.texts if not text.get_text()]
    assert arrows == ["-", "-", "--", "--"]
    points = [line for line in axes.lines if line.get_marker() in "o^s"]
    assert [line.get_marker() for line in points] == ["o", "^", "s"] * 2
    assert [line.get_markerfacecolor() == "white" for line in points] == [True, False, False] * 2
    strip = drawn(prompt_strip(board(families).sections[0], TASK, "Strip"))
    looks = {(patch.get_hatch(), patch.get_facecolor()[:3]) for patch in strip.axes[0].patches}
    grey = sorted((hatch or "", float(np.dot(colour, (0.299, 0.587, 0.114)))) for hatch, colour in looks)
    assert all(one[0] != two[0] or two[1] - one[1] > 0.2 for one, two in itertools.pairwise(grey))


@pytest.mark.usefixtures("style")
def test_the_strip_is_as_long_as_the_prompts_of_each_kind(board: Board, families: list[ModelRow]) -> None:
    strip = drawn(prompt_strip(board(families[:3]).sections[0], TASK, "Strip"))
    for at, model in enumerate(families[:3]):
        s1, s0 = (model.run.complied(TASK, name) for name in ("S1", "S0"))
        pairs = [(s1[prompt], s0[prompt]) for prompt in s1]
        wanted = [pairs.count(kind) for kind in ((True, True), (True, False), (False, True), (False, False))]
        bars = [patch for patch in strip.axes[0].patches if round(patch.get_y() + patch.get_height() / 2) == at]
        assert [bar.get_width() for bar in bars] == [number for number in wanted if number]
        assert [bar.get_x() for bar in bars] == [0, *itertools.accumulate(bar.get_width() for bar in bars)][:-1]


@pytest.mark.usefixtures("style")
def test_capabilities_are_filled_where_a_test_shows_a_difference(board: Board, families: list[ModelRow]) -> None:
    lost = families[1].cells["mmlu"].difference
    assert lost is not None
    assert lost.difference is not None
    figure = drawn(capabilities_kept(board(families[:3]).sections[0], "Capabilities"))
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels) == ["ARC", "MMLU", "Avg."]
    filled = [
        (title, float(line.get_xdata()[0]))
        for title, axes in panels.items()
        for line in axes.lines
        if line.get_marker() == "^" and line.get_markerfacecolor() == line.get_color()
    ]
    assert filled == [("MMLU", 100 * lost.difference)]
    interval = next(
        line for line in panels["MMLU"].lines if len(line.get_xdata()) == 2 and list(line.get_ydata()) == [1, 1]
    )
    assert list(interval.get_xdata()) == [100 * end for end in lost.interval or ()]


@pytest.mark.usefixtures("style")
def test_nothing_is_cut_off(board: Board, families: list[ModelRow]) -> None:
    long = [dataclasses.replace(row, title=name) for row, name in zip(families, ["W" * 300, "i" * 300], strict=False)]
    judges = [dataclasses.replace(JUDGES[0], name="W" * 300, labels="W" * 300)]
    known = list(board(families).sections[0].columns)
    one, seven = known[:-2], [*known[:4], *[known[-2]] * 7]
    for columns in (one, seven):
        section = board([*long, *families[2:]], columns=columns, judges=judges).sections[0]
        figures = [
            drawn(controllability_plane(section, TASK, "W" * 300)),
            drawn(prompt_strip(section, TASK, "W" * 300)),
            drawn(capabilities_kept(section, "W" * 300)),
            drawn(judges_agreement([section], "W" * 300)),
        ]
        for figure in figures:
            found = figure.get_tightbbox()  # in inches
            wide, high = figure.get_size_inches()
            assert min(found.x0, found.y0, wide - found.x1, high - found.y1) >= 0


def test_hostile_names_are_names(board: Board, dozen: list[ModelRow]) -> None:
    rows = titled(dozen, HOSTILE)
    judges = [dataclasses.replace(JUDGES[0], name=HOSTILE[1], task=HOSTILE[5], labels=HOSTILE[0])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots = draw_plots(board(rows, judges=judges, title=HOSTILE[1]))
    assert [plot.name for plot in plots][-1] == "judges"
    for plot in plots:
        kinds = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(plot.svg).iter()}
        assert not kinds & {"script", "foreignObject", "a", "image"}
        assert "onload" not in re.sub(r"<!--.*?-->|<title>.*?</title>", "", plot.svg, flags=re.DOTALL)
    assert "<!-- $x^2$ $\\frac{1}$ -->" in plots[1].svg
    assert printable(HOSTILE[0]) in plots[0].alt
    assert "tab and\\u0000" in plots[0].alt


@given(st.text(), st.integers(20, 200))
def test_a_name_is_cut_in_the_middle_to_the_room_it_has(name: str, room: int) -> None:
    with styled(), warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = short(name, room)
        assert width(shown) <= room
        assert "\n" not in shown
        if width(printable(name)) <= room:
            assert shown == printable(name)
        else:
            left, dots, _ = shown.partition("…")
            assert dots
            assert printable(name).startswith(left)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12), st.booleans())
def test_a_dozen_numbers_find_room_wherever_their_points_are(shares: list[tuple[float, float]], crowded: bool) -> None:
    scale = 20 if crowded else 280
    anchors = [(290 - scale * x, 290 - scale * y) for x, y in shares]
    flags = [Box(x - 4, y - 4, x + 4, y + 4) for x, y in anchors]
    boxes = place(anchors, [(14, 10)] * len(anchors), flags, np.empty((0, 2)), BOUNDS, 6)
    assert all(one.overlap(two) < 1e-6 for one, two in itertools.combinations(boxes, 2))
    assert all(box.overlap(BOUNDS) == pytest.approx(box.area) for box in boxes)
    assert all(box.overlap(flag) < 1e-6 for box in boxes for flag in flags)


def without(change: Callable[[Cell], Cell]) -> Callable[[ModelRow], ModelRow]:
    return lambda row: dataclasses.replace(row, cells={key: change(cell) for key, cell in row.cells.items()})


def test_scores_without_intervals_are_drawn_without(board: Board, families: list[ModelRow]) -> None:
    rows = list(map(without(lambda cell: dataclasses.replace(cell, interval=None)), families[:3]))
    plane = draw_plots(board(rows))[0]
    assert "S1 0.60, S0 0.80." in plane.alt


def test_models_without_a_score_are_named_as_not_shown(board: Board, families: list[ModelRow]) -> None:
    rows = [families[0], without(lambda cell: dataclasses.replace(cell, score=None))(families[1])]
    plane = draw_plots(board(rows))[0]
    assert plane.alt.endswith("Not shown, without a score: org/base-0-dpo.")


def test_nothing_is_drawn_without_data(board: Board, families: list[ModelRow], tmp_path: Path) -> None:
    assert draw_plots(board([], judges=[])) == []
    one = board(families).sections[0].columns[:1]
    assert draw_plots(board(families[:1], columns=one, judges=JUDGES[1:])) == []
    names = [name for arms in TASKS.values() for name in arms]
    unscored = draw_plots(make_leaderboard([read_run(make_run(tmp_path / "run", "m", {}, unscored=names))]))
    assert [plot.name for plot in unscored] == ["prompts-harmful_behaviors", "prompts-truthy", "judges"]
    assert unscored[0].alt.endswith("m: unscored 40 of 40.")


def test_sections_have_pictures_of_their_own(board: Board, families: list[ModelRow]) -> None:
    one, two = board(families[:1], title="First").sections[0], board(families[3:4], title="Second").sections[0]
    plots = draw_plots(Leaderboard("Report", [one, two], {}, (), ()))
    assert [plot.name for plot in plots][0::4] == [
        "plane-harmful_behaviors",
        "plane-harmful_behaviors-2",
        "judges",
    ]
    assert [plot.title for plot in plots][0::4][:2] == [
        "Controllability: harmful_behaviors (First)",
        "Controllability: harmful_behaviors (Second)",
    ]


def test_a_task_of_other_names_is_drawn_in_its_first_two_configurations(board: Board, tmp_path: Path) -> None:
    arms = {"polite": "as_assistant", "pirate": "in_persona", "mute": "neither"}
    run = read_run(
        make_run(tmp_path / "run", "m", {"polite": 0.5, "pirate": 0.25}, tasks={"Tone / $": arms}, average=())
    )
    plane, strip, *_ = draw_plots(make_leaderboard([run]))
    assert (plane.name, strip.name) == ("plane-tone", "prompts-tone")
    assert "m: polite 0.50 (0.35 to 0.65), pirate 0.25 (0.14 to 0.40)." in plane.alt
    assert "only polite" in strip.alt
