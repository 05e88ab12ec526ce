"""Text classifier of a trained judge: TF-IDF and cues, logistic regression, calibrated probabilities, and its file.

The file is in skops' format, which unlike a pickle runs no code when it is loaded. It holds arrays and scikit-learn
objects; a file that holds any other type is refused.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cst_bench.content import Content
from cst_bench.errors import UserError
from cst_bench.judging.trained.features import ANSWER_COLUMNS, CUES, FEATURES_VERSION, Features, Grams

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

TEXTS = ("opening", "body", "characters")
"""Parts of `Features` that are weighed by TF-IDF."""


class FeatureSettings(Content):
    """Features that a classifier was trained on, and their weights; features of larger weight are regularised less."""

    version: Annotated[int, Field(ge=1)] = FEATURES_VERSION
    """Version of the features' definition."""
    opening: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the first words."""
    body: Annotated[float, Field(gt=0)] = 3.0
    """Weight of all words."""
    characters: Annotated[float, Field(gt=0)] = 0.5
    """Weight of the first characters."""
    cues: Annotated[float, Field(gt=0)] = 0.1
    """Weight of a cue, in standard deviations."""
    answer: Annotated[float, Field(gt=0)] = 0.6
    """Weight of the cues that sum up how a response answers."""


@dataclass(frozen=True)
class Vocabulary:
    """Grams of one of `TEXTS`, and their TF-IDF weights."""

    columns: Mapping[str, int]
    """Gram → column."""
    weigher: TfidfTransformer
    """Fitted transformer."""

    def transform(self, texts: Sequence[Grams]) -> csr_matrix:
        """Return the TF-IDF of each gram in each text, shape (texts, grams)."""
        return self.weigher.transform(_count(self.columns, texts))


def _count(columns: Mapping[str, int], texts: Sequence[Grams]) -> csr_matrix:
    """Return the count of each gram in each text, shape (texts, grams).

    Equal to scikit-learn's `CountVectorizer` on lists of grams, and four times as fast.
    """
    from scipy import sparse

    other = len(columns)  # a column for unknown grams, which is dropped
    indices = np.fromiter(map(columns.get, chain.from_iterable(texts), repeat(other)), dtype=np.int32)
    starts = np.cumsum([0, *map(len, texts)])
    counts = sparse.csr_matrix((np.ones(len(indices)), indices, starts), shape=(len(texts), other + 1))
    counts.sum_duplicates()
    return counts[:, :other]


def learn_vocabulary(texts: Sequence[Grams], min_texts: int) -> Vocabulary:
    """Return the vocabulary of texts: the grams that at least `min_texts` of them contain."""
    from sklearn.feature_extraction.text import TfidfTransformer

    frequencies = Counter(gram for text in texts for gram in set(text))
    grams = sorted(gram for gram, frequency in frequencies.items() if frequency >= min_texts)
    columns = {gram: column for column, gram in enumerate(grams)}
    return Vocabulary(columns, TfidfTransformer(sublinear_tf=True).fit(_count(columns, texts)))


@dataclass(frozen=True)
class TextClassifier:
    """Fitted classifier."""

    vocabularies: Mapping[str, Vocabulary]
    """One for each of `TEXTS`."""
    scaler: StandardScaler
    """Standardises the cues."""
    weights: LogisticRegression
    """Scores all features."""
    calibrator: LogisticRegression | None
    """Turns the scores of `weights` into probabilities (Platt 1999); None before it is fitted."""


def load_text_classifier(data: bytes, path: Path, classes: int) -> TextClassifier:
    """Load a classifier from the bytes of its file; nothing in them is run.

    Raises:
        UserError: not a skops file, one with types that are not scikit-learn's or numpy's own, or not a classifier with
            this number of classes.
    """
    from skops.io import get_untrusted_types, loads

    try:
        untrusted = get_untrusted_types(data=data)
        if untrusted:
            raise UserError(
                f"{path} holds types that no judge needs, and is not loaded: {', '.join(sorted(untrusted))}"
            )
        return _unpack(loads(data), classes)
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, IndexError, ImportError) as error:
        raise UserError(f"{path} is not the model of a trained judge: {type(error).__name__}: {error}") from None


def _unpack(stored: Mapping[str, Any], classes: int) -> TextClassifier:
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    vocabularies = {
        name: Vocabulary(
            {gram: column for column, gram in enumerate(stored[name]["grams"].tolist())}, stored[name]["weigher"]
        )
        for name in TEXTS
    }
    scaler, weights, calibrator = stored["scaler"], stored["weights"], stored["calibrator"]
    width = sum(len(vocabulary.columns) for vocabulary in vocabularies.values()) + len(CUES)
    scores = 1 if classes == 2 else classes
    if not (
        all(type(vocabulary.weigher) is TfidfTransformer for vocabulary in vocabularies.values())
        and all(v.weigher.idf_.shape == (len(v.columns),) for v in vocabularies.values())
        and type(scaler) is StandardScaler
        and type(weights) is type(calibrator) is LogisticRegression
        and weights.coef_.shape == (scores, width)
        and calibrator.coef_.shape == (scores, scores)
        and scaler.mean_.shape == scaler.scale_.shape == (len(CUES),)
        and weights.classes_.tolist() == calibrator.classes_.tolist() == list(range(classes))
    ):
        raise ValueError("its parts don't fit together")
    return TextClassifier(vocabularies, scaler, weights, calibrator)


def dump_text_classifier(classifier: TextClassifier) -> bytes:
    """Return the file of a classifier: the same bytes for the same classifier, on every machine."""
    from skops.io import dumps

    texts = {
        name: {"grams": np.array(list(vocabulary.columns), dtype=str), "weigher": vocabulary.weigher}
        for name, vocabulary in classifier.vocabularies.items()
    }
    return _reproducible(
        dumps(
            {
                **texts,
                "scaler": classifier.scaler,
                "weights": classifier.weights,
                "calibrator": classifier.calibrator,
            }
        )
    )


def _reproducible(data: bytes) -> bytes:
    """Return a skops file without times, with objects numbered by their order instead of their addresses."""
    numbers: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        return match[1] + numbers.setdefault(match[2], str(len(numbers))) + match[3]

    with zipfile.ZipFile(io.BytesIO(data)) as old:
        schema = re.sub(r'("__id__": |"file": ")(\d+)(\.npy"|)', number, old.read("schema.json").decode())
        arrays = {f"{numbers[name[:-4]]}.npy": old.read(name) for name in old.namelist() if name.endswith(".npy")}
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name, content in (*sorted(arrays.items()), ("schema.json", schema.encode())):
            new.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return target.getvalue()


def feature_matrix(
    vocabularies: Mapping[str, Vocabulary], scaler: StandardScaler, settings: FeatureSettings, features: Features
) -> csr_matrix:
    """Return the weighted features of cases, shape (cases, features)."""
    from scipy import sparse

    texts = [getattr(settings, name) * vocabularies[name].transform(getattr(features, name)) for name in TEXTS]
    weight = np.full(len(CUES), settings.cues)
    weight[ANSWER_COLUMNS] = settings.answer
    return sparse.hstack([*texts, sparse.csr_matrix(scaler.transform(features.cues) * weight)], format="csr")


def decision_scores(weights: LogisticRegression, matrix: csr_matrix) -> NDArray[np.float64]:
    """Return the decision scores of a feature matrix, shape (cases, classes), or (cases, 1) for two classes."""
    return np.asarray(weights.decision_function(matrix), dtype=np.float64).reshape(matrix.shape[0], -1)


def class_probabilities(
    classifier: TextClassifier, settings: FeatureSettings, features: Features
) -> NDArray[np.float64]:
    """Return the probability of each class under a uniform prior, shape (cases, classes)."""
    assert classifier.calibrator is not None
    matrix = feature_matrix(classifier.vocabularies, classifier.scaler, settings, features)
    scores = decision_scores(classifier.weights, matrix)
    return np.asarray(classifier.calibrator.predict_proba(scores), dtype=np.float64)
