"""Reports of one run and of several, comparisons and plots, all from one model of scores."""

from cst_bench.reporting.comparison.comparison import Comparison, compare
from cst_bench.reporting.leaderboard.board import Leaderboard
from cst_bench.reporting.leaderboard.write import report
from cst_bench.reporting.run_report import run_markdown, write_run_report
from cst_bench.reporting.stored_run import StoredRun, find_runs, load_run, read_run, read_runs
from cst_bench.reporting.terminal import summary_table
from cst_bench.reporting.verification import VerifiedRun, verify

__all__ = [
    "Comparison",
    "Leaderboard",
    "StoredRun",
    "VerifiedRun",
    "compare",
    "find_runs",
    "load_run",
    "read_run",
    "read_runs",
    "report",
    "run_markdown",
    "summary_table",
    "verify",
    "write_run_report",
]
