"""Fitting of the text classifier of a local judge, with cross-validated scores.

Responses labelled by construction do not all show what they were made for: a model asked for the forbidden often
declines. Such responses are found in two steps. A response with another label that declines (by its cues) is not used
in training; and where a model trained on the rest, which has not seen its prompt, says that it declines, it is used
with that label. Labels by somebody who read the response are left as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cst_bench.calibration.augmentation import augment
from cst_bench.calibration.labels import FROM_PAIR, Labelled
from cst_bench.files import prompt_hash
from cst_bench.judging.trained import (
    TEXTS,
    Features,
    FeatureSettings,
    TextClassifier,
    decision_scores,
    declines,
    extract_features,
    feature_matrix,
    learn_vocabulary,
)

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

SURE = 0.75
"""Minimum probability for relabelling a response that contradicts its label."""
_RARE = 3
"""Minimum number of training responses with a word or character sequence of the vocabulary."""


@dataclass(frozen=True)
class FitOptions:
    """Options of a fit."""

    seed: int = 0
    folds: int = 5
    penalty: float = 2.0
    """C of scikit-learn's logistic regression: higher is less regularised."""
    features: FeatureSettings = field(default_factory=FeatureSettings)


@dataclass(frozen=True)
class Fit:
    """A fitted model and its cross-validated probabilities."""

    model: TextClassifier
    held_out: NDArray[np.float64]
    """Probabilities of each response by a model that saw no response to its prompt, shape (responses, classes)."""
    contradicted: NDArray[np.bool_]
    """Whether each response contradicts its label."""
    relabelled: NDArray[np.bool_]
    """Whether each was relabelled."""
    declining: int | None
    """Index of the class of responses that decline, if there is one."""


def fit(rows: Sequence[Labelled], classes: Sequence[str], options: FitOptions) -> Fit:
    """Fit a model to distinct labelled responses.

    Args:
        rows: The responses.
        classes: All their labels.
        options: Seed, folds, regularisation and weights.
    """
    data = _prepare(rows, classes, options)
    labels = data.classes[: data.n]
    scored = _held_out(data, options)
    calibrator = _calibrator(scored, labels, ~data.contradicted)
    relabelled = np.zeros(data.n, dtype=bool)
    if data.declining is not None:
        relabelled = data.contradicted & (calibrator.predict_proba(scored)[:, data.declining] >= SURE)
    if data.declining is not None and relabelled.any():
        data = _relabel(data, relabelled, data.declining)
        scored = _held_out(data, options)
        calibrator = _calibrator(scored, labels, ~data.contradicted)
    model = replace(_fit(data, options, data.used), calibrator=calibrator)
    return Fit(model, calibrator.predict_proba(scored), data.contradicted, relabelled, data.declining)


@dataclass(frozen=True)
class _Data:
    """Responses, followed by their augmentations."""

    features: Features
    source: NDArray[np.int64]
    """Index of the response that each row is or augments."""
    joined: NDArray[np.bool_]
    """Whether each row is followed by another response."""
    classes: NDArray[np.int64]
    folds: NDArray[np.int64]
    declining: int | None
    contradicted: NDArray[np.bool_]
    """Whether each response (without augmentations) contradicts its label."""
    used: NDArray[np.bool_]

    @property
    def n(self) -> int:
        return len(self.contradicted)


def _prepare(rows: Sequence[Labelled], classes: Sequence[str], options: FitOptions) -> _Data:
    number = {name: at for at, name in enumerate(classes)}
    labels = np.array([number[row.behaviour] for row in rows])
    folds = _folds([prompt_hash(row.case.prompt) for row in rows], labels, options)
    originals = extract_features([row.case for row in rows])
    declining = _declining(declines(originals), labels)
    constructed = np.array([row.by == FROM_PAIR for row in rows])
    contradicted = constructed & declines(originals) & (labels != declining) & (declining is not None)
    augmentations = augment(rows, folds.tolist(), contradicted.tolist(), options.seed)
    source = np.array([*range(len(rows)), *(item.source for item in augmentations)])
    augmented = extract_features([item.case for item in augmentations])
    # an augmentation can be truncated to its warning
    spoilt = declines(augmented) & (labels[source[len(rows) :]] != declining) & (declining is not None)
    return _Data(
        features=_join(originals, augmented),
        source=source,
        joined=np.array([*(False for _ in rows), *(item.joined for item in augmentations)]),
        classes=labels[source],
        folds=folds[source],
        declining=declining,
        contradicted=contradicted,
        used=~contradicted[source] & ~np.concatenate([np.zeros(len(rows), dtype=bool), spoilt]),
    )


def _folds(prompts: Sequence[str], classes: NDArray[np.int64], options: FitOptions) -> NDArray[np.int64]:
    """Return the fold of each response; all responses to a prompt are in the same one."""
    from sklearn.model_selection import StratifiedGroupKFold

    divider = StratifiedGroupKFold(options.folds, shuffle=True, random_state=options.seed)
    folds = np.zeros(len(classes), dtype=np.int64)
    for fold, (_, held) in enumerate(divider.split(classes, classes, prompts)):
        folds[held] = fold
    return folds


def _declining(declining: NDArray[np.bool_], classes: NDArray[np.int64]) -> int | None:
    """Return the class whose responses decline at least twice as often as the others', and significantly so.

    Fisher's exact test (Fisher 1922), p below 0.001; None if there is no such class.
    """
    from scipy.stats import fisher_exact

    for label in sorted(set(classes.tolist())):
        inside, outside = declining[classes == label], declining[classes != label]
        table = [[inside.sum(), (~inside).sum()], [outside.sum(), (~outside).sum()]]
        if inside.mean() >= 2 * outside.mean() and fisher_exact(table, alternative="greater").pvalue < 0.001:
            return int(label)
    return None


def _relabel(data: _Data, relabelled: NDArray[np.bool_], declining: int) -> _Data:
    """Return the data with some responses, and their unjoined augmentations, in the class of those that decline."""
    changed = relabelled[data.source] & ~data.joined
    return replace(data, classes=np.where(changed, declining, data.classes), used=data.used | changed)


def _fit(data: _Data, options: FitOptions, mask: NDArray[np.bool_]) -> TextClassifier:
    """Fit a model without probabilities to some of the data."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features = _take(data.features, mask)
    vocabularies = {name: learn_vocabulary(getattr(features, name), _RARE) for name in TEXTS}
    scaler = StandardScaler().fit(features.cues)
    weights = LogisticRegression(C=options.penalty, class_weight="balanced", max_iter=2000)
    weights.fit(feature_matrix(vocabularies, scaler, options.features, features), data.classes[mask])
    return TextClassifier(vocabularies, scaler, weights, None)


def _held_out(data: _Data, options: FitOptions) -> NDArray[np.float64]:
    """Return the scores of each response by a model that did not see its prompt, shape (responses, 1 or classes)."""
    scores: list[NDArray[np.float64]] = []
    at: list[NDArray[np.int64]] = []
    for fold in range(options.folds):
        model = _fit(data, options, data.used & (data.folds != fold))
        held = np.flatnonzero(data.folds[: data.n] == fold)
        matrix = feature_matrix(model.vocabularies, model.scaler, options.features, _take(data.features, held))
        scores.append(decision_scores(model.weights, matrix))
        at.append(held)
    return np.concatenate(scores)[np.argsort(np.concatenate(at))]


def _calibrator(scored: NDArray[np.float64], classes: NDArray[np.int64], mask: NDArray[np.bool_]) -> LogisticRegression:
    """Fit probabilities to held-out scores (Platt 1999)."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(class_weight="balanced").fit(scored[mask], classes[mask])


def _take(features: Features, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Features:
    """Return some rows, by number or by mask."""
    at = (np.flatnonzero(rows) if rows.dtype == bool else rows).tolist()
    return Features(
        [features.opening[i] for i in at],
        [features.body[i] for i in at],
        [features.characters[i] for i in at],
        features.cues[at],
    )


def _join(first: Features, second: Features) -> Features:
    return Features(
        first.opening + second.opening,
        first.body + second.body,
        first.characters + second.characters,
        np.vstack([first.cues, second.cues]),
    )
