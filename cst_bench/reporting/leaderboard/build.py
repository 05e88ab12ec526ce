"""From finished runs to the content of a report: sections, columns and rows."""

from __future__ import annotations

import dataclasses
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

from cst_bench.files import digest
from cst_bench.reporting.comparable import common_tasks, differing, differing_tasks
from cst_bench.reporting.flags import PARTIAL, used_flags
from cst_bench.reporting.leaderboard.board import AskedBehaviour, JudgeRow, Leaderboard, ModelRow, Section
from cst_bench.reporting.leaderboard.ranking import with_verdicts
from cst_bench.reporting.method_means import mean_cell, method_difference
from cst_bench.reporting.published_values import paper_tables
from cst_bench.reporting.run_facts import run_facts
from cst_bench.reporting.score_cells import Cell, Column, SeedRow, averaged_over, cell_of, columns_of
from cst_bench.reporting.side_effects import ModelRuns, make_side_effects
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
    sections = with_verdicts([_section(group, groups[0] if at else [], titles) for at, group in enumerate(groups)])
    sections = [dataclasses.replace(one, tables=paper_tables(one.columns, one.rows)) for one in sections]
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
    """Make a section of runs that were asked the same; `above` has those of the first section, unless this is it.

    Verdicts and the paper's tables are left out: they depend on all sections.
    """
    columns = columns_of(runs)
    rows = _rows(runs, columns, titles)
    why = next((reasons for run in runs for other in above if (reasons := _why_apart(run, other))), [])
    return Section(
        title=", ".join(dict.fromkeys(run.scores.suite.title for run in runs)),
        why=why,
        columns=columns,
        rows=rows,
        tables=(),
        capabilities=(),
        judges=list(dict.fromkeys(judge for run in runs for judge in _judges(run))),
        asked=_asked(runs, columns),
        side_effects=make_side_effects(
            [ModelRuns(row.label, row.title, row.members, _base_of(row, rows)) for row in rows]
        ),
    )


def _base_of(row: ModelRow, rows: Sequence[ModelRow]) -> StoredRun | None:
    """Return the run of a trained model's base, if it is in the table."""
    if row.is_base:
        return None
    return next((other.run for other in rows if other.is_base and other.family == row.family), None)


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
    """Return bases in their order, each followed by the methods trained on it: DPO, CST, others."""
    groups: dict[str, list[StoredRun]] = {}
    for run in runs:
        groups.setdefault(run.base_sha256, []).append(run)
    rows = []
    for group in groups.values():
        base = next((run for run in group if run.method is None), None)
        ordered = sorted(group, key=lambda run: (run.method is not None, _ORDER.get(run.method or "", 2), _seed(run)))
        methods = _methods(ordered)
        rows += [_row(members, base, methods, columns, titles) for members in methods]
    return rows


def _methods(runs: Sequence[StoredRun]) -> list[tuple[StoredRun, ...]]:
    """Group runs that differ only in the training seed. Two runs of one seed are not two seeds: they stay apart."""
    by_training: dict[object, list[StoredRun]] = {}
    for run in runs:
        by_training.setdefault(id(run) if run.training is None else _but_for_the_seed(run), []).append(run)
    methods: list[tuple[StoredRun, ...]] = []
    for group in by_training.values():
        alike = len({_seed(run) for run in group}) == len(group)
        methods += [tuple(group)] if alike else [(run,) for run in group]
    return methods


def _but_for_the_seed(run: StoredRun) -> str:
    """Return all that decides a trained model and what it was measured on, without the training seed."""
    training = None if run.training is None else run.training.model_copy(update={"seed": 0})
    own = {"label", "training", "weights_sha256", "adapter_sha256", "settings_sha256", "revision"}
    identity = run.checkpoint.model_dump(mode="json", exclude=own)
    settings = run.settings
    measured = [*settings.compliance, *settings.capabilities, *settings.average]
    return digest([None if training is None else training.model_dump(mode="json"), identity, measured, settings.seed])


def _row(
    members: tuple[StoredRun, ...],
    base: StoredRun | None,
    group: Sequence[tuple[StoredRun, ...]],
    columns: Sequence[Column],
    titles: Mapping[int, str],
) -> ModelRow:
    """Return the row of a run or of a method's runs; `base` and `group` are the base and all methods of its weights."""
    run, trained = members[0], members[0].method is not None
    by_run = [_cells(member, columns) for member in members]
    cells: dict[str, Cell] = {}
    for column in columns:
        of_column = [of_run[column.key] for of_run in by_run if column.key in of_run]
        if len(of_column) < len(members):
            continue
        difference = method_difference(members, [base], [column]) if base is not None and trained else None
        cells[column.key] = dataclasses.replace(mean_cell(members, [column], of_column), difference=difference)
    label = _label(members, titles)
    base_label = titles[id(base)] if base is not None else run.base
    return ModelRow(
        title=_under_base(members, group, titles) if base is not None and trained else label,
        cells=cells,
        label=label,
        method=run.method,
        base=base_label if trained else label,
        is_base=not trained,
        members=members,
        seeds=_seed_rows(members, by_run, titles),
    )


def _cells(run: StoredRun, columns: Sequence[Column]) -> dict[str, Cell]:
    """Return the cells of one run; an average over other scores than the column's is flagged."""
    cells = {}
    for column in columns:
        cell = cell_of(run, column)
        if cell is not None:
            flags = cell.flags if _over_all(run, column, columns) else (*cell.flags, PARTIAL)
            cells[column.key] = dataclasses.replace(cell, flags=flags)
    return cells


def _seed_rows(
    members: Sequence[StoredRun], by_run: Sequence[Mapping[str, Cell]], titles: Mapping[int, str]
) -> list[SeedRow]:
    if len(members) == 1:
        return []
    return [SeedRow(_seed(run), titles[id(run)], cells) for run, cells in zip(members, by_run, strict=True)]


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


def _label(members: Sequence[StoredRun], titles: Mapping[int, str]) -> str:
    """Return the name of a run, or what the names of a method's runs have in common, and their number."""
    names = [titles[id(run)] for run in members]
    if len(names) == 1:
        return names[0]
    characters = takewhile(lambda at: len(set(at)) == 1, zip(*names, strict=False))
    common = "".join(first for first, *_ in characters).rstrip(string.digits).rstrip("-_./ ")
    return f"{common or names[0]}, {len(names)} seeds"


def _under_base(members: Sequence[StoredRun], group: Sequence[tuple[StoredRun, ...]], titles: Mapping[int, str]) -> str:
    """Return `+ DPO`, followed by what distinguishes it from others of the same method."""
    run = members[0]
    if run.method not in METHODS.values():
        return f"+ {_label(members, titles)}"
    alike = [other for other in group if other[0].method == run.method]
    seeds = f", {len(members)} seeds" if len(members) > 1 else ""
    if len(alike) == 1:
        return f"+ {run.method}{seeds}"
    same_seed = [other for other in alike if len(other) == 1 and _seed(other[0]) == _seed(run)]
    if all(len(other) == 1 for other in alike) and len(same_seed) == 1:
        return f"+ {run.method}, seed {_seed(run)}"
    return f"+ {run.method}, {_label(members, titles)}"


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
