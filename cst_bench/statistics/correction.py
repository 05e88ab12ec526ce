"""Correction of shares for judge error.

Two methods, depending on what is known of the judge on the reported responses:

- `ppi`: people labelled a random part of these responses. Prediction-powered inference with power tuning (PPI++,
  Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453, section 6). For a share and a binary judge its estimate
  is the post-stratified one: the labelled share among the responses that the judge calls positive, and among the
  others, weighted by their numbers. `stratified` is the same for any number of strata, and for unsure labels.
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
SAMPLED = "the labelled responses are a random part of those with the same verdict"
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


def rogan_gladen(k: float | Draws, n: float, rates: ErrorRates, *, seed: int = 0) -> tuple[Draws, Draws, Draws]:
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


def contradicted(k: float | Draws, n: float, rates: ErrorRates, *, seed: int = 0) -> NDArray[np.bool_]:
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


def _drawn_share(k: float | Draws, n: float, rates: ErrorRates, seed: int) -> Draws:
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
