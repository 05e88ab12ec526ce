"""From finished runs to the content of a report: sections, columns, rows, what is ahead, capabilities kept or lost."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cst_bench.reporting.leaderboard.board import (
    Asked,
    CapabilityVerdict,
    Cell,
    Column,
    JudgeRow,
    Leaderboard,
    ModelRow,
    Section,
)
from cst_bench.reporting.leaderboard.comparable import common_tasks, differing, same_tasks
from cst_bench.reporting.published_values import paper_tables
from cst_bench.reporting.run_facts import run_facts
from cst_bench.reporting.run_report import MARKS, PARTIAL, UNRANKED, marks_of
from cst_bench.reporting.stored_run import METHODS, StoredRun
from cst_bench.statistics.paired import (
    LEVEL,
    Difference,
    average_difference,
    capabilities_average_difference,
    capability_difference,
    compliance_difference,
    holm,
)

_ORDER = {method: at for at, method in enumerate(METHODS.values())}


def make_leaderboard(runs: Sequence[StoredRun], remarks: Sequence[str] = (), title: str | None = None) -> Leaderboard:
    """The content of a report of several runs, in an order that depends on the runs alone.

    Runs whose tests or judges differ are in sections of their own and are not ranked against each other.
    """
    titles = _titles(runs)
    sections: list[list[StoredRun]] = []
    for run in runs:
        fitting = (of for of in sections if all(_fits(run, one) for one in of))
        found = next(fitting, None)
        if found is None:
            sections.append([run])
        else:
            found.append(run)
    made = [_section(of, sections[0] if at else [], titles) for at, of in enumerate(sections)]
    used = {mark for section in made for row in section.rows for cell in row.cells.values() for mark in cell.marks}
    return Leaderboard(
        title=title or "Does it do what its system prompt asks, and did it stay capable?",
        sections=made,
        marks={mark: text for mark, text in MARKS.items() if mark in used},
        remarks=[*remarks, *(f"{titles[id(run)]}: {text}" for run in runs for text in run.scores.get("remarks", []))],
        runs=[run_facts(run, titles[id(run)]) for run in runs],
    )


def _titles(runs: Sequence[StoredRun]) -> dict[int, str]:
    """What reports call each run's model: its label; where labels collide, with what tells its folder apart, too."""
    labels = Counter(run.label for run in runs)
    titles = {id(run): run.label for run in runs if labels[run.label] == 1}
    alike = [run for run in runs if labels[run.label] > 1]
    for depth in range(1, 1 + max((len(run.folder.parts) for run in alike), default=0)):
        names = {id(run): f"{run.label} ({'/'.join(run.folder.parts[-depth:])})" for run in alike}
        if len(set(names.values())) == len(alike):
            return titles | names
    return titles | {id(run): f"{run.label} ({run.folder})" for run in alike}


def _fits(run: StoredRun, other: StoredRun) -> bool:
    return not _why_apart(run, other)


def _why_apart(run: StoredRun, other: StoredRun) -> list[str]:
    """Why two runs can't be ranked together; empty if they can."""
    if not common_tasks(run, other):
        return ["no task in common"]
    return [tasks for tasks in (same_tasks(run, other),) if tasks] + differing(run, other)


def _section(runs: Sequence[StoredRun], above: Sequence[StoredRun], titles: Mapping[int, str]) -> Section:
    """A section of runs that were asked the same; `above` are those of the first section, if this isn't it."""
    columns = columns_of(runs)
    rows = _rows(runs, columns, titles)
    why = next((found for run in runs for other in above if (found := _why_apart(run, other))), [])
    names = list(dict.fromkeys(str(run.scores["suite"]["title"]) for run in runs))
    return Section(
        title=", ".join(names),
        why=why,
        columns=columns,
        rows=rows,
        tables=paper_tables(columns, rows),
        capabilities=_capabilities(columns, rows),
        judges=list(dict.fromkeys(judge for run in runs for judge in _judges(run))),
        asked=_asked(runs, columns),
    )


def _asked(runs: Sequence[StoredRun], columns: Sequence[Column]) -> list[Asked]:
    known = {f"{task}/{name}": behaviour for run in runs for task in run.settings["compliance"]
             for name, behaviour in run.configurations(task).items()}  # fmt: skip
    return [Asked(one.title, str(one.task), known[one.key]) for one in columns if one.kind == "compliance"]


def columns_of(runs: Sequence[StoredRun]) -> list[Column]:
    """Averaged configurations, their mean, other configurations, joint compliance, capabilities, their mean."""
    arms: dict[str, list[str]] = {}
    for run in runs:
        for task, known in run.scores["compliance"].items():
            of = arms.setdefault(task, [])
            of += [name for name in known if name not in (*of, "joint", "reference")]
    everything = [(task, name) for task, names in arms.items() for name in names]
    averages = [run.scores["averages"]["compliance"] for run in runs]
    over: list[str] = max((average["over"] for average in averages if average is not None), key=len, default=[])
    averaged = [one for name in over for one in everything if one[1] == name]
    columns = [Column(f"{task}/{name}", name, "compliance", task) for task, name in averaged]
    if over:
        columns.append(Column("average/compliance", "Avg.", "compliance_average"))
    columns += [Column(f"{task}/{name}", name, "compliance", task) for task, name in everything if name not in over]
    joint = [task for task in arms if any("joint" in run.scores["compliance"].get(task, {}) for run in runs)]
    columns += [
        Column(f"{task}/joint", "joint" if len(joint) == 1 else f"joint {task}", "joint", task) for task in joint
    ]
    capabilities: dict[str, str] = {}
    for run in runs:
        capabilities |= {task: str(of["title"]) for task, of in run.scores["capabilities"].items()}
    columns += [Column(task, title, "capability", task, percent=True) for task, title in capabilities.items()]
    if any(run.scores["averages"]["capabilities"] is not None for run in runs):
        columns.append(Column("average/capabilities", "Avg.", "capability_average", percent=True))
    return columns


def _rows(runs: Sequence[StoredRun], columns: Sequence[Column], titles: Mapping[int, str]) -> list[ModelRow]:
    """Bases in their order, each with what was trained on it below: DPO, CST, others, each by seed."""
    groups: dict[str, list[StoredRun]] = {}
    for run in runs:
        groups.setdefault(run.base_sha256, []).append(run)
    rows = []
    for of in groups.values():
        base = next((run for run in of if run.method is None), None)
        ordered = sorted(of, key=lambda run: (run.method is not None, _ORDER.get(run.method or "", 2), _seed(run)))
        for run in ordered:
            cells = {column.key: cell for column in columns if (cell := cell_of(run, column)) is not None}
            for column in columns:
                cell = cells.get(column.key)
                if cell is not None and not _over_all(run, column, columns):
                    cells[column.key] = dataclasses.replace(cell, marks=(*cell.marks, PARTIAL))
            trained = run.method is not None
            if base is not None and trained:
                cells = {
                    column.key: dataclasses.replace(cells[column.key], difference=difference_of(run, base, column))
                    for column in columns
                    if column.key in cells
                }
            label = titles[id(run)]
            named = label if base is None or not trained else _under_base(run, ordered, titles)
            known_base = label if not trained else run.base if base is None else titles[id(base)]
            rows.append(ModelRow(label, named, run.method, known_base, not trained, run, cells))
    return _with_best(rows, columns)


def _over_all(run: StoredRun, column: Column, columns: Sequence[Column]) -> bool:
    """Whether an average is over the same scores as those of others in its column."""
    if column.kind == "compliance_average":
        over = [one.key for one in columns[: columns.index(column)]]  # they stand before it
        return sorted(over) == sorted(f"{task}/{name}" for task, name in averaged_over(run))
    if column.kind == "capability_average":
        over = [str(one.task) for one in columns if one.kind == "capability"]
        return sorted(over) == sorted(run.scores["averages"]["capabilities"]["over"])
    return True


def _seed(run: StoredRun) -> int:
    return 0 if run.training is None else int(run.training["seed"])


def _under_base(run: StoredRun, group: Sequence[StoredRun], titles: Mapping[int, str]) -> str:
    """`+ DPO`, with what tells it from another of the same method."""
    if run.method not in METHODS.values():
        return f"+ {titles[id(run)]}"
    alike = [other for other in group if other.method == run.method]
    if len(alike) == 1:
        return f"+ {run.method}"
    same_seed = [other for other in alike if _seed(other) == _seed(run)]
    return f"+ {run.method}, seed {_seed(run)}" if len(same_seed) == 1 else f"+ {run.method}, {titles[id(run)]}"


def averaged_over(run: StoredRun) -> list[tuple[str, str]]:
    """The (task, configuration) that a run's average of compliance is over."""
    average = run.scores["averages"]["compliance"]
    names = [] if average is None else average["over"]
    return [(task, name) for name in names for task, of in run.scores["compliance"].items() if name in of]


def difference_of(run: StoredRun, base: StoredRun, column: Column) -> Difference | None:
    """`run` less `base` in one column, paired; None if one doesn't have it, or an average is over other scores."""
    ours, theirs = _value(run, column), _value(base, column)
    if ours is None or theirs is None or "unavailable" in ours or "unavailable" in theirs:
        return None
    if column.kind == "compliance_average":
        over = averaged_over(run)
        return average_difference(run, base, over) if over == averaged_over(base) else None
    if column.kind == "capability_average":
        same = sorted(ours["over"]) == sorted(theirs["over"])
        return capabilities_average_difference(run, base, ours["over"]) if same else None
    assert column.task is not None
    if column.kind == "capability":
        return capability_difference(run, base, column.task)
    return compliance_difference(run, base, column.task, column.key.rpartition("/")[2])


def _value(run: StoredRun, column: Column) -> Mapping[str, Any] | None:
    """What scores.json says of a column."""
    averages = run.scores["averages"]
    found: Mapping[str, Any] | None
    if column.kind == "compliance_average":
        found = averages["compliance"]
    elif column.kind == "capability_average":
        found = averages["capabilities"]
    elif column.kind == "capability":
        found = run.scores["capabilities"].get(column.task)
    else:
        found = run.scores["compliance"].get(column.task, {}).get(column.key.rpartition("/")[2])
    return found


def cell_of(run: StoredRun, column: Column) -> Cell | None:
    """A run's score in a column; None if it doesn't have it."""
    value = _value(run, column)
    if value is None or "unavailable" in value:
        return None
    interval = None if value["interval"] is None else (value["interval"][0], value["interval"][1])
    corrected = value.get("corrected") or {}
    ends = corrected.get("interval")
    n, unscored, marks = _counts(run, column, value)
    return Cell(
        value["score"],
        interval,
        n,
        unscored,
        marks,
        corrected=corrected.get("score"),
        corrected_interval=None if ends is None else (ends[0], ends[1]),
        corrected_by=corrected.get("method"),
    )


def _counts(run: StoredRun, column: Column, value: Mapping[str, Any]) -> tuple[int, int, tuple[str, ...]]:
    """n, unscored and marks; an average has those of what it is over."""
    if column.kind == "compliance_average":
        parts = [(task, run.scores["compliance"][task][name]) for task, name in averaged_over(run)]
    elif column.kind == "capability_average":
        return sum(run.scores["capabilities"][task]["n"] for task in value["over"]), 0, ()
    elif column.kind == "capability":
        return value["n"], 0, ()
    else:
        parts = [(str(column.task), value)]
    marks = dict.fromkeys(mark for task, of in parts for mark in marks_of(run.scores, task, of))
    return sum(of["n"] for _, of in parts), sum(of["unscored"] for _, of in parts), tuple(marks)


def _with_best(rows: Sequence[ModelRow], columns: Sequence[Column]) -> list[ModelRow]:
    """Marks the highest score of each column if it is ahead of every other by the paired test, Holm-corrected."""
    best: set[tuple[int, str]] = set()
    for column in columns:
        ranked = [
            (at, row)
            for at, row in enumerate(rows)
            if (cell := row.cells.get(column.key)) and cell.score is not None and not UNRANKED & set(cell.marks)
        ]
        if len(ranked) < 2:
            continue
        at, top = max(ranked, key=lambda one: one[1].cells[column.key].score or 0.0)
        others = [row for other, row in ranked if other != at]
        if any(row.cells[column.key].score == top.cells[column.key].score for row in others):
            continue
        found = [difference_of(top.run, row.run, column) for row in others]
        # what is scored in both decides: over all, a score may be higher for what the other's judge left unscored
        ahead = [one is not None and one.difference is not None and one.difference > 0 for one in found]
        ps = [1.0 if one is None or one.p is None else one.p for one in found]
        if all(ahead) and all(p < LEVEL for p in holm(ps)):
            best.add((at, column.key))
    return [
        dataclasses.replace(
            row,
            cells={key: dataclasses.replace(cell, best=(at, key) in best) for key, cell in row.cells.items()},
        )
        for at, row in enumerate(rows)
    ]


def _capabilities(columns: Sequence[Column], rows: Sequence[ModelRow]) -> list[CapabilityVerdict]:
    """Of each trained model whose base is there, each capability: lost, gained, or no difference shown."""
    found = []
    for row in rows:
        pairs = [
            (column, difference)
            for column in columns
            if column.kind == "capability" and (difference := row.cells.get(column.key)) and difference.difference
        ]
        differences = [(column, cell.difference) for column, cell in pairs if cell.difference is not None]
        ps = [one.p for _, one in differences if one.p is not None]
        corrected = iter(holm(ps))
        for column, one in differences:
            if one.difference is None:
                found.append(CapabilityVerdict(row.label, row.title, row.base, column.title, one, None, "undefined"))
                continue
            p = next(corrected)
            kept = ("gained" if one.difference > 0 else "lost") if p < LEVEL else "no difference shown"
            found.append(CapabilityVerdict(row.label, row.title, row.base, column.title, one, p, kept))
    return found


def _judges(run: StoredRun) -> Iterable[JudgeRow]:
    for task, judge in run.scores["judges"].items():
        card = judge["calibration"]
        interval = None if card is None or card["interval"] is None else (card["interval"][0], card["interval"][1])
        yield JudgeRow(
            task=task,
            name=str(judge["name"]),
            model=str(judge.get("model") or judge["kind"]),
            f1=None if card is None else card["macro_f1"],
            interval=interval,
            n=0 if card is None else card["n"],
            labels="" if card is None else str(card["labels"]),
            labelled_by="" if card is None else ", ".join(card["by"]),
            calibrated=bool(judge["calibrated"]),
        )
