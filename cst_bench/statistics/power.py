"""The smallest difference that a paired comparison can be expected to show: power 0.8 at the two-sided level 0.05."""

from __future__ import annotations

import math
from statistics import NormalDist

from cst_bench.statistics.paired import LEVEL, MCNEMAR, Difference

POWER = 0.8
_ALPHA, _BETA = NormalDist().inv_cdf(1 - LEVEL / 2), NormalDist().inv_cdf(POWER)


def detectable(difference: Difference) -> float | None:
    """Return the smallest true difference that a comparison of this size shows with power 0.8; None if that is over 1.

    Shares: as `detectable_share`, with the share of pairs that differed. Means: 2.80 standard errors (Miller 2024,
    arXiv 2411.00640, section 5), the standard error being the half-width of the 95 % interval over 1.96.
    """
    if difference.test == MCNEMAR:
        return detectable_share(difference.n, len(difference.gained) + len(difference.lost))
    if difference.interval is None:
        return None
    low, high = difference.interval
    smallest = (1 + _BETA / _ALPHA) * (high - low) / 2
    return smallest if smallest <= 1 else None


def detectable_share(n: int, differing: int) -> float | None:
    """Return the smallest difference of shares that McNemar's test shows with power 0.8; None if n is too small.

    Connor (1987, Biometrics 43, 207-211) needs n = (z_a √ψ + z_b √(ψ - δ²))² / δ² pairs for a difference δ, where ψ is
    the share of pairs that differ; it is solved for δ here. ψ can't be smaller than δ: where the observed ψ is, all
    pairs that differ are taken to differ in one direction (ψ = δ).

    Args:
        n: Number of pairs.
        differing: Pairs that differed.
    """
    if n <= _ALPHA**2:
        return None
    # Connor's equation is quadratic in δ, with the solution √ψ × root; and quadratic in √δ for ψ = δ, with √δ = root
    root = (_ALPHA * math.sqrt(n) + _BETA * math.sqrt(n - _ALPHA**2 + _BETA**2)) / (n + _BETA**2)
    return root * max(math.sqrt(differing / n), root)
