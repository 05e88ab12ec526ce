"""Reports of equal models: how often they claim a difference, through the code that makes reports."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "error_rates.py"


@pytest.fixture(scope="module")
def error_rates() -> ModuleType:
    """Load the benchmark, which has the simulation."""
    spec = importlib.util.spec_from_file_location("error_rates", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("models", "replications"),
    [(2, 200), pytest.param(3, 200, marks=pytest.mark.slow), pytest.param(5, 200, marks=pytest.mark.slow)],
)
def test_equal_models_seldom_have_a_bold_cell_or_a_lost_capability(
    error_rates: ModuleType, models: int, replications: int
) -> None:
    """Check at most 5 % of reports; 34 % had a bold cell when each column was corrected alone."""
    rates = error_rates.simulate_reports(np.random.default_rng(1), models, replications)
    assert rates.columns == 13
    assert rates.bold <= 0.05
    assert rates.capability <= 0.05


def test_gates_of_the_documentation_hold_their_error_rate(error_rates: ModuleType) -> None:
    """Check a shown loss and non-inferiority; the difference alone has no error rate."""
    rates = error_rates.simulate_gates(np.random.default_rng(1), 52, 400)
    assert rates.shown_loss <= 0.045  # 0.025, and what 400 draws of the worst of six shares add
    assert rates.loss_passed <= 0.045
    assert rates.point > 0.2
