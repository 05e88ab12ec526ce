"""The model of a trained judge: how features become numbers, how numbers become probabilities, and its file.

The file is in skops' format, which unlike a pickle runs no code when it is loaded; it holds arrays and scikit-learn
objects, and a file that holds any other type is refused.
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
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cst_bench.content import Content
from cst_bench.errors import UserError
from cst_bench.judging.trained.features import ANSWER, CUES, VERSION, Features, Grams

TEXTS = ("opening", "body", "characters")
"""The parts of `Features` that are weighed by TF-IDF."""


class FeatureSettings(Content):
    """What a model was trained on, so that it is asked about the same."""

    version: Annotated[int, Field(ge=1)] = VERSION
    opening: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the first words; what weighs more is regularised less."""
    body: Annotated[float, Field(gt=0)] = 3.0
    """Weight of all words."""
    characters: Annotated[float, Field(gt=0)] = 0.5
    """Weight of the first characters."""
    cues: Annotated[float, Field(gt=0)] = 0.1
    """Weight of a cue, in standard deviations."""
    answer: Annotated[float, Field(gt=0)] = 0.6
    """Weight of the cues that sum up how a response answers."""


@dataclass(frozen=True)
class Wording:
    """What is known of the words of one of `TEXTS`."""

    vocabulary: Mapping[str, int]
    """Column of each gram."""
    weigher: Any
    """A fitted `TfidfTransformer`."""

    def counts(self, texts: Sequence[Grams]) -> Any:
        """How often each gram is in each text, a sparse row a text.

        As scikit-learn's `CountVectorizer` does with lists of grams, four times as fast.
        """
        from scipy import sparse

        other = len(self.vocabulary)
        columns = np.fromiter(map(self.vocabulary.get, chain.from_iterable(texts), repeat(other)), dtype=np.int32)
        starts = np.cumsum([0, *map(len, texts)])
        found = sparse.csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(texts), other + 1))
        found.sum_duplicates()
        return found[:, :other]

    def transform(self, texts: Sequence[Grams]) -> Any:
        """TF-IDF of each gram in each text, a sparse row a text."""
        return self.weigher.transform(self.counts(texts))


def learn_wording(texts: Sequence[Grams], rare: int) -> Wording:
    """The wording of some texts, without grams that fewer of them than `rare` hold."""
    from sklearn.feature_extraction.text import TfidfTransformer

    held = Counter(gram for text in texts for gram in set(text))
    kept = sorted(gram for gram, number in held.items() if number >= rare)
    plain = Wording({gram: at for at, gram in enumerate(kept)}, None)
    weigher = TfidfTransformer(sublinear_tf=True).fit(plain.counts(texts))
    return Wording(plain.vocabulary, weigher)


@dataclass(frozen=True)
class Model:
    """What training leaves: how texts become numbers, the weights, and what makes probabilities of scores."""

    wording: Mapping[str, Wording]
    """For each of `TEXTS`."""
    scaler: Any
    """A `StandardScaler` of the cues."""
    weights: Any
    """A `LogisticRegression` over everything."""
    calibrator: Any
    """A `LogisticRegression` over the scores of `weights` (Platt 1999)."""


def load_model(data: bytes, path: Path, classes: int) -> Model:
    """A model from the bytes of its file; nothing in them is run.

    Raises:
        UserError: no skops file, one with types that are not scikit-learn's or numpy's own, or no model of so many
            classes.
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
        raise UserError(f"{path} is no model of a trained judge: {type(error).__name__}: {error}") from None


def _unpack(stored: Any, classes: int) -> Model:
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    wording = {
        name: Wording({gram: at for at, gram in enumerate(stored[name]["grams"].tolist())}, stored[name]["weigher"])
        for name in TEXTS
    }
    scaler, weights, calibrator = stored["scaler"], stored["weights"], stored["calibrator"]
    width = sum(len(one.vocabulary) for one in wording.values()) + len(CUES)
    scores = 1 if classes == 2 else classes
    if not (
        all(type(one.weigher) is TfidfTransformer for one in wording.values())
        and all(one.weigher.idf_.shape == (len(one.vocabulary),) for one in wording.values())
        and type(scaler) is StandardScaler
        and type(weights) is type(calibrator) is LogisticRegression
        and weights.coef_.shape == (scores, width)
        and calibrator.coef_.shape == (scores, scores)
        and scaler.mean_.shape == scaler.scale_.shape == (len(CUES),)
        and weights.classes_.tolist() == calibrator.classes_.tolist() == list(range(classes))
    ):
        raise ValueError("its parts don't fit together")
    return Model(wording, scaler, weights, calibrator)


def store(model: Model) -> bytes:
    """The file of a model: the same bytes for the same model, whenever and wherever it is stored."""
    from skops.io import dumps

    texts = {
        name: {"grams": np.array(list(one.vocabulary), dtype=str), "weigher": one.weigher}
        for name, one in model.wording.items()
    }
    return _reproducible(
        dumps({**texts, "scaler": model.scaler, "weights": model.weights, "calibrator": model.calibrator})
    )


def _reproducible(data: bytes) -> bytes:
    """A skops file without the time, and with objects numbered by their order in place of their addresses."""
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


def matrix(wording: Mapping[str, Wording], scaler: Any, settings: FeatureSettings, given: Features) -> Any:
    """The weighted features of some cases as one sparse matrix, a row a case."""
    from scipy import sparse

    texts = [getattr(settings, name) * wording[name].transform(getattr(given, name)) for name in TEXTS]
    weight = np.full(len(CUES), settings.cues)
    weight[ANSWER] = settings.answer
    return sparse.hstack([*texts, sparse.csr_matrix(scaler.transform(given.cues) * weight)], format="csr")


def scores(model: Any, given: Any) -> NDArray[np.float64]:
    """The decision scores of logistic weights, a column a class, or a single one for two."""
    found: NDArray[np.float64] = np.asarray(model.decision_function(given)).reshape(given.shape[0], -1)
    return found


def probabilities(model: Model, settings: FeatureSettings, given: Features) -> NDArray[np.float64]:
    """The probability of each class, a row a case. All behaviours count as equally common beforehand."""
    found: NDArray[np.float64] = model.calibrator.predict_proba(
        scores(model.weights, matrix(model.wording, model.scaler, settings, given))
    )
    return found
