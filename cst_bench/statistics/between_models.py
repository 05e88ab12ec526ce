"""A rate that varies between models, and what it may be for another one: binomial counts with random effects.

The logit of a model's rate is normal around a mean with standard deviation tau, and its count is binomial given the
rate, as in meta-analyses of diagnostic tests (Chu and Cole 2006, Journal of Clinical Epidemiology 59; Hamza, van
Houwelingen and Stijnen 2008, ibid. 61). Few models say little of tau, so that it needs a prior: half-normal with scale
1, weakly informative for effects on the logit scale (Röver et al. 2021, Research Synthesis Methods 12). The mean has
Jeffreys' prior, so that equal rates lead to the posterior of pooled counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Draws = NDArray[np.float64]
TAU_SCALE = 1.0
_LOGITS = np.linspace(-10, 10, 401)
_DISTANCES = np.linspace(-20, 20, 801)
_STEP = 2
_MEANS = _LOGITS[::_STEP]
_TAUS = np.linspace(0, 4, 21)


def rate_of_another_model(counts: Sequence[tuple[int, int]], draw: np.random.Generator, draws: int) -> Draws:
    """Draw the rate of a model like those with counts, from its posterior predictive distribution; shape (draws,).

    The posterior is computed on a grid of mean and tau, with the models' own rates integrated out.

    Args:
        counts: Successes and failures of each model; models without either say nothing.
        draw: Source of randomness.
        draws: Number of draws.
    """
    from scipy.special import expit, log_expit

    hit, miss = log_expit(_LOGITS), log_expit(-_LOGITS)
    logs = np.array([successes * hit + failures * miss for successes, failures in counts])
    likelihoods = np.exp(logs - logs.max(-1, keepdims=True)).T  # (logits, models)
    log_posterior = np.empty((len(_TAUS), len(_MEANS)))
    for at, tau in enumerate(_TAUS):
        # one normal curve over all distances, and a window of it for each mean
        curve = np.exp(-((_DISTANCES / max(tau, 1e-3)) ** 2) / 2)
        shares = np.lib.stride_tricks.sliding_window_view(curve, len(_LOGITS))[::-_STEP]
        marginal = (shares @ likelihoods) / shares.sum(-1, keepdims=True)
        log_posterior[at] = np.log(np.maximum(marginal, 1e-300)).sum(-1) - (tau / TAU_SCALE) ** 2 / 2
    log_posterior += (log_expit(_MEANS) + log_expit(-_MEANS)) / 2
    posterior = np.exp(log_posterior - log_posterior.max()).ravel()
    chosen = draw.choice(posterior.size, draws, p=posterior / posterior.sum())
    tau_at, mean_at = np.unravel_index(chosen, log_posterior.shape)
    within = (draw.random(draws) - 0.5) * (_MEANS[1] - _MEANS[0])
    rates: Draws = expit(_MEANS[mean_at] + within + _TAUS[tau_at] * draw.standard_normal(draws))
    return rates
