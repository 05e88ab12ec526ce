"""Correction of shares for judge error.

Two methods, depending on what is known of the judge on the reported responses:

- `ppi`: people labelled a random part of these responses. Prediction-powered inference with power tuning (PPI++,
  Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453, section 6). For a share and a binary judge its estimate
  is the post-stratified one: the labelled share among the responses that the judge calls positive, and among the
  others, weighted by their numbers.
- `rogan_gladen`: none of them was labelled, and the error rates of the judge's calibration are used (Rogan and Gladen
  1978). It is valid as far as the judge errs on these responses as it did on the labelled ones. Where the calibration
  has responses of several models, the interval allows for a model that the judge reads as differently as it does those
  (`between_models`); a share that no error rates of the card can produce is not corrected.

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

from cst_bench.statistics.between_models import rate_of_another_model

Draws = NDArray[np.float64]
DRAWS = 4000
MIN_LABELLED = 20
"""Minimum number of labelled responses of a configuration for PPI++."""
_JEFFREYS, _NEUTRAL = 0.5, 1 / 3
CONTRADICTED = 0.025
"""Probability below which the calibration is taken to be contradicted by a share of verdicts."""
SAMPLED = "the labelled responses are a random part of these"
AUDITED = "the second judge is right; it was asked about a random part of the responses that the first was sure of"


@dataclass(frozen=True)
class ErrorRates:
    """A judge's error rates: estimates, shape (…), and posterior draws, shape (…, draws)."""

    sensitivity: Draws
    """Share of the responses with the behaviour that are judged so."""
    false_alarm: Draws
    """Share of the others that are judged to show it: 1 − specificity."""
    drawn_sensitivity: Draws
    drawn_false_alarm: Draws

    @property
    def better_than_chance(self) -> NDArray[np.bool_]:
        """Return whether sensitivity + specificity − 1 is above 0 in 97.5 % of the draws, shape (…)."""
        quality = self.drawn_sensitivity - self.drawn_false_alarm
        better: NDArray[np.bool_] = np.quantile(quality, 0.025, axis=-1) > 0
        return better & ~np.isnan(self.sensitivity - self.false_alarm)


def pooled_rates(
    *, tp: int | Draws, fn: int | Draws, fp: int | Draws, tn: int | Draws, seed: int = 0, draws: int = DRAWS
) -> ErrorRates:
    """Return error rates that all models share, from pooled counts.

    Args:
        tp: Labelled with the behaviour, and judged so.
        fn: Labelled with it, judged otherwise.
        fp: Labelled otherwise, judged to show it.
        tn: Labelled otherwise, and judged so.
        seed: Random seed of the posterior draws.
        draws: Number of posterior draws.
    """
    hit, missed, wrong, right = np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in (tp, fn, fp, tn)))
    draw = np.random.default_rng([seed, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        return ErrorRates(
            hit / (hit + missed),
            wrong / (wrong + right),
            _posterior(draw, hit[..., None], missed[..., None], _JEFFREYS, draws),
            _posterior(draw, wrong[..., None], right[..., None], _JEFFREYS, draws),
        )


def rates_between_models(
    models: Sequence[tuple[int, int, int, int]], *, seed: int = 0, draws: int = DRAWS
) -> ErrorRates:
    """Return error rates of another model like those of the calibration: medians and draws.

    Args:
        models: Counts of each model, two at least: tp, fn, fp, tn as in `pooled_rates`.
        seed: Random seed of the posterior draws.
        draws: Number of posterior draws.
    """
    draw = np.random.default_rng([seed, 1])
    sensitivity = rate_of_another_model([(tp, fn) for tp, fn, _, _ in models], draw, draws)
    false_alarm = rate_of_another_model([(fp, tn) for _, _, fp, tn in models], draw, draws)
    typical, typical_alarm = (np.asarray(np.median(rate)) for rate in (sensitivity, false_alarm))
    return ErrorRates(typical, typical_alarm, sensitivity, false_alarm)


def rogan_gladen(k: int | Draws, n: int, rates: ErrorRates, *, seed: int = 0) -> tuple[Draws, Draws, Draws]:
    """Estimate the true share of a behaviour from a judge's verdicts and its error rates (Rogan and Gladen 1978).

    Return estimate, lower and upper end, each of the inputs' shape; NaN where undefined: where the judge is not clearly
    better than chance, or the verdicts contradict the rates (`contradicted`).

    Args:
        k: Number of responses judged to show the behaviour.
        n: Number of responses judged.
        rates: Error rates of the judge.
        seed: Random seed of the posterior draws.
    """
    share = _drawn_share(k, n, rates, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.clip((share - rates.drawn_false_alarm) / (rates.drawn_sensitivity - rates.drawn_false_alarm), 0, 1)
        point = np.clip((np.asarray(k) / n - rates.false_alarm) / (rates.sensitivity - rates.false_alarm), 0, 1)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=-1)
    usable = rates.better_than_chance & ~contradicted(k, n, rates, seed=seed)
    return _with_ends(np.where(usable, point, np.nan), low, high)


def contradicted(k: int | Draws, n: int, rates: ErrorRates, *, seed: int = 0) -> NDArray[np.bool_]:
    """Return whether a share of verdicts is one that a judge with these error rates cannot give, shape (…).

    Whatever the true share, verdicts show the behaviour in a share between 1 − specificity and sensitivity. The two are
    in conflict (Evans and Moshonov 2006, Bayesian Analysis 1, on a prior and data) if the probability that the share of
    verdicts is at most the sensitivity, or that it is at least 1 − specificity, is below 0.025: the probability is over
    the posteriors of the share and of the rates, so that it allows for sampling error of both.

    Args:
        k: Number of responses judged to show the behaviour.
        n: Number of responses judged.
        rates: Error rates of the judge.
        seed: Random seed of the posterior draws.
    """
    share = _drawn_share(k, n, rates, seed)
    below, above = share <= rates.drawn_sensitivity, share >= rates.drawn_false_alarm
    conflict: NDArray[np.bool_] = np.minimum(below.mean(-1), above.mean(-1)) < CONTRADICTED
    return conflict


def _drawn_share(k: int | Draws, n: int, rates: ErrorRates, seed: int) -> Draws:
    positive = np.asarray(k, dtype=float)[..., None]
    draws = rates.drawn_sensitivity.shape[-1]
    return _posterior(np.random.default_rng(seed), positive, n - positive, _JEFFREYS, draws)


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
    """Responses of which a random part is labelled."""

    n: int
    """Number of responses."""
    shown: int
    """Labelled responses that show the behaviour."""
    hidden: int
    """Labelled responses that do not."""
    guess: float = 0.5
    """Share to assume if nothing is labelled."""


def stratified(strata: Sequence[Stratum], *, seed: int = 0, draws: int = DRAWS) -> tuple[float, float, float]:
    """Estimate a share from strata of which a random part is labelled (Cochran 1977, section 5A.9).

    Return estimate, lower and upper end. With the strata of a judge's verdicts it is `ppi`; a stratum may also be
    labelled as a whole. Where a stratum has no label, its share may be anything, and the estimate takes its guess.

    Args:
        strata: Disjoint parts of the responses, at least one of which is not empty.
        seed: Random seed of the posterior draws.
        draws: Number of posterior draws.
    """
    sizes, shown, hidden, guess = (
        np.array([getattr(stratum, name) for stratum in strata], dtype=float)
        for name in ("n", "shown", "hidden", "guess")
    )
    draw = np.random.default_rng(seed)
    weights = draw.dirichlet(sizes + _JEFFREYS, draws)
    shares = draw.beta(shown + _NEUTRAL, hidden + _NEUTRAL, size=(draws, len(strata)))
    low, high = np.quantile((weights * shares).sum(1), [0.025, 0.975])
    labelled = shown + hidden
    means = np.where(labelled > 0, shown / np.maximum(labelled, 1), guess)
    point = float((sizes * means).sum() / sizes.sum())
    return point, min(float(low), point), max(float(high), point)


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


def labels_needed(width: float, positive: float, precision: float, miss: float, n: int) -> int | None:
    """Return the number of responses to label for a half-width of the PPI++ interval; None if n is not enough.

    Args:
        width: Target half-width of the 95 % interval.
        positive: Share of responses that the judge calls positive.
        precision: Expected share of those that truly are.
        miss: Expected share of true positives among the others.
        n: Number of responses judged.
    """

    def half_width(labelled: int) -> float:
        among_yes = labelled * positive
        among_no = labelled - among_yes
        _, low, high = ppi(
            np.asarray(n * positive),
            n,
            yes=(np.asarray(among_yes * precision), np.asarray(among_yes * (1 - precision))),
            no=(np.asarray(among_no * miss), np.asarray(among_no * (1 - miss))),
        )
        return float(high - low) / 2

    if half_width(n) > width:
        return None
    below, enough = MIN_LABELLED - 1, n
    while enough - below > 1:
        middle = (below + enough) // 2
        below, enough = (below, middle) if half_width(middle) <= width else (middle, enough)
    return enough
