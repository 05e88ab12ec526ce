"""Corrected scores: the formulas, what is undefined, and how often the intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cst_bench.statistics.correction import (
    Stratum,
    contradicted,
    pooled_rates,
    ppi,
    rates_between_models,
    rogan_gladen,
    stratified,
)

COUNTS = {"tp": 90, "fn": 10, "fp": 20, "tn": 80}


def test_rogan_gladen_is_the_published_formula() -> None:
    point, low, high = rogan_gladen(55, 100, pooled_rates(**COUNTS))
    assert float(point) == pytest.approx((0.55 + 0.8 - 1) / (0.9 + 0.8 - 1))
    assert low < point < high


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 50), st.integers(1, 50), st.integers(0, 30))
@settings(deadline=None)
def test_an_interval_holds_its_estimate_and_is_in_0_to_1(tp: int, fn: int, fp: int, tn: int, k: int) -> None:
    for point, low, high in (
        rogan_gladen(k, 30, pooled_rates(tp=tp, fn=fn, fp=fp, tn=tn)),
        ppi(k, 30, yes=(min(tp, 15), 1), no=(0, min(tn, 15))),
    ):
        assert np.isnan(point) or 0 <= low <= point <= high <= 1


def test_a_judge_no_better_than_chance_corrects_nothing() -> None:
    point, low, high = rogan_gladen(50, 100, pooled_rates(tp=50, fn=50, fp=48, tn=52))
    assert all(np.isnan(value) for value in (point, low, high))
    assert np.isnan(rogan_gladen(50, 100, pooled_rates(tp=0, fn=0, fp=10, tn=90))[0])


def test_a_share_that_the_card_does_not_allow_is_not_corrected() -> None:
    rates = pooled_rates(tp=90, fn=10, fp=20, tn=80)  # verdicts show the behaviour in 0.2 to 0.9 of the responses
    for k, out in ((0, True), (2, True), (15, False), (50, False), (92, False), (97, True)):
        assert bool(contradicted(k, 100, rates)) is out, k
        assert all(np.isnan(value) for value in rogan_gladen(k, 100, rates)) is out
    few = pooled_rates(tp=9, fn=1, fp=2, tn=8)
    assert not contradicted(97, 100, few)  # ten labels do not show that the sensitivity is below 0.97


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60), st.integers(0, 60))
@settings(deadline=None, max_examples=30)
def test_shares_that_the_rates_allow_do_not_contradict_them(tp: int, fn: int, fp: int, tn: int) -> None:
    rates = pooled_rates(tp=tp + 1, fn=fn, fp=fp, tn=tn, draws=400)
    middle = round(250 * float(rates.sensitivity + rates.false_alarm))
    if rates.better_than_chance:
        assert not contradicted(middle, 500, rates)


def test_models_that_differ_widen_the_interval_and_models_alike_hardly_do() -> None:
    alike, apart = [(45, 5, 4, 46)] * 6, [(49, 1, 1, 49), (46, 4, 0, 50), (30, 20, 9, 41), (48, 2, 2, 48)]

    def width(models: list[tuple[int, int, int, int]], *, pooled: bool) -> float:
        tp, fn, fp, tn = (sum(part) for part in zip(*models, strict=True))
        rates = pooled_rates(tp=tp, fn=fn, fp=fp, tn=tn) if pooled else rates_between_models(models)
        point, low, high = rogan_gladen(60, 100, rates)
        assert low <= point <= high
        return float(high - low)

    assert width(apart, pooled=False) > 1.5 * width(apart, pooled=True)
    assert width(alike, pooled=False) < 1.4 * width(alike, pooled=True)
    two = [(45, 5, 4, 46)] * 2
    assert width(two, pooled=False) > width(alike, pooled=False)  # two models say little of a third


def test_a_card_of_several_models_covers_another_one_where_the_pooled_card_does_not() -> None:
    draw = np.random.default_rng(5)
    covered = {"pooled": 0, "between": 0}
    for _ in range(120):
        logits = np.log(0.87 / 0.13) + draw.standard_normal(7)
        sensitivity = 1 / (1 + np.exp(-logits))
        hits, alarms = draw.binomial(30, sensitivity[:6]), draw.binomial(30, 0.04, 6)
        models = [
            (int(hit), 30 - int(hit), int(wrong), 30 - int(wrong)) for hit, wrong in zip(hits, alarms, strict=True)
        ]
        k = int(draw.binomial(200, 0.9 * sensitivity[6] + 0.1 * 0.04))
        tp, fn, fp, tn = (sum(part) for part in zip(*models, strict=True))
        for name, rates in (
            ("pooled", pooled_rates(tp=tp, fn=fn, fp=fp, tn=tn, draws=1000)),
            ("between", rates_between_models(models, draws=1000)),
        ):
            _, low, high = rogan_gladen(k, 200, rates)
            covered[name] += bool(low <= 0.9 <= high)
    assert covered["pooled"] / 120 < 0.75
    assert covered["between"] / 120 > 0.85


def test_ppi_is_the_power_tuned_estimate_of_the_paper() -> None:
    draw = np.random.default_rng(3)
    truth = draw.random(400) < 0.6
    positive = np.where(truth, draw.random(400) < 0.85, draw.random(400) < 0.25)
    y, f, rest = truth[:80].astype(float), positive[:80].astype(float), positive[80:].astype(float)
    tuned = np.cov(y, f, bias=True)[0, 1] / f.var() / (1 + 80 / 320)
    paper = y.mean() + tuned * (rest.mean() - f.mean())
    yes = (float((y * f).sum()), float(((1 - y) * f).sum()))
    no = (float((y * (1 - f)).sum()), float(((1 - y) * (1 - f)).sum()))
    point, low, high = ppi(np.asarray(float(positive.sum())), 400, yes=yes, no=no)  # type: ignore[arg-type]
    assert float(point) == pytest.approx(paper)
    assert low < point < high


def test_labels_narrow_the_interval_and_a_good_judge_does_too() -> None:
    def width(labelled: int, wrong: float) -> float:
        half = np.asarray(labelled / 2)
        _, low, high = ppi(250, 500, yes=(half * (1 - wrong), half * wrong), no=(half * wrong, half * (1 - wrong)))
        return float(high - low)

    assert width(200, 0.2) < width(50, 0.2)
    assert width(50, 0.02) < width(50, 0.3)


@pytest.mark.parametrize(
    ("share", "sensitivity", "specificity"), [(0.1, 0.95, 0.9), (0.5, 0.8, 0.85), (0.9, 0.95, 0.9)]
)
def test_the_intervals_hold_the_truth_as_often_as_they_say_where_the_naive_one_does_not(
    share: float, sensitivity: float, specificity: float
) -> None:
    draw = np.random.default_rng(0)
    times, n, m = 1500, 300, 400
    positive = draw.binomial(n, share * sensitivity + (1 - share) * (1 - specificity), times).astype(float)
    hit, wrong = draw.binomial(m // 2, sensitivity, times), draw.binomial(m // 2, 1 - specificity, times)
    hits, alarms = hit.astype(float), wrong.astype(float)
    rates = pooled_rates(tp=hits, fn=m // 2 - hits, fp=alarms, tn=m // 2 - alarms, draws=800)
    _, low, high = rogan_gladen(positive, n, rates)
    assert 0.93 <= np.mean((low <= share) & (share <= high)) <= 0.975
    error = 1.96 * np.sqrt(positive / n * (1 - positive / n) / n)
    naive = np.mean(np.abs(positive / n - share) <= error)
    assert naive < 0.9

    shows = draw.random((times, n)) < share
    word = np.where(shows, draw.random((times, n)) < sensitivity, draw.random((times, n)) >= specificity)
    truth, judged = shows[:, :80], word[:, :80]
    yes = ((truth & judged).sum(1).astype(float), (~truth & judged).sum(1).astype(float))
    no = ((truth & ~judged).sum(1).astype(float), (~truth & ~judged).sum(1).astype(float))
    _, low, high = ppi(word.sum(1).astype(float), n, yes=yes, no=no, draws=800)
    assert 0.93 <= np.mean((low <= share) & (share <= high)) <= 0.985


def test_strata_of_a_judges_verdicts_give_ppi() -> None:
    point, low, high = ppi(60, 100, yes=(17, 3), no=(2, 18))
    ours = stratified([Stratum(60, 17, 3), Stratum(40, 2, 18)])
    assert ours[0] == pytest.approx(float(point))
    assert ours[1:] == pytest.approx((float(low), float(high)), abs=0.015)


def test_a_stratum_that_is_labelled_as_a_whole_counts_by_its_size() -> None:
    assert stratified([Stratum(50, 30, 20), Stratum(150, 10, 0)])[0] == pytest.approx((30 + 150) / 200)
    point, low, high = stratified([Stratum(50, 30, 20), Stratum(150, 0, 0, guess=1.0)])
    assert point == pytest.approx((30 + 150) / 200)
    assert low < 0.25
    assert high > 0.8


def test_intervals_of_strata_cover_where_one_of_them_is_audited() -> None:
    draw = np.random.default_rng(3)
    covered = 0
    for round_ in range(200):
        unsure = draw.random(80) < 0.6  # the second judge reads all of them
        sure_yes, sure_no = draw.random(150) < 0.95, draw.random(170) < 0.04
        audited = draw.random(320) < 0.2
        strata = [Stratum(80, int(unsure.sum()), int((~unsure).sum()))]
        for values, part in ((sure_yes, audited[:150]), (sure_no, audited[150:])):
            strata.append(Stratum(len(values), int(values[part].sum()), int((~values[part]).sum())))
        _, low, high = stratified(strata, seed=round_, draws=800)
        truth = (0.6 * 80 + 0.95 * 150 + 0.04 * 170) / 400
        covered += low <= truth <= high
    assert 0.9 <= covered / 200 <= 1.0


def test_unsure_labels_widen_the_interval_to_both_extremes() -> None:
    strata = [Stratum(120, 30, 4, unsure=6), Stratum(80, 2, 18, unsure=5)]
    point, low, high = stratified(strata)
    none = stratified([Stratum(120, 30, 10), Stratum(80, 2, 23)])
    every = stratified([Stratum(120, 36, 4), Stratum(80, 7, 18)])
    assert (low, high) == (none[1], every[2])
    assert point == pytest.approx((none[0] + every[0]) / 2)


@given(
    st.lists(
        st.tuples(st.integers(1, 60), st.integers(0, 20), st.integers(0, 20), st.integers(0, 5), st.booleans()),
        min_size=1,
        max_size=4,
    )
)
@settings(deadline=None, max_examples=60)
def test_an_interval_of_strata_holds_the_estimate_of_any_answers_that_the_unsure_could_give(
    drawn: list[tuple[int, int, int, int, bool]],
) -> None:
    strata = [
        Stratum(n + shown + hidden + unsure, shown, hidden, unsure=unsure) for n, shown, hidden, unsure, _ in drawn
    ]
    point, low, high = stratified(strata, draws=300)
    assert 0 <= low <= point <= high <= 1
    answers = [
        Stratum(stratum.n, stratum.shown + stratum.unsure * yes, stratum.hidden + stratum.unsure * (not yes))
        for stratum, (*_, yes) in zip(strata, drawn, strict=True)
    ]
    assert low - 1e-9 <= stratified(answers, draws=300)[0] <= high + 1e-9


def test_a_stratum_without_labels_and_guess_is_bounded_by_0_and_1_and_leaves_the_estimate_to_the_others() -> None:
    labelled = [Stratum(60, 17, 3), Stratum(40, 2, 18)]
    alone = stratified(labelled)
    point, low, high = stratified([*labelled, Stratum(25, 0, 0)])
    assert point == pytest.approx(alone[0])
    assert low == pytest.approx(alone[1] * 100 / 125, abs=0.03)
    assert high == pytest.approx((alone[2] * 100 + 25) / 125, abs=0.03)
    assert stratified([Stratum(25, 0, 0)]) == (0.5, 0.0, 1.0)


def simulated_coverage(*, drop: bool) -> tuple[float, float]:
    """Return coverage and mean estimate where people are unsure of 40 % of the judge's errors and 5 % of the rest."""
    draw = np.random.default_rng(8)
    times, n, labelled = 400, 400, 200
    covered, estimates = 0, 0.0
    for _ in range(times):
        truth = draw.random(n) < 0.5
        verdict = np.where(truth, draw.random(n) < 0.7, draw.random(n) < 0.1)  # misses more than it invents
        unsure = draw.random(n) < np.where(truth != verdict, 0.4, 0.05)
        part = np.arange(n) < labelled  # the responses are in no order: any part is a random one
        strata = []
        for said in (True, False):
            here = part & (verdict == said)
            sure = here & ~unsure
            open_ = 0 if drop else int((here & unsure).sum())
            shown = int((sure & truth).sum())
            strata.append(Stratum(int((verdict == said).sum()), shown, int(sure.sum()) - shown, unsure=open_))
        point, low, high = stratified(strata, draws=400)
        covered += low <= 0.5 <= high
        estimates += point
    return covered / times, estimates / times


def test_the_interval_covers_the_truth_where_labellers_are_unsure_of_what_the_judge_gets_wrong() -> None:
    dropped, low = simulated_coverage(drop=True)
    assert dropped < 0.85  # what leaving them out would do
    assert low < 0.48
    assert simulated_coverage(drop=False)[0] >= 0.95
