"""Side effects in reports: a table of their own beside the scores, paired with the base, and never ranked."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from cst_bench.reporting.comparison import compare_runs
from cst_bench.reporting.leaderboard.build import make_leaderboard
from cst_bench.reporting.leaderboard.html import html_report
from cst_bench.reporting.leaderboard.markdown import markdown_report
from cst_bench.reporting.leaderboard.tabular import json_report
from cst_bench.reporting.run_report import run_markdown
from cst_bench.reporting.stored_run import StoredRun
from tests.reporting.stored_runs import stored

SHORT = [10, 20, 30, 40, 50, 60, 70, 80]
LONG = [words + 12 for words in SHORT]
"""Two of eight are longer than 90 words, and cut off."""


def made(folder: Path, label: str, lengths: list[int], **options: Any) -> StoredRun:
    return stored(folder / label, label, {"S1": 0.5, "S0": 0.5}, lengths={"S1": lengths}, **options)


def row(text: str, *names: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.startswith("|") and all(name in line for name in names)]
    assert len(lines) == 1, lines
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


def test_a_run_without_them_has_no_table(tmp_path: Path) -> None:
    run = stored(tmp_path / "run", "org/base")
    board = make_leaderboard([run])
    assert board.sections[0].side_effects is None
    for text in (run_markdown(run), markdown_report(board, []), html_report(board), json_report(board)):
        assert "Side effects" not in text
        assert "What are the responses like?" not in text
        assert "side_effects" not in text


def test_a_runs_report_has_mean_interval_and_median(tmp_path: Path) -> None:
    run = made(tmp_path, "org/base", SHORT, divergences={"S1": [0.1, 0.3]})
    effect = run.scores.compliance["harmful_behaviors"].side_effects["S1"]["words"]
    assert effect.interval is not None
    assert (effect.mean, effect.median, effect.prompts, effect.n) == (45, 45, 40, 40)
    text = run_markdown(run)
    cells = row(text.split("What are the responses like?")[1], "harmful", "S1")
    low, high = effect.interval
    assert cells[2:4] == [
        f"90.0<br><sub>{2 * low:.1f}–{2 * high:.1f}, median 90.0</sub>",
        f"45.0<br><sub>{low:.1f}–{high:.1f}, median 45.0</sub>",
    ]
    assert cells[-2].startswith("2.000<br>")
    assert cells[-1].startswith("0.200<br>")
    assert "KL is the divergence from org/base" in text
    assert "uncensored" not in "".join(cells)


def test_a_leaderboard_pairs_a_trained_model_with_its_base(tmp_path: Path) -> None:
    base, trained = made(tmp_path, "org/base", SHORT), made(tmp_path, "cst", LONG, method="cst")
    board = make_leaderboard([base, trained])
    table = board.sections[0].side_effects
    assert table is not None
    assert [(line.configuration, line.title) for line in table.rows] == [("S1", "org/base"), ("S1", "+ CST")]
    cell = table.rows[1].cells["words"]
    assert cell.difference is not None
    assert cell.difference.difference == pytest.approx(12)
    assert cell.difference.n == 40
    assert table.rows[0].cells["words"].difference is None
    text = markdown_report(board, []).split("### Side effects")[1]
    assert "+12.0 (+12.0 to +12.0) to base" in row(text, "+ CST", "S1 ")[4]
    cut = table.rows[1].cells["cut_off"]
    assert (cut.mean, cut.median) == (0.125, None)
    plain = json.loads(json_report(board))["sections"][0]["side_effects"]
    assert plain["rows"][1]["measures"]["words"]["mean"] == 57
    page = html_report(board)
    assert 'href="#side-effects"' in page
    assert "Δ +12.0" in page


def test_a_divergence_has_no_difference_to_the_base_that_it_is_from(tmp_path: Path) -> None:
    runs = [
        made(tmp_path, "org/base", SHORT, divergences={"S1": [0.0]}),
        made(tmp_path, "cst", LONG, method="cst", divergences={"S1": [0.1, 0.2]}),
    ]
    table = make_leaderboard(runs).sections[0].side_effects
    assert table is not None
    assert table.kl_bases == ["org/base"]
    cell = table.rows[1].cells["kl_per_token"]
    assert cell.mean == pytest.approx(0.15)
    assert cell.difference is None


def test_seeds_of_a_method_have_their_range(tmp_path: Path) -> None:
    runs = [made(tmp_path, "org/base", SHORT)]
    for seed in range(3):
        words = [length + seed for length in LONG]
        runs.append(made(tmp_path, f"cst-{seed}", words, method="cst", seed=seed))
    table = make_leaderboard(runs).sections[0].side_effects
    assert table is not None
    cell = table.rows[1].cells["words"]
    assert (cell.mean, cell.seed_range, cell.interval) == (58, (57, 59), None)
    assert cell.difference is not None
    assert cell.difference.difference == pytest.approx(13)
    assert cell.difference.interval is None


def test_compare_pairs_them_and_corrects_for_their_number(tmp_path: Path) -> None:
    base = made(tmp_path, "org/base", SHORT, divergences={"S1": [0.1, 0.2]})
    run = made(tmp_path, "cst", LONG, divergences={"S1": [0.1, 0.4]})
    compared = compare_runs(base, run)
    effects = {effect.measure.name: effect for effect in compared.side_effects if effect.configuration == "S1"}
    assert list(effects) == ["tokens", "words", "cut_off", "repeated", "degenerate", "kl_first_token", "kl_per_token"]
    words = effects["words"]
    assert (words.baseline, words.mean, words.difference.difference) == (45, 57, 12)
    assert words.difference.p is not None
    assert words.p_holm is not None
    assert words.p_holm > words.difference.p
    assert effects["cut_off"].difference.test == "mid-p McNemar"
    assert effects["kl_per_token"].difference.difference == pytest.approx(statistics.fmean([0, 0.2]))
    text = compared.to_markdown().split("## Side effects")[1]
    assert row(text, "S1", "Words")[3:6] == ["45.0", "57.0", "+12.0"]
    found = json.loads(compared.to_json())["side_effects"]
    assert {effect["measure"] for effect in found} == set(effects)


def test_divergences_from_other_bases_are_not_compared(tmp_path: Path) -> None:
    base = made(tmp_path, "one", SHORT, divergences={"S1": [0.1]})
    run = made(tmp_path, "other", SHORT, divergences={"S1": [0.4]}, kl_base="org/other")
    names = {effect.measure.name for effect in compare_runs(base, run).side_effects}
    assert names == {"tokens", "words", "cut_off", "repeated", "degenerate"}
