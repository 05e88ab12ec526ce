"""The Python API: what `import cst_bench` gives, how results show in a notebook, and as data frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cst_bench
from tests.reporting.stored_runs import make_run

NAMES = {
    *(
        "run",
        "judge_run",
        "score_file",
        "calibrate",
        "judge_bench",
        "train",
        "critique",
        "flip",
        "mix",
        "report",
        "compare",
        "convert",
        "load_run",
        "verify",
    ),
    *("RunOptions", "JudgeRunOptions", "ScoreOptions", "CalibrateOptions", "TrainOptions", "CritiqueOptions"),
    *("FlipOptions", "MixSource", "CheckpointOptions", "EngineOptions", "JudgeOptions", "JudgeBenchOptions"),
    *(
        "RunResult",
        "StoredRun",
        "VerifiedRun",
        "CalibrationResult",
        "JudgeBench",
        "TrainResult",
        "CritiqueResult",
        "FlipResult",
        "MixResult",
        "CalibrationCard",
    ),
    *("Leaderboard", "Comparison", "Manifest", "Scores", "Outcomes", "Receipt"),
    *("CstBenchError", "UserError", "GateError", "Interrupted", "__version__"),
}


def test_the_public_names_are_these() -> None:
    assert set(cst_bench.__all__) == NAMES
    assert set(dir(cst_bench)) == NAMES
    for name in NAMES:
        assert getattr(cst_bench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        _ = cst_bench.runn


def test_every_public_name_has_a_docstring() -> None:
    for name in NAMES - {"__version__"}:
        assert getattr(cst_bench, name).__doc__, name


def test_importing_is_quick_in_imports() -> None:
    code = "import sys, cst_bench; print(len([m for m in sys.modules if m.startswith('cst_bench')]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_options_of_a_checkpoint_import_none_of_the_large_libraries() -> None:
    large = "('torch', 'transformers', 'inspect_ai', 'lm_eval', 'tqdm')"
    code = (
        f"import sys; import cst_bench; cst_bench.CheckpointOptions(); print([m for m in {large} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


RATES = {"S1": 0.7, "S0": 0.85, "S_RP": 0.8, "S_A": 0.95}


def test_a_stored_run_is_a_table_in_a_notebook_and_a_frame(tmp_path: Path) -> None:
    run = cst_bench.load_run(str(make_run(tmp_path / "run", "org/<b>model</b>", RATES)))
    table = run._repr_markdown_()
    assert "| Model | S1 | S0 | S\\_RP | S\\_A | Avg. |" in table
    assert "0.70" in table
    assert "<b>" not in table
    scores = run.to_frame().set_index(["task", "score_name"])
    assert scores.loc[("harmful_behaviors", "S1"), "score"] == pytest.approx(0.7)
    assert scores.loc[("harmful_behaviors", "S1"), "n"] == 40
    outcomes = run.outcomes_frame()
    asked = outcomes[outcomes.configuration == "S1"]
    assert asked.complied.astype(float).mean() == pytest.approx(0.7)
    documents = run.documents_frame()
    assert documents[documents.task == "mmlu"].score.mean() == pytest.approx(0.6)


def test_comparisons_and_reports_are_tables_and_frames(tmp_path: Path) -> None:
    base = make_run(tmp_path / "base", "base", RATES)
    cst = make_run(tmp_path / "cst", "cst", {**RATES, "S1": 1.0}, method="cst")
    comparison = cst_bench.compare(base, str(cst))
    assert "**cst** minus **base**" in comparison._repr_markdown_()
    frame = comparison.to_frame().set_index(["task", "score"])
    assert frame.loc[("harmful_behaviors", "S1"), "difference"] == pytest.approx(0.3)
    board = cst_bench.report([base, cst])
    assert "+ CST" in board._repr_markdown_()
    rows = board.to_frame()
    row = rows[(rows.model == "cst") & (rows.score_name == "S1")].iloc[0]
    assert row.difference == pytest.approx(0.3)
    cst_bench.report(tmp_path, out=tmp_path / "report", formats=("md", "csv"))
    assert (tmp_path / "report" / "report.md").is_file()
    assert (tmp_path / "report" / "report.csv").is_file()
