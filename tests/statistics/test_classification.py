"""Every metric against scikit-learn's; intervals that cover at small n, and are a plain bootstrap's at large n."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from cst_bench.judging import NEITHER
from cst_bench.statistics.classification import (
    OVERALL,
    PER_BEHAVIOUR,
    ReliabilityBin,
    confusion,
    confusion_by_cluster,
    metric_estimates,
    metrics,
    reliability,
)
from cst_bench.statistics.intervals import UNDEFINED, Estimate

BEHAVIOURS = ("harmless", "uncensored")
CLASSES = (*BEHAVIOURS, NEITHER)
PAIRS = st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1, max_size=40)


def macro_f1(labels: Sequence[str], verdicts: Sequence[str]) -> float:
    present = [name for name in BEHAVIOURS if name in labels]
    return float(sk.f1_score(labels, verdicts, labels=present, average="macro", zero_division=0))


@given(PAIRS)
def test_metrics_are_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    labels, verdicts = [label for label, _ in pairs], [verdict for _, verdict in pairs]
    values = {name: float(v) for name, v in metrics(confusion(labels, verdicts, CLASSES), BEHAVIOURS).items()}
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels, verdicts, labels=list(BEHAVIOURS), zero_division=np.nan
    )
    for at, name in enumerate(BEHAVIOURS):
        assert values[f"{name}/precision"] == pytest.approx(precision[at], nan_ok=True)
        assert values[f"{name}/recall"] == pytest.approx(recall[at], nan_ok=True)
        assert values[f"{name}/f1"] == pytest.approx(f1[at], nan_ok=True)
    assert values["agreement"] == pytest.approx(sk.accuracy_score(labels, verdicts))
    if set(labels) & set(BEHAVIOURS):
        assert values["macro_f1"] == pytest.approx(macro_f1(labels, verdicts))
    else:
        assert math.isnan(values["macro_f1"])
    recalls = sk.recall_score(labels, verdicts, labels=sorted(set(labels)), average=None)
    assert values["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    if len(set(labels)) > 1 and len(set(verdicts)) > 1:  # else scikit-learn says 0 of a correlation with a constant
        assert values["mcc"] == pytest.approx(sk.matthews_corrcoef(labels, verdicts))
    else:
        assert math.isnan(values["mcc"])
    if len({*labels, *verdicts}) > 1:
        assert values["kappa"] == pytest.approx(sk.cohen_kappa_score(labels, verdicts))
    else:
        assert math.isnan(values["kappa"])


def rows(n: int, per_prompt: int) -> tuple[list[str], list[str], list[str]]:
    """Make labels, verdicts and prompts of a judge that errs on whole prompts, so that clustering matters."""
    draws = np.random.default_rng(3)
    labels: list[str] = []
    verdicts: list[str] = []
    for _ in range(n // per_prompt):
        label = str(draws.choice(CLASSES, p=[0.6, 0.3, 0.1]))
        verdict = label if draws.random() < 0.8 else str(draws.choice(CLASSES))
        labels += [label] * per_prompt
        verdicts += [verdict] * per_prompt
    return labels, verdicts, [str(at // per_prompt) for at in range(n)]


SLOW: dict[str, Callable[[list[str], list[str]], float]] = {
    "macro_f1": macro_f1,
    "kappa": sk.cohen_kappa_score,
    "mcc": sk.matthews_corrcoef,
    "harmless/recall": lambda labels, verdicts: float(
        sk.recall_score(labels, verdicts, labels=["harmless"], average=None)[0]
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("per_prompt", [1, 4])
def test_intervals_of_many_labels_are_those_of_a_plain_bootstrap_over_prompts(per_prompt: int) -> None:
    labels, verdicts, prompts = rows(1600, per_prompt)
    values = metric_estimates(confusion_by_cluster(labels, verdicts, CLASSES, prompts), BEHAVIOURS)
    draws = np.random.default_rng(7)
    groups = [[at for at, prompt in enumerate(prompts) if prompt == name] for name in dict.fromkeys(prompts)]
    resampled: dict[str, list[float]] = {name: [] for name in SLOW}
    for _ in range(400):
        chosen = [at for group in draws.integers(len(groups), size=len(groups)) for at in groups[group]]
        for name, metric in SLOW.items():
            resampled[name].append(metric([labels[at] for at in chosen], [verdicts[at] for at in chosen]))
    for name, sample in resampled.items():
        # the ends of 400 resamples vary by a seventh of a standard deviation or so
        tolerance = 0.45 * float(np.std(sample))
        assert values[name].interval == pytest.approx(np.quantile(sample, [0.025, 0.975]), abs=tolerance), name


def test_clustered_intervals_are_wider() -> None:
    labels, verdicts, prompts = rows(400, 4)
    width = {}
    for name, clusters in (("prompts", prompts), ("rows", [str(at) for at in range(400)])):
        low, high = metric_estimates(confusion_by_cluster(labels, verdicts, CLASSES, clusters), BEHAVIOURS)[
            "agreement"
        ].interval or (0.0, 0.0)
        width[name] = high - low
    assert width["prompts"] == pytest.approx(2 * width["rows"], rel=0.2)  # the square root of four rows a prompt


def test_the_same_seed_gives_the_same_interval_and_another_another() -> None:
    counts = confusion_by_cluster(*rows(100, 1)[:2], CLASSES, [str(at) for at in range(100)])
    assert metric_estimates(counts, BEHAVIOURS, seed=1) == metric_estimates(counts, BEHAVIOURS, seed=1)
    assert metric_estimates(counts, BEHAVIOURS, seed=1) != metric_estimates(counts, BEHAVIOURS, seed=2)


def test_what_is_undefined_is_none_and_never_0() -> None:
    labels, verdicts = ["harmless"] * 9, ["harmless"] * 9
    values = metric_estimates(confusion_by_cluster(labels, verdicts, CLASSES, [str(at) for at in range(9)]), BEHAVIOURS)
    assert [values[f"uncensored/{name}"] for name in ("precision", "recall", "f1")] == [UNDEFINED] * 3
    assert (values["mcc"], values["kappa"]) == (UNDEFINED, UNDEFINED)
    assert values["macro_f1"].value == 1.0
    one_prompt = metric_estimates(confusion_by_cluster(labels, verdicts, CLASSES, ["p"] * 9), BEHAVIOURS)
    assert one_prompt["macro_f1"] == Estimate(1.0, None)  # nobody knows how much prompts differ


def test_agreement_on_a_few_responses_is_no_proof() -> None:
    labels = ["harmless"] * 2 + ["uncensored"] * 2
    values = metric_estimates(confusion_by_cluster(labels, labels, CLASSES, list("abcd")), BEHAVIOURS)
    for name in (*OVERALL, *(f"{behaviour}/{metric}" for behaviour in BEHAVIOURS for metric in PER_BEHAVIOUR)):
        assert values[name].value == 1, name
        low, high = values[name].interval or (1.0, 0.0)
        assert low < 0.7, name  # the exact lower end for four of four is 0.40
        assert high == 1, name


def test_none_found_of_four_may_be_more_than_none() -> None:
    labels, verdicts = ["uncensored"] * 4 + ["harmless"] * 48, ["harmless"] * 52
    values = metric_estimates(confusion_by_cluster(labels, verdicts, CLASSES, list(map(str, range(52)))), BEHAVIOURS)
    for name in ("uncensored/recall", "uncensored/f1"):
        assert values[name].value == 0
        low, high = values[name].interval or (1.0, 0.0)
        assert low == 0
        assert 0.35 < high < 0.65  # exact, of recall: 0.60


@given(PAIRS, st.integers(1, 5), st.integers(1, 4))
@settings(deadline=None, max_examples=30)
def test_repeated_prompts_never_narrow_an_interval_and_every_interval_holds_its_value(
    pairs: list[tuple[str, str]], per_prompt: int, step: int
) -> None:
    labels, verdicts = [label for label, _ in pairs], [verdict for _, verdict in pairs]
    clusters = [str(at // per_prompt * step) for at in range(len(pairs))]
    clustered = metric_estimates(confusion_by_cluster(labels, verdicts, CLASSES, clusters), BEHAVIOURS)
    apart = metric_estimates(
        confusion_by_cluster(labels, verdicts, CLASSES, [str(at) for at in range(len(pairs))]), BEHAVIOURS
    )
    shares = {"agreement", *(f"{name}/{metric}" for name in BEHAVIOURS for metric in PER_BEHAVIOUR)}
    for name, estimate in apart.items():
        assert estimate.value == clustered[name].value
        if estimate.value is None:
            assert estimate == UNDEFINED
            continue
        low, high = estimate.interval or (1.0, -1.0)
        assert -1 <= low <= estimate.value <= high <= 1
        if clustered[name].interval is not None and name in shares:
            wide_low, wide_high = clustered[name].interval or (1.0, 0.0)
            assert wide_high - wide_low >= high - low - 1e-9


@pytest.mark.parametrize("share", [0.5, 0.15])
@pytest.mark.parametrize(("accuracy", "n"), [(0.8, 20), (0.98, 20), (0.95, 50), (0.9, 100)])
def test_intervals_cover_at_small_n(accuracy: float, n: int, share: float) -> None:
    """Count on 400 data sets; benchmarks/coverage.py has more of everything."""
    draw = np.random.default_rng(2)
    truth = np.array(
        [[share * accuracy, share * (1 - accuracy)], [(1 - share) * (1 - accuracy), (1 - share) * accuracy]]
    )
    expected = metrics(truth, BEHAVIOURS)
    covered: dict[str, list[bool]] = {}
    for table in draw.multinomial(n, truth.ravel(), 400).reshape(-1, 2, 2).astype(float):
        cells = [(label, verdict) for label in (0, 1) for verdict in (0, 1) for _ in range(int(table[label, verdict]))]
        apart = np.zeros((n, 2, 2))
        apart[range(n), [label for label, _ in cells], [verdict for _, verdict in cells]] = 1
        estimates = metric_estimates(apart, BEHAVIOURS)
        for name in ("macro_f1", "agreement", "kappa", "harmless/f1", "harmless/recall"):
            low, high = estimates[name].interval or (np.nan, np.nan)
            if table.sum(1).all() and not np.isnan(low):
                covered.setdefault(name, []).append(bool(low <= expected[name] <= high))
    for name, held in covered.items():
        assert len(held) > 350
        assert np.mean(held) >= 0.88, name  # Jeffreys' interval covers with 0.91 at some shares, give or take 0.015


def test_intervals_cover_where_a_judge_errs_on_whole_prompts() -> None:
    draw = np.random.default_rng(4)
    held = 0
    for _ in range(200):
        wrong = np.repeat(draw.random(30) < 0.1, 5)
        labels = np.where(draw.random(150) < 0.5, *BEHAVIOURS)
        other = np.where(labels == BEHAVIOURS[0], BEHAVIOURS[1], BEHAVIOURS[0])
        counts = confusion_by_cluster(
            labels.tolist(), np.where(wrong, other, labels).tolist(), BEHAVIOURS, [str(at // 5) for at in range(150)]
        )
        low, high = metric_estimates(counts, BEHAVIOURS)["agreement"].interval or (1.0, 0.0)
        held += low <= 0.9 <= high
    assert held / 200 >= 0.9


@given(st.lists(st.tuples(st.sampled_from(BEHAVIOURS), st.floats(0, 1)), min_size=1, max_size=60))
def test_brier_and_ece_as_they_are_defined(rows: list[tuple[str, float]]) -> None:
    assume(all(abs(10 * max(p, 1 - p) % 1) > 1e-6 for _, p in rows))  # on the edge of a bin either will do
    labels = [label for label, _ in rows]
    values = reliability(labels, [{"harmless": p, "uncensored": 1 - p} for _, p in rows], CLASSES)
    truth = [label == "harmless" for label in labels]
    assert values.brier == pytest.approx(2 * sk.brier_score_loss(truth, [p for _, p in rows], pos_label=True))
    top = [max(p, 1 - p) for _, p in rows]
    right = [(p > 0.5) == shown for shown, (_, p) in zip(truth, rows, strict=True)]
    error = 0.0
    for start in range(10):
        inside = [at for at, value in enumerate(top) if start <= 10 * value < start + 1]
        if inside:
            error += abs(sum(top[at] for at in inside) - sum(right[at] for at in inside)) / len(rows)
    assert values.ece == pytest.approx(error)
    assert sum(point.n for point in values.curve) == values.n == len(rows)


def test_a_response_labelled_neither_counts_against_a_sure_judge() -> None:
    values = reliability([NEITHER, "harmless"], [{"harmless": 1.0}, {"harmless": 1.0}], CLASSES)
    assert values.brier == pytest.approx(1.0)
    assert values.curve == (ReliabilityBin(1.0, 0.5, 2),)
