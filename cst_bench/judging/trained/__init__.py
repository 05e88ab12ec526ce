"""Judges of kind `classifier`: local text classifiers that `cst-bench judge train` fits."""

from cst_bench.judging.trained.features import FEATURES_VERSION, Features, declines, extract_features
from cst_bench.judging.trained.text_classifier import (
    TEXTS,
    FeatureSettings,
    TextClassifier,
    Vocabulary,
    decision_scores,
    dump_text_classifier,
    feature_matrix,
    learn_vocabulary,
    load_text_classifier,
)
from cst_bench.judging.trained.trained_judge import FILE_MODEL, ClassifierFile, ClassifierJudge, make

__all__ = [
    "FEATURES_VERSION",
    "FILE_MODEL",
    "TEXTS",
    "ClassifierFile",
    "ClassifierJudge",
    "FeatureSettings",
    "Features",
    "TextClassifier",
    "Vocabulary",
    "decision_scores",
    "declines",
    "dump_text_classifier",
    "extract_features",
    "feature_matrix",
    "learn_vocabulary",
    "load_text_classifier",
    "make",
]
