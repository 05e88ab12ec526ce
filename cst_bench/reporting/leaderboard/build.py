"""From finished runs to the content of a report: sections, columns and rows."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from cst_bench.reporting.comparable import common_tasks, differing, differing_tasks
from cst_bench.reporting.differences import difference_of
from cst_bench.reporting.flags import PARTIAL, used_flags
from cst_bench.reporting.leaderboard.board import AskedBehaviour, JudgeRow, Leaderboard, ModelRow, Section
from cst_bench.reporting.leaderboard.ranking import capability_verdicts, with_best
from cst_bench.reporting.published_values import paper_tables
from cst_bench.reporting.run_facts import run_facts
from cst_bench.reporting.score_cells import Cell, Column, averaged_over, cell_of, columns_of
from cst_bench.reporting.stored_run import METHODS, StoredRun

_ORDER = {method: at for at, method in enumerate(METHODS.values())}


def make_leaderboard(runs: Sequence[StoredRun], notes: Sequence[str] = (), title: str | None = None) -> Leaderboard:
    """Return the content of a report of runs, in an order that depends on the runs alone.

    Runs whose tests or judges differ are in separate sections and are not ranked against each other.
    """
    titles = _titles(runs)
    groups: list[list[StoredRun]] = []
    for run in runs:
        group = next((group for group in groups if not any(_why_apart(run, other) for other in group)), None)
        if group is None:
            groups.append([run])
        else:
            group.append(run)
    sections = [_section(group, groups[0] if at else [], titles) for at, group in enumerate(groups)]
    cells = (cell for section in sections for row in section.rows for cell in row.cells.values())
    return Leaderboard(
        title=title or "Does it do what its system prompt asks, and did it stay capable?",
        sections=sections,
        flags=used_flags((flag for cell in cells for flag in cell.flags), (run.scores for run in runs)),
        notes=[*notes, *(f"{titles[id(run)]}: {text}" for run in runs for text in run.scores.notes)],
        runs=[run_facts(run, titles[id(run)]) for run in runs],
    )


def _titles(runs: Sequence[StoredRun]) -> dict[int, str]:
    """Return each run's name in reports: its label, followed by what distinguishes its folder where labels collide."""
    labels = Counter(run.label for run in runs)
    titles = {id(run): run.label for run in runs if labels[run.label] == 1}
    alike = [run for run in runs if labels[run.label] > 1]
    for depth in range(1, 1 + max((len(run.folder.parts) for run in alike), default=0)):
        names = {id(run): f"{run.label} ({'/'.join(run.folder.parts[-depth:])})" for run in alike}
        if len(set(names.values())) == len(alike):
            return titles | names
    return titles | {id(run): f"{run.label} ({run.folder})" for run in alike}


def _why_apart(run: StoredRun, other: StoredRun) -> list[str]:
    """Return why two runs can't be ranked together; empty if they can."""
    if not common_tasks(run, other):
        return ["no task in common"]
    tasks = differing_tasks(run, other)
    return [*([tasks] if tasks else []), *differing(run, other)]


def _section(runs: Sequence[StoredRun], above: Sequence[StoredRun], titles: Mapping[int, str]) -> Section:
    """Make a section of runs that were asked the same; `above` has those of the first section, unless this is it."""
    columns = columns_of(runs)
    rows = with_best(_rows(runs, columns, titles), columns)
    why = next((reasons for run in runs for other in above if (reasons := _why_apart(run, other))), [])
    return Section(
        title=", ".join(dict.fromkeys(run.scores.suite.title for run in runs)),
        why=why,
        columns=columns,
        rows=rows,
        tables=paper_tables(columns, rows),
        capabilities=capability_verdicts(columns, rows),
        judges=list(dict.fromkeys(judge for run in runs for judge in _judges(run))),
        asked=_asked(runs, columns),
    )


def _asked(runs: Sequence[StoredRun], columns: Sequence[Column]) -> list[AskedBehaviour]:
    behaviours = {
        f"{task}/{name}": behaviour
        for run in runs
        for task in run.settings.compliance
        for name, behaviour in run.configurations(task).items()
    }
    return [
        AskedBehaviour(column.title, str(column.task), behaviours[column.key])
        for column in columns
        if column.kind == "compliance"
    ]


def _rows(runs: Sequence[StoredRun], columns: Sequence[Column], titles: Mapping[int, str]) -> list[ModelRow]:
    """Return bases in their order, each followed by the models trained on it: DPO, CST, others, each by seed."""
    groups: dict[str, list[StoredRun]] = {}
    for run in runs:
        groups.setdefault(run.base_sha256, []).append(run)
    rows = []
    for group in groups.values():
        base = next((run for run in group if run.method is None), None)
        ordered = sorted(group, key=lambda run: (run.method is not None, _ORDER.get(run.method or "", 2), _seed(run)))
        rows += [_row(run, base, ordered, columns, titles) for run in ordered]
    return rows


def _row(
    run: StoredRun,
    base: StoredRun | None,
    group: Sequence[StoredRun],
    columns: Sequence[Column],
    titles: Mapping[int, str],
) -> ModelRow:
    """Return the row of a run; `base` and `group` are the base and all runs of the same weights."""
    trained = run.method is not None
    cells: dict[str, Cell] = {}
    for column in columns:
        cell = cell_of(run, column)
        if cell is None:
            continue
        flags = cell.flags if _over_all(run, column, columns) else (*cell.flags, PARTIAL)
        difference = difference_of(run, base, column) if base is not None and trained else None
        cells[column.key] = dataclasses.replace(cell, flags=flags, difference=difference)
    label = titles[id(run)]
    base_label = titles[id(base)] if base is not None else run.base
    return ModelRow(
        title=_under_base(run, group, titles) if base is not None and trained else label,
        cells=cells,
        label=label,
        method=run.method,
        base=base_label if trained else label,
        is_base=not trained,
        run=run,
    )


def _over_all(run: StoredRun, column: Column, columns: Sequence[Column]) -> bool:
    """Return whether an average is over the same scores as the others in its column."""
    if column.kind == "compliance_average":
        over = [earlier.key for earlier in columns[: columns.index(column)]]  # the average follows its configurations
        return sorted(over) == sorted(f"{task}/{name}" for task, name in averaged_over(run))
    average = run.scores.averages.capabilities
    if column.kind == "capability_average" and average is not None:
        over = [str(other.task) for other in columns if other.kind == "capability"]
        return sorted(over) == sorted(average.over)
    return True


def _seed(run: StoredRun) -> int:
    return 0 if run.training is None else run.training.seed


def _under_base(run: StoredRun, group: Sequence[StoredRun], titles: Mapping[int, str]) -> str:
    """Return `+ DPO`, followed by what distinguishes it from other runs of the same method."""
    if run.method not in METHODS.values():
        return f"+ {titles[id(run)]}"
    alike = [other for other in group if other.method == run.method]
    if len(alike) == 1:
        return f"+ {run.method}"
    same_seed = [other for other in alike if _seed(other) == _seed(run)]
    return f"+ {run.method}, seed {_seed(run)}" if len(same_seed) == 1 else f"+ {run.method}, {titles[id(run)]}"


def _judges(run: StoredRun) -> Iterator[JudgeRow]:
    for task, judge in run.scores.judges.items():
        card = judge.calibration
        yield JudgeRow(
            task=task,
            name=judge.name,
            model=judge.model or judge.kind,
            f1=None if card is None else card.macro_f1,
            interval=None if card is None else card.interval,
            n=0 if card is None else card.n,
            labels="" if card is None else card.labels,
            labelled_by="" if card is None else ", ".join(card.by),
            calibrated=judge.calibrated,
        )
