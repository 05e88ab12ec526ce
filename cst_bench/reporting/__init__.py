"""What a run looks like to people: the Markdown report and the table on the terminal, from one model of the content."""

from cst_bench.reporting.run_markdown import write_report
from cst_bench.reporting.terminal import summary_table

__all__ = ["summary_table", "write_report"]
