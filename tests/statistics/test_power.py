"""The smallest difference that a comparison can show: against simulated power, and against other formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.power import tt_ind_solve_power

from cst_bench.statistics.paired import LEVEL, bootstrap_difference, mcnemar_mid_p, shares_difference
from cst_bench.statistics.power import detectable, detectable_share


@pytest.mark.parametrize(("n", "differing"), [(52, 0), (52, 10), (200, 20), (200, 60), (1000, 30)])
def test_the_mid_p_test_has_the_power(n: int, differing: int) -> None:
    delta = detectable_share(n, differing)
    assert delta is not None
    psi = max(delta, differing / n)
    draw = np.random.default_rng(0)
    counts = draw.multinomial(n, [(psi + delta) / 2, (psi - delta) / 2, 1 - psi], 3000)
    shown = np.mean([mcnemar_mid_p(int(gained), int(lost)) < LEVEL for gained, lost, _ in counts])
    assert 0.77 <= shown <= 0.9


@given(st.integers(0, 300), st.data())
def test_more_pairs_show_smaller_differences(n: int, data: st.DataObject) -> None:
    differing = data.draw(st.integers(0, n))
    delta = detectable_share(n, differing)
    if delta is None:
        assert n < 4
        return
    assert 0 < delta <= 1
    more = detectable_share(2 * n, 2 * differing)
    assert more is not None
    assert more < delta


def test_means_are_shown_from_2_8_standard_errors() -> None:
    draw = np.random.default_rng(1)
    scores = {f"d{at}": float(value) for at, value in enumerate(draw.random(400))}
    shifted = {key: value + float(draw.normal(0, 0.2)) for key, value in scores.items()}
    difference = bootstrap_difference([(shifted, scores)])
    deviation = np.std([shifted[key] - scores[key] for key in scores], ddof=1)
    # a paired comparison of n is one of two groups of 2 n each, with the same standard error
    effect = tt_ind_solve_power(nobs1=2 * 400, alpha=LEVEL, power=0.8)
    assert detectable(difference) == pytest.approx(effect * deviation, rel=0.05)


def test_nothing_is_shown_by_nothing() -> None:
    assert detectable(shares_difference({}, {})) is None
    assert detectable(bootstrap_difference([])) is None
    assert detectable_share(3, 1) is None
