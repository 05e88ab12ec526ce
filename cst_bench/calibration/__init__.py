"""Judges against labels: labelled responses, calibration cards, adversarial responses, and training a judge."""

from cst_bench.calibration.calibration import CalibrateOptions, CalibrationResult, calibrate
from cst_bench.calibration.judge_comparison import JudgeBench, JudgeBenchOptions, judge_bench
from cst_bench.judging.card import CalibrationCard

__all__ = [
    "CalibrateOptions",
    "CalibrationCard",
    "CalibrationResult",
    "JudgeBench",
    "JudgeBenchOptions",
    "calibrate",
    "judge_bench",
]
