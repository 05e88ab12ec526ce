"""Judges against labels: labelled responses, calibration cards, adversarial responses, and training a judge."""

from cst_bench.calibration.calibration import CalibrateOptions, CalibrationResult, calibrate
from cst_bench.judging.card import CalibrationCard

__all__ = ["CalibrateOptions", "CalibrationCard", "CalibrationResult", "calibrate"]
