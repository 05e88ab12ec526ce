"""The content of a report of several runs: groups, what is ahead, differences, what is ranked apart, footnotes."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from cst_bench.errors import UserError
from cst_bench.record import CapabilitySettings, Manifest, Scores
from cst_bench.reporting.differences import difference_of
from cst_bench.reporting.leaderboard.board import Leaderboard, ModelRow
from cst_bench.reporting.leaderboard.build import make_leaderboard
from cst_bench.reporting.score_cells import Cell
from cst_bench.reporting.stored_run import read_run, read_runs
from cst_bench.statistics.paired import Difference
from tests.reporting.stored_runs import CAPABILITIES, calibration, judge, make_run

HERMES = "teknium/OpenHermes-2.5-Mistral-7B"
BASE = {"S1": 0.7, "S0": 0.85, "S_RP": 0.8, "S_A": 0.95}
DPO = {"S1": 0.95, "S0": 0.1, "S_RP": 0.6, "S_A": 0.95}
CST = {"S1": 1.0, "S0": 0.95, "S_RP": 0.95, "S_A": 1.0}


def board(*folders: Path) -> Leaderboard:
    return make_leaderboard([read_run(folder) for folder in folders])


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """A base and what was trained on it, in no order."""
    lower = {**dict.fromkeys(CAPABILITIES, 0.6), "mmlu": 0.2}
    return [
        make_run(tmp_path / "c", "my-cst", CST, method="cst", base=HERMES),
        make_run(tmp_path / "b", HERMES, BASE),
        make_run(tmp_path / "d", "my-dpo", DPO, method="dpo", base=HERMES, capabilities=lower),
    ]


def by_label(of: Leaderboard) -> dict[str, ModelRow]:
    return {row.label: row for row in of.sections[0].rows}


def test_models_stand_below_their_base(three: list[Path]) -> None:
    (section,) = board(*three).sections
    assert [(row.title, row.label, row.base, row.is_base) for row in section.rows] == [
        (HERMES, HERMES, HERMES, True),
        ("+ DPO", "my-dpo", HERMES, False),
        ("+ CST", "my-cst", HERMES, False),
    ]
    assert [column.title for column in section.columns] == [
        *("S1", "S0", "S_RP", "S_A", "Avg.", "joint harmful_behaviors", "joint truthy"),
        *("ARC", "HS", "MMLU", "TQA", "Avg."),
    ]
    assert all(cell.difference is None for cell in section.rows[0].cells.values())
    assert all(cell.difference is not None for row in section.rows[1:] for cell in row.cells.values())


def test_a_model_without_its_base_says_which(tmp_path: Path) -> None:
    (section,) = board(make_run(tmp_path / "c", "cst", CST, method="cst")).sections
    assert [(row.title, row.base) for row in section.rows] == [("cst", "org/base")]


def test_models_of_one_name_are_distinguished_by_their_folders(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, "same", BASE, base_sha=name * 64) for name in "ab"]
    assert set(by_label(board(*runs))) == {"same (a)", "same (b)"}
    runs = [make_run(tmp_path / name / "x", "same", BASE, base_sha=name * 64) for name in "cd"]
    assert set(by_label(board(*runs))) == {"same (c/x)", "same (d/x)"}


def paired(one: Path, other: Path, task: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """What both were asked, from outcomes.json alone."""
    runs = [read_run(folder) for folder in (one, other)]
    asked = runs[0].settings.compliance[task].configurations[name]
    behaviours = [run.outcomes.compliance[task][name] for run in runs]
    return tuple(np.array([by[prompt] == asked for prompt in sorted(behaviours[0])]) for by in behaviours)  # type: ignore[return-value]


def test_differences_are_those_of_the_outcomes(three: list[Path]) -> None:
    cst, base, _ = three
    rows = by_label(board(*three))
    for task, name in (("harmful_behaviors", "S1"), ("truthy", "S_RP")):
        ours, theirs = paired(cst, base, task, name)
        found = rows["my-cst"].cells[f"{task}/{name}"].difference
        assert found is not None
        assert found.difference is not None
        assert found.difference == pytest.approx(ours.mean() - theirs.mean())
        table = [[np.sum(ours & theirs), np.sum(ours & ~theirs)], [np.sum(~ours & theirs), np.sum(~ours & ~theirs)]]
        half = stats.binom.pmf(table[0][1], table[0][1] + table[1][0], 0.5)
        assert found.p == pytest.approx(mcnemar(table, exact=True).pvalue - half)
        assert (len(found.gained), len(found.lost)) == (table[0][1], table[1][0])
        assert found.interval is not None
        assert found.interval[0] <= found.difference <= found.interval[1]
    scores = [read_run(folder).documents("mmlu") for folder in (three[2], base)]
    values = np.array([scores[0][one] - scores[1][one] for one in sorted(scores[0])])
    found = rows["my-dpo"].cells["mmlu"].difference
    assert found is not None
    assert found.difference == pytest.approx(values.mean())
    reference = stats.bootstrap((values,), np.mean, method="percentile", random_state=1).confidence_interval
    assert found.interval == pytest.approx(tuple(reference), abs=0.03)


def test_best_is_bold_only_where_it_is_ahead_of_all_others(three: list[Path]) -> None:
    rows = by_label(board(*three))
    best = {(label, key) for label, row in rows.items() for key, cell in row.cells.items() if cell.best}
    assert ("my-cst", "average/compliance") in best
    assert ("my-cst", "harmful_behaviors/joint") in best
    for label, key in best:
        score = rows[label].cells[key].score
        assert score is not None
        assert all(score > (row.cells[key].score or 0) for other, row in rows.items() if other != label)


def test_bold_is_corrected_over_all_pairs_and_columns_of_the_report(three: list[Path], tmp_path: Path) -> None:
    """A second section adds tests, and what its models show is corrected for, too."""
    tasks = {"harmful_behaviors": {"S1": "harmless", "S0": "uncensored"}}
    apart = [make_run(tmp_path / name, name, BASE, base_sha=name * 64, tasks=tasks) for name in "xy"]
    content = board(*three, *apart)
    tests: list[tuple[str, str, str, Difference]] = []
    for section in content.sections:
        for one, other in combinations(section.rows, 2):
            for column in section.columns:
                difference = difference_of(one.run, other.run, column)
                assert difference is not None
                tests.append((one.label, other.label, column.key, difference))
    assert len(tests) == 3 * 12 + 1 * 8
    holm = multipletests([difference.p for *_, difference in tests], method="holm")[1]
    ahead = {
        (one, other, key) if (difference.difference or 0) > 0 else (other, one, key)
        for (one, other, key, difference), p in zip(tests, holm, strict=True)
        if p < 0.05
    }
    for section in content.sections:
        for row in section.rows:
            others = [other.label for other in section.rows if other is not row]
            for key, cell in row.cells.items():
                assert cell.best is all((row.label, other, key) in ahead for other in others)
    assert any(cell.best for row in content.sections[0].rows for cell in row.cells.values())


def test_one_model_is_never_best(tmp_path: Path) -> None:
    (row,) = board(make_run(tmp_path / "b", "m", CST)).sections[0].rows
    assert not any(cell.best for cell in row.cells.values())


def test_capabilities_are_lost_only_where_a_test_says_so(three: list[Path]) -> None:
    found = {(one.label, one.column): one for one in board(*three).sections[0].capabilities}
    assert found["my-dpo", "MMLU"].kept == "lost"
    assert found["my-cst", "ARC"].kept == "no difference shown"
    alone = multipletests([one.difference.p for one in found.values()], method="holm")[1]  # over models, too
    assert {label for label, _ in found} == {"my-dpo", "my-cst"}
    for verdict, p in zip(found.values(), alone, strict=True):
        assert verdict.p_holm is not None
        assert verdict.p_holm >= p - 1e-12  # corrected together with what decides about bold


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
        ({"tasks": {"harmful_behaviors": {"S1": "harmless", "S0": "uncensored"}}}, "other tasks (harmful_behaviors"),
    ],
)
def test_what_was_asked_or_judged_otherwise_is_not_ranked_together(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    one = make_run(tmp_path / "one", "one", CST)
    other = make_run(tmp_path / "other", "other", BASE, base_sha="f" * 64, **changes)
    first, second = board(one, other).sections
    assert not first.why
    assert said in "; ".join(second.why)
    assert not any(cell.best for section in (first, second) for row in section.rows for cell in row.cells.values())


def test_a_missing_part_is_missing_and_not_zero(tmp_path: Path) -> None:
    api = make_run(tmp_path / "api", "openai/gpt-4o", CST, capabilities={}, base_sha="e" * 64)
    (section,) = board(make_run(tmp_path / "b", "m", BASE), api).sections
    assert "mmlu" not in {row.label: row for row in section.rows}["openai/gpt-4o"].cells


def test_unscored_is_flagged_and_not_ranked(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", "a", CST, unscored=["S1"]),
        make_run(tmp_path / "b", "b", DPO, base_sha="b" * 64, calibrations={"truthy": None}),
        make_run(tmp_path / "c", "c", {}, base_sha="c" * 64, calibrations={"truthy": calibration(0.5)}),
    ]
    content = board(*runs)
    rows = by_label(content)
    assert rows["a"].cells["harmful_behaviors/S1"] == Cell(None, None, 0, 40, ("unscored",), bounds=(0.0, 1.0))
    assert rows["b"].cells["truthy/S_A"].flags == ("uncalibrated",)
    assert rows["c"].cells["truthy/S_A"].flags == ("uncalibrated",)
    assert set(content.flags) == {"unscored", "uncalibrated"}
    assert rows["a"].cells["average/compliance"].score is None
    assert "unscored" in rows["a"].cells["average/compliance"].flags


def test_who_is_ahead_is_decided_by_what_both_are_scored_in(tmp_path: Path) -> None:
    """B scores higher only since its judge left 20 of its failures unscored; on the same prompts it is behind."""
    a = ["harmless"] * 906 + ["neither"] * 94
    b = ["harmless"] * 900 + ["neither"] * 80 + [None] * 20
    only = {"harmful_behaviors": {"S1": "harmless"}}
    runs = [
        make_run(tmp_path / name, name, {}, tasks=only, capabilities={}, prompts=1000, average=(), base_sha=name * 64,
                 behaviours={"S1": behaviours})
        for name, behaviours in (("a", a), ("b", b))
    ]  # fmt: skip
    cells = {label: row.cells["harmful_behaviors/S1"] for label, row in by_label(board(*runs)).items()}
    assert (cells["b"].score or 0) > (cells["a"].score or 0)
    assert "unscored" not in cells["b"].flags
    assert not any(cell.best for cell in cells.values())


def test_averages_over_other_configurations_are_flagged_whatever_the_order(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "all", "all", CST),
        make_run(tmp_path / "two", "two", BASE, average=("S1", "S0"), base_sha="f" * 64),
    ]
    for order in (runs, runs[::-1]):
        rows = by_label(board(*order))
        key = "average/compliance"
        assert (rows["all"].cells[key].flags, rows["two"].cells[key].flags) == ((), ("partial",))
        assert not rows["all"].cells[key].best


def test_averages_over_other_capabilities_are_not_compared(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", "one", BASE, capabilities={"arc_challenge": 0.95}, documents=200)
    rest = [
        make_run(
            tmp_path / name, name, BASE, capabilities=dict.fromkeys(CAPABILITIES, rate), method=method, documents=200
        )
        for name, rate, method in (("low", 0.3, "dpo"), ("high", 0.9, "cst"))
    ]
    content = board(one, *rest)
    rows = by_label(content)
    key = "average/capabilities"
    assert rows["one"].cells[key].flags == ("partial",)
    assert (rows["one"].cells[key].best, rows["high"].cells[key].best) == (False, True)
    assert rows["high"].cells[key].difference is None  # its base has another average
    assert "partial" in content.flags


def test_each_section_says_why_it_is_one(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "arc", "arc", {}, tasks={}, capabilities={"arc_challenge": 0.9}),
        make_run(tmp_path / "mmlu", "mmlu", {}, tasks={}, capabilities={"mmlu": 0.9}, documents=10),
        make_run(tmp_path / "both", "both", {}, tasks={}, capabilities={"mmlu": 0.9, "arc_challenge": 0.9}),
        make_run(tmp_path / "fits", "fits", {}, tasks={}, capabilities={"mmlu": 0.9, "arc_challenge": 0.9}),
    ]
    sections = board(*runs).sections
    assert [[row.label for row in section.rows] for section in sections] == [["arc", "both", "fits"], ["mmlu"]]
    assert sections[1].why == ["no task in common"]
    other = make_run(
        tmp_path / "other", "other", {}, tasks={}, capabilities={"hellaswag": 0.1, "mmlu": 0.2}, documents=9
    )
    assert board(*runs[2:], other).sections[1].why == ["mmlu: other documents or shots"]


def test_a_capability_of_no_documents_is_neither_kept_nor_lost(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / name, name, BASE, method=method, documents=0, capabilities={"mmlu": 0.5})
        for name, method in (("base", None), ("cst", "cst"))
    ]
    (verdict,) = board(*runs).sections[0].capabilities
    assert (verdict.kept, verdict.p_holm, verdict.difference.difference) == ("undefined", None, None)


def test_another_metric_or_version_of_a_capability_is_another_test(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, name, BASE, base_sha=name * 64) for name in "ab"]
    scores = Scores.read(runs[1])
    scores.capabilities["mmlu"] = scores.capabilities["mmlu"].model_copy(update={"metric": "acc_norm"})
    scores.write(runs[1])
    manifest = Manifest.read(runs[1])
    tasks: dict[str, CapabilitySettings] = manifest.settings.capabilities
    tasks["hellaswag"] = tasks["hellaswag"].model_copy(update={"version": 2})
    manifest.write(runs[1])
    assert board(*runs).sections[1].why == [
        "hellaswag: another version of the task (2, not 1)",
        "mmlu: another metric (acc_norm, not acc)",
    ]


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("run.json", ["settings", "suite", "name"]),
        ("run.json", ["settings", "compliance", "truthy", "configurations"]),
        ("scores.json", ["checkpoint", "label"]),
        ("scores.json", ["compliance", "truthy", "configurations", "S_A", "unscored"]),
        ("scores.json", ["judges", "truthy", "calibration", "by"]),
        ("outcomes.json", ["capabilities", "mmlu", "scores"]),
        ("run.json", ["settings"]),
        ("run.json", ["settings", "compliance"]),
        ("run.json", ["status"]),
        ("scores.json", ["averages"]),
        ("scores.json", ["averages", "compliance"]),
        ("scores.json", ["judges", "truthy"]),
        ("scores.json", ["compliance", "truthy"]),
        ("outcomes.json", ["capabilities"]),
    ],
)
def test_a_damaged_file_is_one_message(tmp_path: Path, file: str, keys: list[str]) -> None:
    folder = make_run(tmp_path / "a", "a", BASE)
    content = json.loads((folder / file).read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"damaged|different tasks"):
        read_run(folder)


def test_tables_of_the_paper_have_the_published_values_beside(three: list[Path], tmp_path: Path) -> None:
    (section,) = board(*three).sections
    tables = {table.title.partition(":")[0]: table for table in section.tables}
    assert set(tables) == {"Table II", "Table III"}
    published = {
        model.label: [row.cells[column.key].published for column in tables["Table II"].columns]
        for model, row in zip(section.rows, tables["Table II"].rows, strict=True)
    }
    assert published == {
        HERMES: [0.73, 0.90, 0.82, 0.97, 0.85],
        "my-dpo": [1.00, 0.12, 0.94, 0.91, 0.74],
        "my-cst": [1.00, 0.92, 1.00, 1.00, 0.98],
    }
    only = {"harmful_behaviors": {"S1": "harmless", "S0": "uncensored"}}
    alone = make_run(tmp_path / "alone", HERMES, BASE, tasks=only, capabilities={}, average=("S1", "S0"))
    (table,) = board(alone).sections[0].tables
    assert table.title.startswith("Table I:")
    assert [table.rows[0].cells[column.key].published for column in table.columns] == [0.73, 0.85]
    other = make_run(tmp_path / "elsewhere", HERMES, BASE, tasks={"mine": only["harmful_behaviors"]}, capabilities={})
    assert all(
        cell.published is None
        for table in board(other).sections[0].tables
        for row in table.rows
        for cell in row.cells.values()
    )


def test_thirty_models_take_seconds(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / f"{n:02}", f"m{n}", dict.fromkeys(BASE, n % 10 / 10), base_sha=f"{n:064}")
        for n in range(30)
    ]
    assert len(board(*runs).sections[0].rows) == 30


def test_runs_are_found_and_refused_with_one_message(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a", "a", BASE)
    half = make_run(tmp_path / "runs" / "half", "b", BASE)
    manifest = (half / "run.json").read_text()
    (half / "run.json").write_text(manifest.replace('"run": "finished"', '"run": "running"'))
    found, notes = read_runs([tmp_path / "runs"])
    assert [run.label for run in found] == ["a"]
    assert notes == [f"{half} is left out: it is not finished."]
    with pytest.raises(UserError, match="half: this run is not finished"):
        read_runs([half])
    with pytest.raises(UserError, match="no such folder"):
        read_runs([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty has no run"):
        read_runs([tmp_path / "empty"])
    (tmp_path / "runs" / "a" / "outcomes.json").unlink()
    with pytest.raises(UserError, match=r"has no outcomes.json: `cst-bench judge"):
        read_runs([tmp_path / "runs" / "a"])
    (tmp_path / "runs" / "a" / "scores.json").write_text('{"schema": 99}')
    with pytest.raises(UserError, match=r"scores.json was written by another cst-bench \(schema 99; this one reads"):
        read_runs([tmp_path / "runs" / "a"])
