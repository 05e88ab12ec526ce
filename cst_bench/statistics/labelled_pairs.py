"""Judge error in a paired difference of two runs.

- `labelled_difference`: people labelled a random part of the responses of both runs. The estimate is post-stratified
  by the two verdicts on a prompt, which is prediction-powered inference for a judge with few values (PPI++,
  Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453, section 6): judge error that differs between the runs is
  corrected, too.
- `judge_error_bounds`: nobody labelled them. The bounds are those of a judge that errs, in each run, at most as often
  as its calibration allows, in whichever direction (partial identification: Manski 2003, chapter 1).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cst_bench.statistics.correction import MIN_LABELLED
from cst_bench.statistics.intervals import Interval
from cst_bench.statistics.paired import Difference, shares_difference

PPI = "PPI++"
_DRAWS = 20_000
_NEUTRAL = 1 / 6
"""Prior count of each of the three differences, half a label in all: chosen for coverage in simulations."""
_JEFFREYS = 1 / 2

Pair = tuple[bool | None, bool | None]
"""Whether the response of the first run does what was asked, and that of the second; None is unscored, or unsure."""


@dataclass(frozen=True)
class _Stratum:
    """Prompts with the same verdicts, labelled with the same probability."""

    n: int
    guess: float
    """Difference of the verdicts, an unscored one being half."""
    lowest: tuple[int, ...]
    """True difference of each labelled prompt; unsure ones as low as they may be."""
    highest: tuple[int, ...]


def labelled_difference(
    verdicts: Mapping[str, Pair], labels: Mapping[str, Pair], drawn_from: Mapping[str, Hashable] | None = None
) -> Difference | None:
    """Return first minus second share by people's labels; None if fewer than 20 prompts have labels in both runs.

    The strata are the pairs of verdicts. In each, the labelled prompts say how often the true difference is 1, 0 or -1;
    strata are weighted by their numbers. A stratum without labels keeps the judge's difference in the estimate, and any
    difference in the interval. Interval and p value are of posterior draws; the prior of a stratum is
    Dirichlet(1/6, 1/6, 1/6). Where labellers were unsure, the interval holds those of the lowest and the highest
    differences that they leave open, the estimate is in the middle, and p is the larger one. Where all prompts are
    labelled, interval and p are those of the labels alone.

    Args:
        verdicts: Prompt → verdicts on both runs' responses, for all prompts that both were asked.
        labels: Prompt → labels of both, for a random part of them.
        drawn_from: Prompt → what else decided how likely it was to be labelled.
    """
    labelled = {key: pair for key, pair in labels.items() if key in verdicts}
    if len(labelled) < MIN_LABELLED:
        return None
    if len(labelled) == len(verdicts) and all(None not in pair for pair in labelled.values()):
        sides = [{key: float(bool(pair[side])) for key, pair in labelled.items()} for side in (0, 1)]
        return replace(shares_difference(sides[0], sides[1]), test=PPI)
    strata = _strata(verdicts, labelled, drawn_from or {})
    lowest, highest = _posterior(strata, "lowest"), _posterior(strata, "highest")
    estimate = (lowest.estimate + highest.estimate) / 2
    return Difference(
        estimate,
        (min(lowest.low, estimate), max(highest.high, estimate)),
        max(lowest.p, highest.p) if lowest == highest or lowest.estimate * highest.estimate > 0 else 1.0,
        len(verdicts),
        PPI,
        tuple(sorted(key for key, (ours, theirs) in verdicts.items() if ours and theirs is False)),
        tuple(sorted(key for key, (ours, theirs) in verdicts.items() if theirs and ours is False)),
    )


def _strata(
    verdicts: Mapping[str, Pair], labels: Mapping[str, Pair], drawn_from: Mapping[str, Hashable]
) -> list[_Stratum]:
    members: dict[tuple[Pair, Hashable], list[str]] = {}
    for key in sorted(verdicts):
        members.setdefault((verdicts[key], drawn_from.get(key)), []).append(key)
    strata = []
    for (pair, _), keys in members.items():
        ours, theirs = (0.5 if verdict is None else float(verdict) for verdict in pair)
        known = [labels[key] for key in keys if key in labels]
        lowest = tuple(int(first is True) - int(second is not False) for first, second in known)
        highest = tuple(int(first is not False) - int(second is True) for first, second in known)
        strata.append(_Stratum(len(keys), ours - theirs, lowest, highest))
    return strata


@dataclass(frozen=True)
class _Posterior:
    estimate: float
    low: float
    high: float
    p: float


def _posterior(strata: Sequence[_Stratum], end: Literal["lowest", "highest"]) -> _Posterior:
    draw = np.random.default_rng(0)
    sizes = np.array([stratum.n for stratum in strata])
    weights = draw.dirichlet(sizes + _JEFFREYS, _DRAWS)
    drawn = np.zeros(_DRAWS)
    estimate = 0.0
    for stratum, share, weight in zip(strata, sizes / sizes.sum(), weights.T, strict=True):
        values = stratum.lowest if end == "lowest" else stratum.highest
        shares = draw.dirichlet([values.count(value) + _NEUTRAL for value in (1, 0, -1)], _DRAWS)
        drawn += weight * (shares[:, 0] - shares[:, 2])
        estimate += float(share) * (sum(values) / len(values) if values else stratum.guess)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return _Posterior(estimate, float(low), float(high), _two_sided(drawn))


def _two_sided(drawn: NDArray[np.float64]) -> float:
    """Return the two-sided p value of 0; where no draw is beyond it, of a normal with the draws' mean and deviation."""
    from scipy.stats import norm

    tail = min(float(np.mean(drawn <= 0)), float(np.mean(drawn >= 0)))
    if tail == 0:
        tail = float(norm.sf(abs(drawn.mean()) / drawn.std()))
    return min(1.0, 2 * tail)


def largest_rate(n: int, wrong: int) -> float:
    """Return the upper end of the 95 % interval of an error rate (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    return 1.0 if wrong >= n else float(beta.ppf(0.975, wrong + 1, n - wrong))


def judge_error_bounds(ours: float, theirs: float, *, missed: float, alarms: float) -> Interval:
    """Return how small and how large the true difference may be, given two shares by the judge's verdicts.

    Each run's true share lies between the one where all wrong verdicts are false alarms and the one where all are
    misses.

    Args:
        ours: Share of the first run, by the judge.
        theirs: Share of the second run.
        missed: Largest share of the responses with the behaviour that the judge misses.
        alarms: Largest share of the others that it takes for it.
    """
    our_ends, their_ends = (_true_shares(share, missed, alarms) for share in (ours, theirs))
    return our_ends[0] - their_ends[1], our_ends[1] - their_ends[0]


def _true_shares(share: float, missed: float, alarms: float) -> Interval:
    """Return the lowest and the highest true share p behind a share of verdicts, p (1 - missed) + (1 - p) alarms."""
    low = 0.0 if alarms >= 1 else (share - alarms) / (1 - alarms)
    high = 1.0 if missed >= 1 else share / (1 - missed)
    return max(0.0, low), min(1.0, high)
