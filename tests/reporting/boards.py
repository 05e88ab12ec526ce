"""Contents of reports of several runs, made from run folders that no model was needed for, and names that do harm."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from cst_bench.files import digest
from cst_bench.reporting.leaderboard.board import AskedBehaviour, Leaderboard, ModelRow, RunFacts, Section
from cst_bench.reporting.leaderboard.build import make_leaderboard
from cst_bench.reporting.score_cells import Cell, Column, ScoreTable, TableRow
from cst_bench.reporting.side_effects import SideEffectTable
from cst_bench.reporting.stored_run import read_run
from tests.reporting.stored_runs import calibration, judge, make_run

PAPER_BASE = "teknium/OpenHermes-2.5-Mistral-7B"
RATES = {
    None: {"S1": 0.73, "S0": 0.9, "S_RP": 0.82, "S_A": 0.97},
    "dpo": {"S1": 1.0, "S0": 0.12, "S_RP": 0.94, "S_A": 0.9},
    "cst": {"S1": 1.0, "S0": 0.92, "S_RP": 1.0, "S_A": 1.0},
}
ABLE = {
    None: {"arc_challenge": 0.65, "hellaswag": 0.84, "mmlu": 0.9, "truthfulqa_mc2": 0.5},
    "dpo": {"arc_challenge": 0.64, "hellaswag": 0.84, "mmlu": 0.4, "truthfulqa_mc2": 0.6},
    "cst": {"arc_challenge": 0.66, "hellaswag": 0.84, "mmlu": 0.9, "truthfulqa_mc2": 0.6},
}
LENGTHS = {"S1": [12, 30, 45], "S_A": [80, 95]}
"""Configuration → words of responses."""
HOSTILE = [
    "a | b <script>document.title = 'run'</script>",
    "\"><img src=http://127.0.0.1:9/x onerror=document.title='run'>",
    "{{ 7 * 7 }} {% raw %} << 7 >> <% raw %>",
    "</style></script></title><!-- ]]> -->",
    "$x^2$ \\frac{1}{2 \\end{document} \\input{/etc/passwd}",
    "a_b&c%d#e~f^g",
    "[3pt]",
    "*",
    "--''``,,<<>>?`!`\"",
    "x" * 200,
    "模型 Ünï–“ß” \U0001f600",
    "tab\tand\x00\x1b[31m\n\u202egnirts\ud800",
    "",
]


def family(folder: Path, base: str = PAPER_BASE) -> Leaderboard:
    """A base and its DPO and CST models, in two sections: the second has other prompts and another judge."""
    runs = [
        make_run(folder / f"{method}", base if method is None else f"{base}-{method}", rates, method=method, base=base,
                 base_sha=digest(base), capabilities=ABLE[method], lengths=LENGTHS, divergences={"S1": [0.1, 0.2]})
        for method, rates in RATES.items()
    ]  # fmt: skip
    runs.append(
        make_run(folder / "other", "org/other", {"S1": 0.5, "S0": 0.5}, judges={"truthy": judge("rules")}, prompts=10,
                 unscored=("S_A",), capabilities={},
                 calibrations={"harmful_behaviors": None, "truthy": calibration(0.5)})
    )  # fmt: skip
    board = make_leaderboard([read_run(run) for run in runs], ["A note."])
    first = board.sections[0]
    corrected = [
        dataclasses.replace(row, cells={key: _corrected(cell, key) for key, cell in row.cells.items()})
        for row in first.rows
    ]
    return dataclasses.replace(board, sections=[dataclasses.replace(first, rows=corrected), *board.sections[1:]])


def seeded(folder: Path, seeds: int = 3) -> Leaderboard:
    """A base and its CST models of several seeds."""
    runs = [make_run(folder / "base", PAPER_BASE, RATES[None], base=PAPER_BASE, capabilities=ABLE[None])]
    runs += [
        make_run(folder / f"{seed}", f"cst-{seed}", {**RATES["cst"], "S0": 0.9 - 0.2 * (seed == 1)}, method="cst",
                 base=PAPER_BASE, capabilities=ABLE["cst"], seed=seed)
        for seed in range(seeds)
    ]  # fmt: skip
    return make_leaderboard([read_run(run) for run in runs])


def _corrected(cell: Cell, key: str) -> Cell:
    if not key.endswith("/S1"):
        return cell
    return dataclasses.replace(cell, corrected=0.61, corrected_interval=(0.52, 0.69), corrected_by="rogan-gladen")


def _model_rows(table: ScoreTable) -> list[ModelRow]:
    return [row for row in table.rows if isinstance(row, ModelRow)]


def of_size(board: Leaderboard, models: int) -> Leaderboard:
    """As many models as wanted, in one section: the first ones again and again, under names of their own."""
    section = board.sections[0]

    def again(rows: list[ModelRow]) -> list[ModelRow]:
        copies = [rows[at % len(rows)] for at in range(models)]
        return [
            dataclasses.replace(row, label=f"{row.label} {at}", title=row.title if at % 3 else f"{row.title} {at}")
            for at, row in enumerate(copies)
        ]

    rows = again(list(section.rows))
    tables = [dataclasses.replace(table, rows=again(_model_rows(table))) for table in section.tables]
    made = dataclasses.replace(section, rows=rows, tables=tables)
    runs = [RunFacts(f"{board.runs[0].label} {at}", board.runs[0].facts) for at in range(models)]
    return dataclasses.replace(board, sections=[made], runs=runs)


def renamed(board: Leaderboard, name: Callable[[], str]) -> Leaderboard:
    """Return the same scores under other names: each text is renamed, and none where there was none."""

    def row(old: ModelRow) -> ModelRow:
        label = name()
        title = label if old.title == old.label else name() + "'"
        return dataclasses.replace(
            old,
            label=label,
            title=title,
            base=name(),
            method=None if old.method is None else name(),
            seeds=[dataclasses.replace(seed, label=name()) for seed in old.seeds],
        )

    def column(old: Column) -> Column:
        return dataclasses.replace(old, title=name(), task=None if old.task is None else name())

    def table(old: ScoreTable) -> ScoreTable:
        return ScoreTable(name(), [column(one) for one in old.columns], [_row(row, one) for one in old.rows])

    def side_effects(old: SideEffectTable) -> SideEffectTable:
        rows = [
            dataclasses.replace(one, task=name(), configuration=name(), label=name(), title=name()) for one in old.rows
        ]
        return SideEffectTable(old.measures, rows, [name() for _ in old.kl_bases])

    def section(old: Section) -> Section:
        return Section(
            title=name(),
            why=[name() for _ in old.why],
            columns=[column(one) for one in old.columns],
            rows=[row(one) for one in old.rows],
            tables=[table(one) for one in old.tables],
            capabilities=[
                dataclasses.replace(one, label=name(), title=name(), base=name(), column=name())
                for one in old.capabilities
            ],
            judges=[
                dataclasses.replace(one, task=name(), name=name(), model=name(), labels=name(), labelled_by=name())
                for one in old.judges
            ],
            asked=[AskedBehaviour(name(), name(), name()) for _ in old.asked],
            side_effects=None if old.side_effects is None else side_effects(old.side_effects),
        )  # fmt: skip

    return Leaderboard(
        title=name(),
        sections=[section(one) for one in board.sections],
        flags={flag: name() for flag in board.flags},
        notes=[name() for _ in board.notes],
        runs=[RunFacts(name(), [(name(), name()) for _ in run.facts]) for run in board.runs],
    )


def _row(rename: Callable[[ModelRow], ModelRow], row: TableRow) -> TableRow:
    assert isinstance(row, ModelRow)
    return rename(row)


def bare(board: Leaderboard) -> Leaderboard:
    """Without anything that may be missing: no capabilities, no judges, no tables, cells without a score, or none."""
    section = board.sections[0]
    columns = [column for column in section.columns if not column.percent]
    empty = {column.key: Cell(None, None, 0) for column in columns[1:]}
    rows = [dataclasses.replace(row, cells=empty) for row in section.rows]
    made = Section("", (), columns, rows, (), (), ())
    return Leaderboard(board.title, [made, Section("nothing", ["no task"], (), rows, (), (), ())], {}, (), ())
