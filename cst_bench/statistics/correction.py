"""Scores with the judge's error in them.

Two ways, by what is known of the judge on the responses that are reported:

- `ppi`: a random part of these responses was labelled by people. Prediction-powered inference with power tuning (PPI++,
  Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453, section 6). For a share and a judge that says yes or no its
  estimate is the post-stratified one: the labelled share among the responses that the judge says yes to, and among the
  others, weighted by how often it says which.
- `rogan_gladen`: nothing of them was labelled, and the error rates of the judge's calibration are taken over (Rogan and
  Gladen 1978). It holds as far as the judge errs on these responses as on the labelled ones.

Intervals are 95 % and equal-tailed, from draws of the posterior of the binomial shares that the estimate is made of:
Jeffreys priors (Brown, Cai and DasGupta 2001) for Rogan-Gladen, Beta(1/3, 1/3) (Kerman 2011) for the strata of PPI++,
which may hold few labels. The normal intervals of both papers cover far too little for small samples and shares near 0
or 1; `benchmarks/coverage.py` shows how often these and those hold the truth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Draws = NDArray[np.float64]
DRAWS = 4000
MIN_LABELLED = 20
"""Fewer labelled responses of a configuration are too few for PPI++."""
_JEFFREYS, _NEUTRAL = 0.5, 1 / 3
TRANSFERRED = "the judge errs on these responses as it does on those of its calibration"
SAMPLED = "the labelled responses are a random part of these"


def rogan_gladen(
    k: int | Draws,
    n: int,
    *,
    tp: int | Draws,
    fn: int | Draws,
    fp: int | Draws,
    tn: int | Draws,
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[Draws, Draws, Draws]:
    """Share that truly shows a behaviour: estimate, lower and upper end, each of the inputs' shape; NaN if undefined.

    It is undefined where the judge is not clearly better than chance: where sensitivity + specificity - 1 is not above
    0 in 97.5 % of the draws.

    Args:
        k: Responses that the judge says show it.
        n: Responses judged.
        tp: Of the calibration: labelled with the behaviour, and judged so.
        fn: Labelled with it, and judged otherwise.
        fp: Labelled otherwise, and judged to show it.
        tn: Labelled otherwise, and judged so.
        seed: Of the draws.
        draws: How many.
    """
    given = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in (k, n, tp, fn, fp, tn)))
    said, total, hit, missed, wrong, right = (value[..., None] for value in given)
    draw = np.random.default_rng(seed)
    share = _posterior(draw, said, total - said, _JEFFREYS, draws)
    sensitivity = _posterior(draw, hit, missed, _JEFFREYS, draws)
    false_alarm = _posterior(draw, wrong, right, _JEFFREYS, draws)
    quality = sensitivity - false_alarm
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.clip((share - false_alarm) / quality, 0, 1)
        alarms = wrong / (wrong + right)
        point = np.clip((said / total - alarms) / (hit / (hit + missed) - alarms), 0, 1)[..., 0]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=-1)
    usable = (np.quantile(quality, 0.025, axis=-1) > 0) & ~np.isnan(point)
    return _with_ends(np.where(usable, point, np.nan), low, high)


def ppi(
    said: int | Draws,
    n: int,
    *,
    yes: tuple[int | Draws, int | Draws],
    no: tuple[int | Draws, int | Draws],
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[Draws, Draws, Draws]:
    """Share that truly shows a behaviour, from labels of a random part: estimate, lower and upper end.

    Where none of the responses that the judge says yes (or no) to is labelled, its word is taken in the estimate, and
    anything is possible in the interval.

    Args:
        said: Responses that the judge says show it.
        n: Responses judged, the labelled ones among them.
        yes: Of the labelled ones that the judge says yes to: (show it, do not).
        no: Of the labelled ones that the judge says no to: (show it, do not).
        seed: Of the draws.
        draws: How many.
    """
    given = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in (said, n, *yes, *no)))
    judged, total, yes_shown, yes_not, no_shown, no_not = (value[..., None] for value in given)
    draw = np.random.default_rng(seed)
    weight = _posterior(draw, judged, total - judged, _JEFFREYS, draws)
    drawn = weight * _posterior(draw, yes_shown, yes_not, _NEUTRAL, draws)
    drawn = drawn + (1 - weight) * _posterior(draw, no_shown, no_not, _NEUTRAL, draws)
    with np.errstate(divide="ignore", invalid="ignore"):
        among_yes = np.where(yes_shown + yes_not > 0, yes_shown / (yes_shown + yes_not), 1.0)
        among_no = np.where(no_shown + no_not > 0, no_shown / (no_shown + no_not), 0.0)
    point = (judged / total * among_yes + (1 - judged / total) * among_no)[..., 0]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=-1)
    return _with_ends(point, low, high)


def _posterior(draw: np.random.Generator, successes: Draws, failures: Draws, prior: float, draws: int) -> Draws:
    shape = np.broadcast_shapes(successes.shape, failures.shape)[:-1]
    drawn: Draws = draw.beta(successes + prior, failures + prior, size=(*shape, draws))
    return drawn


def _with_ends(point: Draws, low: Draws, high: Draws) -> tuple[Draws, Draws, Draws]:
    """An estimate on the boundary lies past the draws' ends: the interval takes it in."""
    undefined = np.isnan(point)
    return (
        point,
        np.where(undefined, np.nan, np.minimum(low, point)),
        np.where(undefined, np.nan, np.maximum(high, point)),
    )


def labels_needed(width: float, share_said: float, precision: float, miss: float, n: int) -> int | None:
    """How many of n responses to label so that the interval of PPI++ is no wider than `width` to either side.

    Expects what a judge with this share of yes, this precision (share of its yes that is right) and this rate of misses
    among its no would show; None if labelling all of them is not enough.
    """

    def half(labelled: int) -> float:
        among_yes = labelled * share_said
        among_no = labelled - among_yes
        _, low, high = ppi(
            np.asarray(n * share_said),
            n,
            yes=(np.asarray(among_yes * precision), np.asarray(among_yes * (1 - precision))),
            no=(np.asarray(among_no * miss), np.asarray(among_no * (1 - miss))),
        )
        return float(high - low) / 2

    if half(n) > width:
        return None
    below, enough = MIN_LABELLED - 1, n
    while enough - below > 1:
        middle = (below + enough) // 2
        below, enough = (below, middle) if half(middle) <= width else (middle, enough)
    return enough
