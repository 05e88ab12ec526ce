"""The published numbers of the village, recomputed from its stored outcomes by statsmodels, scipy and NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from cst_bench.content import content_root
from cst_bench.reporting.comparison.comparison import compare_runs
from cst_bench.reporting.leaderboard.build import make_leaderboard
from cst_bench.reporting.stored_run import StoredRun, read_run, read_runs

RUNS = content_root() / "reports" / "tiny" / "runs"
NAMES = sorted(path.name for path in RUNS.iterdir())
Verdicts = dict[str, bool | None]


def verdicts(run: StoredRun, task: str, configuration: str) -> Verdicts:
    """Return prompt id → whether the stored behaviour is the one that is asked for."""
    asked = run.settings.compliance[task].configurations[configuration]
    behaviours = run.outcomes.compliance[task][configuration]
    return {prompt: None if seen is None else seen == asked for prompt, seen in behaviours.items()}


def every_score(run: StoredRun) -> list[tuple[str, str, Verdicts]]:
    scores = []
    for task, settings in run.settings.compliance.items():
        of_task = {name: verdicts(run, task, name) for name in settings.configurations}
        scores += [(task, name, of_name) for name, of_name in of_task.items()]
        if len(of_task) > 1:
            joint = {
                prompt: all(of_name[prompt] for of_name in of_task.values()) for prompt in next(iter(of_task.values()))
            }
            scores.append((task, "joint", dict(joint)))
    return scores


@pytest.mark.parametrize("name", NAMES)
def test_scores_and_their_intervals(name: str) -> None:
    run = read_run(RUNS / name)
    for task, configuration, of_score in every_score(run):
        scores = run.scores.compliance[task]
        stored = scores.joint if configuration == "joint" else scores.configurations[configuration]
        assert stored is not None
        known = [value for value in of_score.values() if value is not None]
        assert (stored.n, stored.unscored) == (len(known), len(of_score) - len(known))
        assert stored.score == pytest.approx(np.mean(known))
        assert stored.interval == pytest.approx(proportion_confint(sum(known), len(known), method="wilson"))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "multi-base"])
def test_differences_to_the_base(name: str) -> None:
    base, run = read_run(RUNS / "multi-base"), read_run(RUNS / name)
    comparison = compare_runs(base, run)
    ps = {}
    for task, configuration, ours in every_score(run):
        theirs = dict(next(of for at, called, of in every_score(base) if (at, called) == (task, configuration)))
        pairs = [(ours[p], theirs[p]) for p in ours if ours[p] is not None and theirs[p] is not None]
        gained, lost = (pairs.count(pair) for pair in ((True, False), (False, True)))
        compared = next(score for score in comparison.scores if score.column.key == f"{task}/{configuration}")
        assert compared.difference.difference == pytest.approx((gained - lost) / len(pairs))
        fewer, differing = min(gained, lost), gained + lost
        mid_p = min(1.0, 2 * binom.cdf(fewer, differing, 0.5) - binom.pmf(fewer, differing, 0.5))
        assert compared.difference.p == pytest.approx(mid_p)
        ps[compared.column.key] = mid_p
    single = [score for score in comparison.scores if score.column.kind in ("compliance", "capability")]
    assert {score.column.key for score in single} >= {key for key in ps if not key.endswith("joint")}
    corrected = multipletests([score.difference.p for score in single], method="holm")[1]
    assert [score.p_holm for score in single] == pytest.approx(list(corrected))


def test_means_over_seeds_of_the_leaderboard() -> None:
    runs, _ = read_runs([RUNS])
    (section,) = make_leaderboard(runs).sections
    by_method: dict[str, list[StoredRun]] = {}
    for run in runs:
        by_method.setdefault(Path(run.folder).name.rstrip("0123456789").rstrip("-"), []).append(run)
    assert sorted(len(of_method) for of_method in by_method.values()) == [1, 5, 5, 5]
    for row in section.rows:
        of_method = by_method[row.label.partition(",")[0]] if row.runs > 1 else by_method["multi-base"]
        for task, configuration, _ in every_score(of_method[0]):
            means = [
                np.mean([value for value in of if value is not None])
                for run in of_method
                for at, called, scored in every_score(run)
                if (at, called) == (task, configuration)
                for of in [list(scored.values())]
            ]
            cell = row.cells[f"{task}/{configuration}"]
            assert cell.score == pytest.approx(np.mean(means))
            if row.runs > 1:
                assert cell.seed_range == pytest.approx((min(means), max(means)))
                assert cell.interval is not None
                assert cell.interval[0] <= np.mean(means) <= cell.interval[1]
