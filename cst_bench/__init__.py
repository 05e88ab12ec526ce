"""cst-bench: does a model do what its system prompt configures, did it stay capable, can the judge be believed?

    import cst_bench

    result = cst_bench.run(cst_bench.RunOptions(limit=20))      # the embedded checkpoint on the tiny suite
    result.to_frame()                                           # scores as a pandas data frame
    cst_bench.compare("runs/base", "runs/cst")                  # a table in a notebook

Importing this package is cheap: a name is imported when it is used, and torch, transformers, Inspect, lm-eval and TRL
where they are needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cst_bench.calibration import (
        CalibrateOptions,
        CalibrationCard,
        CalibrationResult,
        JudgeBench,
        JudgeBenchOptions,
        calibrate,
        judge_bench,
    )
    from cst_bench.checkpoint import CheckpointOptions, EngineOptions, convert
    from cst_bench.errors import CstBenchError, GateError, Interrupted, UserError
    from cst_bench.judging import JudgeOptions
    from cst_bench.preferences import (
        CritiqueOptions,
        CritiqueResult,
        FlipOptions,
        FlipResult,
        MixResult,
        MixSource,
        critique,
        flip,
        mix,
    )
    from cst_bench.record import Manifest, Outcomes, Receipt, Scores
    from cst_bench.reporting import (
        Comparison,
        Leaderboard,
        StoredRun,
        VerifiedRun,
        compare,
        load_run,
        report,
        verify,
    )
    from cst_bench.runs import JudgeRunOptions, RunOptions, RunResult, ScoreOptions, judge_run, run, score_file
    from cst_bench.tuning import TrainOptions, TrainResult, train

__version__ = "0.1.0"

_HOMES = {
    "cst_bench.calibration": (
        "CalibrateOptions",
        "CalibrationCard",
        "CalibrationResult",
        "JudgeBench",
        "JudgeBenchOptions",
        "calibrate",
        "judge_bench",
    ),
    "cst_bench.checkpoint": ("CheckpointOptions", "EngineOptions", "convert"),
    "cst_bench.errors": ("CstBenchError", "GateError", "Interrupted", "UserError"),
    "cst_bench.judging": ("JudgeOptions",),
    "cst_bench.preferences": (
        "CritiqueOptions",
        "CritiqueResult",
        "FlipOptions",
        "FlipResult",
        "MixResult",
        "MixSource",
        "critique",
        "flip",
        "mix",
    ),
    "cst_bench.record": ("Manifest", "Outcomes", "Receipt", "Scores"),
    "cst_bench.reporting": (
        "Comparison",
        "Leaderboard",
        "StoredRun",
        "VerifiedRun",
        "compare",
        "load_run",
        "report",
        "verify",
    ),
    "cst_bench.runs": (
        "JudgeRunOptions",
        "RunOptions",
        "RunResult",
        "ScoreOptions",
        "judge_run",
        "run",
        "score_file",
    ),
    "cst_bench.tuning": ("TrainOptions", "TrainResult", "train"),
}
_HOME = {name: package for package, names in _HOMES.items() for name in names}

__all__ = [
    "CalibrateOptions",
    "CalibrationCard",
    "CalibrationResult",
    "CheckpointOptions",
    "Comparison",
    "CritiqueOptions",
    "CritiqueResult",
    "CstBenchError",
    "EngineOptions",
    "FlipOptions",
    "FlipResult",
    "GateError",
    "Interrupted",
    "JudgeBench",
    "JudgeBenchOptions",
    "JudgeOptions",
    "JudgeRunOptions",
    "Leaderboard",
    "Manifest",
    "MixResult",
    "MixSource",
    "Outcomes",
    "Receipt",
    "RunOptions",
    "RunResult",
    "ScoreOptions",
    "Scores",
    "StoredRun",
    "TrainOptions",
    "TrainResult",
    "UserError",
    "VerifiedRun",
    "__version__",
    "calibrate",
    "compare",
    "convert",
    "critique",
    "flip",
    "judge_bench",
    "judge_run",
    "load_run",
    "mix",
    "report",
    "run",
    "score_file",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its package when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
