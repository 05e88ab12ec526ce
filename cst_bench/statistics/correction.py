"""Correction of shares for judge error.

Two methods, depending on what is known of the judge on the reported responses:

- `ppi`: people labelled a random part of these responses. Prediction-powered inference with power tuning (PPI++,
  Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453, section 6). For a share and a binary judge its estimate
  is the post-stratified one: the labelled share among the responses that the judge calls positive, and among the
  others, weighted by their numbers. `stratified` is the same for any number of strata, and for unsure labels.
- `rogan_gladen`: none of them was labelled, and the error rates of the judge's calibration are used (Rogan and Gladen
  1978). It is valid as far as the judge errs on these responses as it did on the labelled ones.

Intervals are 95 % and equal-tailed, from posterior draws of the binomial shares in the estimate:
Jeffreys priors (Brown, Cai and DasGupta 2001) for Rogan-Gladen, Beta(1/3, 1/3) (Kerman 2011) for the strata of PPI++,
which may hold few labels. The normal intervals of both papers cover far too little for small samples and shares near 0
or 1; `benchmarks/coverage.py` measures the coverage of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Draws = NDArray[np.float64]
DRAWS = 4000
MIN_LABELLED = 20
"""Minimum number of labelled responses of a configuration for PPI++."""
_JEFFREYS, _NEUTRAL = 0.5, 1 / 3
TRANSFERRED = "the judge errs on these responses as it does on those of its calibration"
SAMPLED = "the labelled responses are a random part of those with the same verdict"
AUDITED = "the second judge is right; it was asked about a random part of the responses that the first was sure of"


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
    """Estimate the true share of a behaviour from a judge's verdicts and its error rates (Rogan and Gladen 1978).

    Return estimate, lower and upper end, each of the inputs' shape; NaN where undefined: where the judge is not clearly
    better than chance, that is, sensitivity + specificity - 1 is not above 0 in 97.5 % of the draws.

    Args:
        k: Number of responses judged to show the behaviour.
        n: Number of responses judged.
        tp: Calibration: labelled with the behaviour, and judged so.
        fn: Calibration: labelled with it, judged otherwise.
        fp: Calibration: labelled otherwise, judged to show it.
        tn: Calibration: labelled otherwise, and judged so.
        seed: Random seed of the posterior draws.
        draws: Number of posterior draws.
    """
    inputs = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in (k, n, tp, fn, fp, tn)))
    positive, total, hit, missed, wrong, right = (value[..., None] for value in inputs)
    draw = np.random.default_rng(seed)
    share = _posterior(draw, positive, total - positive, _JEFFREYS, draws)
    sensitivity = _posterior(draw, hit, missed, _JEFFREYS, draws)
    false_alarm = _posterior(draw, wrong, right, _JEFFREYS, draws)
    quality = sensitivity - false_alarm
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.clip((share - false_alarm) / quality, 0, 1)
        alarms = wrong / (wrong + right)
        point = np.clip((positive / total - alarms) / (hit / (hit + missed) - alarms), 0, 1)[..., 0]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=-1)
    usable = (np.quantile(quality, 0.025, axis=-1) > 0) & ~np.isnan(point)
    return _with_ends(np.where(usable, point, np.nan), low, high)


def ppi(
    k: int | Draws,
    n: int,
    *,
    yes: tuple[int | Draws, int | Draws],
    no: tuple[int | Draws, int | Draws],
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[Draws, Draws, Draws]:
    """Estimate the true share of a behaviour from labels of a random part (PPI++, Angelopoulos et al. 2023, section 6).

    Return estimate, lower and upper end. Where no response that the judge calls positive (or negative) is labelled, the
    estimate takes the judge's verdict, and the interval allows any share.

    Args:
        k: Number of responses judged to show the behaviour.
        n: Number of responses judged, including the labelled ones.
        yes: Labelled responses that the judge calls positive: (show it, do not).
        no: Labelled responses that the judge calls negative: (show it, do not).
        seed: Random seed of the posterior draws.
        draws: Number of posterior draws.
    """
    inputs = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in (k, n, *yes, *no)))
    positive, total, yes_shown, yes_not, no_shown, no_not = (value[..., None] for value in inputs)
    draw = np.random.default_rng(seed)
    weight = _posterior(draw, positive, total - positive, _JEFFREYS, draws)
    drawn = weight * _posterior(draw, yes_shown, yes_not, _NEUTRAL, draws)
    drawn = drawn + (1 - weight) * _posterior(draw, no_shown, no_not, _NEUTRAL, draws)
    with np.errstate(divide="ignore", invalid="ignore"):
        among_yes = np.where(yes_shown + yes_not > 0, yes_shown / (yes_shown + yes_not), 1.0)
        among_no = np.where(no_shown + no_not > 0, no_shown / (no_shown + no_not), 0.0)
    point = (positive / total * among_yes + (1 - positive / total) * among_no)[..., 0]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=-1)
    return _with_ends(point, low, high)


@dataclass(frozen=True)
class Stratum:
    """Responses of which a random part is labelled. Expected numbers of labels may be fractions."""

    n: int
    """Number of responses."""
    shown: float
    """Labelled responses that show the behaviour."""
    hidden: float
    """Labelled responses that do not."""
    unsure: float = 0
    """Labelled responses of which the labellers could not say."""
    guess: float | None = None
    """Share to assume if nothing is labelled; None: that of the other strata, and any share in the interval."""


def stratified(strata: Sequence[Stratum], *, seed: int = 0, draws: int = DRAWS) -> tuple[float, float, float]:
    """Estimate a share from strata of which a random part is labelled (Cochran 1977, section 5A.9).

    Return estimate, lower and upper end. With the strata of a judge's verdicts it is `ppi`. A stratum counts by its
    size, whatever part of it is labelled; it may be labelled as a whole.

    What is not known is bounded and not assumed (Manski 1989, Journal of Human Resources 24; Horowitz and Manski 2000,
    JASA 95): the interval reaches from the lower end with no unsure response showing the behaviour to the upper
    end with all of them showing it, and so for strata without labels and guess. It covers every share in between, with
    95 % or more (Imbens and Manski 2004, Econometrica 72). The estimate counts an unsure response as half a one.

    Args:
        strata: Disjoint parts of the responses, at least one of which is not empty.
        seed: Random seed of the posterior draws.
        draws: Number of posterior draws.
    """
    sizes, shown, hidden, unsure = (
        np.array([getattr(stratum, name) for stratum in strata], dtype=float)
        for name in ("n", "shown", "hidden", "unsure")
    )
    labelled = shown + hidden + unsure
    guess = np.array([np.nan if stratum.guess is None else stratum.guess for stratum in strata])
    unknown = (labelled == 0) & np.isnan(guess)

    def extreme(more_shown: Draws, of_unknown: float) -> tuple[Draws, float]:
        """Return draws of the share and its estimate, with so many of the unsure responses showing the behaviour."""
        yes, no = shown + more_shown, hidden + unsure - more_shown
        draw = np.random.default_rng(seed)
        weights = draw.dirichlet(sizes + _JEFFREYS, draws)
        among = np.where(unknown, of_unknown, draw.beta(yes + _NEUTRAL, no + _NEUTRAL, size=(draws, len(strata))))
        means = np.where(labelled > 0, yes / np.where(labelled > 0, labelled, 1), guess)
        return (weights * among).sum(1), float((sizes * np.where(unknown, of_unknown, means)).sum() / sizes.sum())

    (lowest, least), (highest, most) = extreme(np.zeros_like(unsure), 0.0), extreme(unsure, 1.0)
    low, high = min(float(np.quantile(lowest, 0.025)), least), max(float(np.quantile(highest, 0.975)), most)
    left_out = float(sizes[unknown].sum() / sizes.sum())  # the estimate is of the others
    point = (least + most - left_out) / 2 / (1 - left_out) if left_out < 1 else 0.5
    return point, min(low, point), max(high, point)


def _posterior(draw: np.random.Generator, successes: Draws, failures: Draws, prior: float, draws: int) -> Draws:
    shape = np.broadcast_shapes(successes.shape, failures.shape)[:-1]
    drawn: Draws = draw.beta(successes + prior, failures + prior, size=(*shape, draws))
    return drawn


def _with_ends(point: Draws, low: Draws, high: Draws) -> tuple[Draws, Draws, Draws]:
    """Widen an interval to an estimate on the boundary, which lies past the ends of the draws."""
    undefined = np.isnan(point)
    return (
        point,
        np.where(undefined, np.nan, np.minimum(low, point)),
        np.where(undefined, np.nan, np.maximum(high, point)),
    )
