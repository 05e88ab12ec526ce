"""How a run was made, as a report shows it. Run folders are made without a model; the judge's calls are records."""

from __future__ import annotations

from pathlib import Path

from cst_bench.reporting.run_facts import run_facts
from cst_bench.reporting.stored_run import read_run

from .stored_runs import make_run


def test_what_the_judge_cost_reaches_the_report(tmp_path: Path) -> None:
    facts = dict(run_facts(read_run(make_run(tmp_path / "run", "org/model", {})), "org/model").facts)
    assert facts["tokens, verdicts"] == "1,800 in, 180 out"
    assert facts["cost, verdicts"] == "0.10 USD"
