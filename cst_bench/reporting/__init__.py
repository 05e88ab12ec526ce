"""Reports of one run and of several, comparisons and plots, all from one model of scores."""

from cst_bench.reporting.run_report import run_markdown, write_run_report
from cst_bench.reporting.stored_run import StoredRun, find_runs, read_run, read_runs
from cst_bench.reporting.terminal import summary_table

__all__ = ["StoredRun", "find_runs", "read_run", "read_runs", "run_markdown", "summary_table", "write_run_report"]
