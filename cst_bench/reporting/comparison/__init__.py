"""Compare two runs, paired, with gates for CI."""

from cst_bench.reporting.comparison.comparison import ComparedScore, Comparison, compare_runs
from cst_bench.reporting.comparison.gates import Gate, GateResult, judge_gate, parse_gate
from cst_bench.reporting.comparison.junit import junit_xml

__all__ = [
    "ComparedScore",
    "Comparison",
    "Gate",
    "GateResult",
    "compare_runs",
    "judge_gate",
    "junit_xml",
    "parse_gate",
]
