"""Small Markdown tables of runs and comparisons, which notebooks show in place of a result."""

from __future__ import annotations

from cst_bench.escape import cell as escaped
from cst_bench.numbers import number, p_value, signed, signed_ends
from cst_bench.reporting.comparison.comparison import Comparison
from cst_bench.reporting.leaderboard.board import Leaderboard
from cst_bench.reporting.leaderboard.build import make_leaderboard
from cst_bench.reporting.leaderboard.markdown import column_groups, footnote_letter, score_cell
from cst_bench.reporting.stored_run import StoredRun


def run_table(run: StoredRun) -> str:
    """Return the scores of a run as Markdown tables: compliance, then capabilities."""
    return board_tables(make_leaderboard([run]))


def board_tables(board: Leaderboard) -> str:
    """Return models and scores as Markdown tables, with the meanings of the flags."""
    parts = []
    for section in board.sections:
        for group in column_groups(section):
            titles = " | ".join(escaped(column.title) for column in group.columns)
            lines = [f"| Model | {titles} |", f"|---|{'---:|' * len(group.columns)}"]
            for row in section.rows:
                cells = " | ".join(score_cell(row, column) for column in group.columns)
                lines.append(f"| {escaped(row.title)} | {cells} |")
            parts.append("\n".join(lines))
    parts += [f"{footnote_letter(flag)} {escaped(flag)}: {escaped(meaning)}" for flag, meaning in board.flags.items()]
    return "\n\n".join(parts) + "\n"


def comparison_table_markdown(comparison: Comparison) -> str:
    """Return a comparison as one Markdown table."""
    lines = [
        f"**{escaped(comparison.label)}** minus **{escaped(comparison.baseline)}**\n",
        "| Score | Baseline | Run | Difference | 95 % interval | p | p (Holm) | Detectable | n |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for score in comparison.scores:
        scale, difference = score.column.scale, score.difference
        values = (
            number(score.baseline, scale),
            number(score.score, scale),
            signed(difference.difference, scale),
            signed_ends(difference.interval, scale),
            p_value(difference.p),
            p_value(score.p_holm),
            number(score.detectable, scale),
            str(difference.n),
        )
        lines.append(f"| {escaped(score.column.title)} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"
