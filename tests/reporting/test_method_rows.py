"""Lines of several training seeds: which runs are one method, what is shown of the seeds, and what is tested."""

from __future__ import annotations

import csv
import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cst_bench.record import Manifest, Scores
from cst_bench.reporting.leaderboard.board import Leaderboard, ModelRow
from cst_bench.reporting.leaderboard.build import make_leaderboard
from cst_bench.reporting.leaderboard.html import html_report
from cst_bench.reporting.leaderboard.latex import latex_report
from cst_bench.reporting.leaderboard.markdown import markdown_report
from cst_bench.reporting.leaderboard.tabular import csv_report, json_report
from cst_bench.reporting.plots.draw import draw_plots
from cst_bench.reporting.stored_run import read_run
from cst_bench.reporting.terminal import leaderboard_table
from tests.reporting.boards import renamed, seeded
from tests.reporting.stored_runs import make_run

BASE = {"S1": 0.7, "S0": 0.85, "S_RP": 0.8, "S_A": 0.95}
CST = {"S1": 1.0, "S0": 0.95, "S_RP": 0.95, "S_A": 1.0}


def trained(folder: Path, seed: int, name: str = "cst", **options: Any) -> Path:
    rates = {**CST, "S0": 0.9 - 0.1 * (seed % 3), **options.pop("rates", {})}
    return make_run(folder / f"{name}-{seed}", f"{name}-{seed}", rates, method="cst", seed=seed, **options)


def rows_of(*folders: Path) -> list[ModelRow]:
    return list(make_leaderboard([read_run(folder) for folder in folders]).sections[0].rows)


def changed_training(folder: Path, **changes: object) -> Path:
    for file in (Manifest, Scores):
        record = file.read(folder)
        checkpoint = record.settings.checkpoint if isinstance(record, Manifest) else record.checkpoint
        assert checkpoint.training is not None
        checkpoint = checkpoint.model_copy(update={"training": checkpoint.training.model_copy(update=changes)})
        if isinstance(record, Manifest):
            settings = record.settings.model_copy(update={"checkpoint": checkpoint})
            record.model_copy(update={"settings": settings}).write(folder)
        else:
            record.model_copy(update={"checkpoint": checkpoint}).write(folder)
    return folder


def test_runs_that_differ_in_the_seed_alone_are_one_line(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", "org/base", BASE)
    runs = [trained(tmp_path, seed) for seed in (2, 0, 1)]
    first, method = rows_of(base, *runs)
    assert (first.runs, list(first.seeds)) == (1, [])
    assert (method.title, method.label, method.runs) == ("+ CST, 3 seeds", "cst, 3 seeds", 3)
    assert [(seed.seed, seed.label) for seed in method.seeds] == [(0, "cst-0"), (1, "cst-1"), (2, "cst-2")]
    s0 = method.cells["harmful_behaviors/S0"]
    assert [seed.cells["harmful_behaviors/S0"].score for seed in method.seeds] == pytest.approx([0.9, 0.8, 0.7])
    assert s0.score == pytest.approx(0.8)
    assert (s0.interval, s0.seeds, s0.n) == (None, 3, 120)
    assert s0.seed_range == pytest.approx((0.7, 0.9))
    assert s0.difference is not None
    assert s0.difference.difference == pytest.approx(0.8 - 0.85)
    assert (s0.difference.interval, s0.difference.p) == (None, None)
    (alone,) = rows_of(*runs)
    assert alone.title == "cst, 3 seeds"


def test_what_differs_in_more_than_the_seed_stays_apart(tmp_path: Path) -> None:
    runs = [
        trained(tmp_path, 0),
        changed_training(trained(tmp_path, 1, "rows"), data_sha256="2" * 64),
        changed_training(trained(tmp_path, 2, "recipe"), recipe_sha256="2" * 64),
        trained(tmp_path, 3, "suite", capabilities={}),
    ]
    assert [row.label for row in rows_of(*runs)] == ["cst-0", "rows-1", "recipe-2", "suite-3"]


def test_one_seed_measured_twice_is_not_two_seeds(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", "org/base", BASE)
    rows = rows_of(base, trained(tmp_path, 1, "one"), trained(tmp_path, 1, "two"), trained(tmp_path, 2, "one"))
    assert [row.runs for row in rows] == [1, 1, 1, 1]
    assert [row.title for row in rows[1:]] == ["+ CST, one-1", "+ CST, two-1", "+ CST, seed 2"]


def test_five_seeds_have_an_interval_over_seeds_and_prompts_in_every_column(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", "org/base", {**BASE, "S1": 0.2})
    first, method = rows_of(base, *(trained(tmp_path, seed) for seed in range(5)))
    for key, cell in method.cells.items():
        own = [seed.cells[key].interval for seed in method.seeds]
        scores = [seed.cells[key].score for seed in method.seeds]
        assert cell.score == pytest.approx(sum(score or 0 for score in scores) / 5)
        assert cell.interval is not None
        assert cell.interval[0] <= (cell.score or 0) <= cell.interval[1]
        widths = [ends[1] - ends[0] for ends in own if ends is not None]
        assert cell.interval[1] - cell.interval[0] >= min(widths) - 1e-12
        assert cell.difference is not None
        assert cell.difference.interval is not None
        assert cell.difference.p is not None
    assert {key for key, cell in method.cells.items() if cell.best} >= {"harmful_behaviors/S1"}
    assert not any(cell.best for cell in first.cells.values())
    assert {verdict.kept for verdict in make_leaderboard([row.run for row in (first, method)]).sections[0].capabilities}


def test_few_seeds_are_neither_bold_nor_tested(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", "org/base", {**BASE, "S1": 0.0})
    board = make_leaderboard([read_run(run) for run in (base, *(trained(tmp_path, seed) for seed in range(4)))])
    assert not any(cell.best for row in board.sections[0].rows for cell in row.cells.values())
    assert {verdict.kept for verdict in board.sections[0].capabilities} == {"not tested"}


def test_a_single_run_is_not_bold_over_a_method_of_few_seeds(tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", "other", {"S1": 1.0}, base_sha="f" * 64)
    seeds = [trained(tmp_path, seed, rates={"S1": 0.1}) for seed in range(2)]
    rows = rows_of(other, *seeds)
    assert not any(row.cells["harmful_behaviors/S1"].best for row in rows)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Leaderboard:
    return seeded(tmp_path_factory.mktemp("seeded"))


def test_the_range_is_named_and_every_seed_listed_in_every_format(board: Leaderboard, tmp_path: Path) -> None:
    markdown = markdown_report(board, draw_plots(board, tmp_path))
    html, latex = html_report(board), latex_report(board)
    for text in (markdown, html, latex):
        assert "range of 3 seeds" in text
        assert "Each training seed" in text
        for seed in range(3):
            assert f"cst-{seed}" in text
    (line,) = [line for line in markdown.splitlines() if "| cst-1 | 1 | 1.00 | 0.70 |" in line]
    assert line.startswith("| + CST, 3 seeds")
    cells = board.sections[0].rows[1].cells
    (written,) = json.loads(json_report(board))["sections"][0]["models"][1:]
    assert [seed["seed"] for seed in written["seeds"]] == [0, 1, 2]
    assert written["seeds"][1]["scores"]["harmful_behaviors/S0"]["score"] == pytest.approx(0.7)
    assert written["scores"]["harmful_behaviors/S0"]["seed_range"] == pytest.approx([0.7, 0.9])
    (row,) = [
        row
        for row in csv.DictReader(io.StringIO(csv_report(board)))
        if (row["model"], row["column"]) == ("cst, 3 seeds", "S0")
    ]
    assert [float(row[name]) for name in ("seeds", "seed_low", "seed_high")] == pytest.approx([3, 0.7, 0.9])
    assert row["low"] == row["p"] == ""
    assert board.to_frame().query("method == 'CST'")["seeds"].unique().tolist() == [3]
    shown = io.StringIO()
    Console(file=shown, width=80).print(leaderboard_table(board))
    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("range of" in one and "3 seeds" in other for one, other in pairwise(lines))
    assert cells["harmful_behaviors/S0"].spread is not None


def test_plots_show_the_mean_of_the_seeds(board: Leaderboard, tmp_path: Path) -> None:
    alts = {plot.name: plot.alt for plot in draw_plots(board, tmp_path)}
    assert "S0 0.83 (range of 3 seeds: 0.70 to 0.90)" in alts["plane-harmful_behaviors"]
    assert "both 33.33, only S1 6.667 of 40, mean of 3 seeds" in alts["prompts-harmful_behaviors"]
    assert "lost" not in alts["capabilities"]


def test_names_of_seeds_are_text(board: Leaderboard) -> None:
    named = renamed(board, lambda: "a | <script>x</script> \\end{document}")
    assert named.several_seeds
    assert "<script>x" not in markdown_report(named, [])
    assert "<script>x" not in html_report(named)
    assert latex_report(named).count("\\end{document}") == 1


def test_a_report_of_single_runs_speaks_of_no_seeds(tmp_path: Path) -> None:
    board = make_leaderboard([read_run(make_run(tmp_path / name, name, BASE, base_sha=name * 64)) for name in "ab"])
    for text in (markdown_report(board, []), html_report(board), latex_report(board)):
        assert "seeds" not in text.partition("How it was run")[0]
