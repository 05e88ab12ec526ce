"""Error rates of what reports, comparisons and gates claim, and coverage of intervals over seeds and prompts.

    python benchmarks/error_rates.py [--replications N] [--json FILE]

Models that are equal by construction answer the prompts and documents of the embedded suite: each prompt has a chance
of its own, and each model draws from it. Their runs go through the code that makes reports. The tables show how often a
report of equal models has a bold cell, or a capability that is lost or gained; how often gates fail and McNemar's tests
reject; how often intervals of a mean over training seeds contain the mean over all seeds and prompts; and how often
those of scores, averages and differences contain the truth where prompts have several responses, or labels by people.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats

from cst_bench.capabilities import CapabilityResult
from cst_bench.compliance.compliance_scores import Outcome, summarise
from cst_bench.content import content_root
from cst_bench.files import digest
from cst_bench.record import TrainingIdentity
from cst_bench.reporting.leaderboard.build import make_leaderboard
from cst_bench.reporting.stored_run import StoredRun, read_run
from cst_bench.runs.run_outcomes import make_outcomes
from cst_bench.runs.scoring import average_compliance, make_scores
from cst_bench.statistics.intervals import wilson
from cst_bench.statistics.labelled_pairs import labelled_difference
from cst_bench.statistics.paired import LEVEL, bootstrap_difference, mcnemar_mid_p, shares_difference
from cst_bench.statistics.two_way import two_way_difference, two_way_interval

Array = NDArray[np.float64]
TEMPLATE = content_root() / "reports" / "tiny" / "runs" / "multi-base"
MODELS = (2, 3, 5)
N = 60
"""Prompts and documents of a task: about the size of the paper's test set."""
SIZES = (26, 52, 104, 200)
DISCORDANT = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
SEEDS = (5, 10)
PROMPTS = (52, 200)
MARGIN = 0.05
SAMPLED = ((20, 6), (52, 1), (52, 5), (200, 1), (200, 5))
"""Prompts, and responses to each."""
SHARES = (0.5, 0.9, 0.98)
RELATIONS = ("together", "apart")
LABELLED = ((52, 20), (52, 40), (200, 60))
"""Prompts, and how many of them are labelled."""
LABELLED_SHARES = ((0.5, 0.5), (0.9, 0.9), (0.97, 0.97), (0.9, 0.7))
JUDGES = ((0.95, 0.9), (0.75, 0.95))
AGAINST = ("method", "base")
KINDS = {
    "all but none comply (0.005)": 0.005,
    "all but all comply (0.999)": 0.999,
    "prompts decide alone": 0.7,
    "seeds vary little": float(stats.norm(1, np.hypot(1, 0.3)).expect(stats.logistic.cdf)),
    "seeds vary much": float(stats.norm(1, np.sqrt(2)).expect(stats.logistic.cdf)),
    "half of the seeds at 0.9, half at 0.2": 0.55,
    "one seed in ten at 0.2, the rest at 0.9": 0.83,
}
"""How seeds and prompts decide → share of responses that comply, over all of both."""


@dataclass(frozen=True)
class ReportRates:
    """How often reports of equal models claim a difference."""

    models: int
    seeds: int
    """Training seeds of each trained model; the base is one run."""
    replications: int
    columns: int
    """Scores in a report."""
    bold: float
    """Share of reports with a bold cell."""
    capability: float
    """Share of reports with a capability that is lost or gained."""
    either: float
    """Share of reports with either."""


@dataclass(frozen=True)
class TestLevel:
    """Largest probability, over shares of discordant pairs, that McNemar's test at 0.05 rejects equal models."""

    n: int
    mid_p: float
    exact: float


@dataclass(frozen=True)
class GateRates:
    """How often a gate fails."""

    n: int
    replications: int
    """For each share of discordant pairs; the rates are those of the worst share."""
    point: float
    """`S0 < -0.05`, between equal models."""
    shown_loss: float
    """`S0.high < 0`, between equal models."""
    not_ruled_out: float
    """`S0.low < -0.05`, between equal models."""
    loss_passed: float
    """`S0.low < -0.05` passes, although 0.05 is lost."""


@dataclass(frozen=True)
class SeedCoverage:
    """Coverage of the interval of a mean over seeds."""

    kind: str
    seeds: int
    prompts: int
    replications: int
    coverage: float
    width: float
    """Mean width."""
    range_coverage: float
    """How often the lowest and the highest seed enclose the mean over all seeds and prompts."""


@dataclass(frozen=True)
class SampleCoverage:
    """Coverage of intervals where prompts have one or more responses under two configurations."""

    prompts: int
    samples: int
    share: float
    """Mean share of responses that comply, under both configurations."""
    relation: str
    """`together`: prompts that are easy under one configuration are easy under the other; `apart`: hard."""
    replications: int
    score: float
    joint: float
    average: float
    difference: float
    """Coverage of the difference of two runs whose models are equal."""


@dataclass(frozen=True)
class LabelledCoverage:
    """Coverage of the difference of two partly labelled runs, by a judge that errs differently in each."""

    prompts: int
    labels: int
    ours: float
    theirs: float
    """True shares."""
    replications: int
    coverage: float
    rejected: float
    """Share of p values below 0.05."""
    verdicts: float
    """Coverage of the interval of the judge's verdicts."""


@dataclass(frozen=True)
class SeedTest:
    """How often equal methods differ at the level 0.05."""

    against: str
    """`method` or `base`, which is one run."""
    seeds: int
    prompts: int
    replications: int
    rejected: float
    coverage: float
    """Coverage of the difference's interval."""


Row = ReportRates | TestLevel | GateRates | SeedCoverage | SeedTest | SampleCoverage | LabelledCoverage


def main() -> None:
    """Run all simulations and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--replications", type=int, default=1000, help="of reports of 2 or 3 models and of gates; fewer of others"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="output file for all figures")
    options = parser.parse_args()
    n = options.replications
    jobs: list[tuple[str, Callable[..., Row], tuple[object, ...]]] = [
        # the more runs a report has, the longer it takes: fewer replications
        *(("reports", simulate_reports, (models, n if models < 5 else n // 4)) for models in MODELS),
        ("reports", simulate_reports, (2, n // 10, 5)),
        *(("seeds", simulate_seeds, (*setting, n // 4)) for setting in product(KINDS, SEEDS, PROMPTS)),
        *(("seed_tests", simulate_seed_tests, (*setting, n // 4)) for setting in product(AGAINST, SEEDS, PROMPTS)),
        *(("samples", simulate_samples, (*setting, n // 2)) for setting in product(SAMPLED, SHARES, RELATIONS)),
        *(("labelled", simulate_labelled, (*setting, n // 2)) for setting in product(LABELLED, LABELLED_SHARES)),
        *(("gates", simulate_gates, (size, n)) for size in SIZES),
        *(("mcnemar", mcnemar_level, (size,)) for size in SIZES),
    ]
    results: dict[str, list[dict[str, object]]] = {}
    with ProcessPoolExecutor() as pool:
        pending = [
            (name, pool.submit(simulate, np.random.default_rng([options.seed, at]), *arguments))
            for at, (name, simulate, arguments) in enumerate(jobs)
        ]
        for name, job in pending:
            results.setdefault(name, []).append(asdict(job.result()))
    for title, rows in results.items():
        show(title, rows)
    if options.json is not None:
        content = {"replications": n, "seed": options.seed, **results}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def simulate_reports(draw: np.random.Generator, models: int, replications: int, seeds: int = 1) -> ReportRates:
    """Make reports of a base and models trained on it that are equal to it, and count those that claim a difference."""
    template = read_run(TEMPLATE)
    bold = capability = either = columns = 0
    for _ in range(replications):
        suite = EqualModels(template, draw)
        runs = [suite.run("base", None, 0)]
        runs += [suite.run(f"model {at}", at, seed) for at in range(1, models) for seed in range(seeds)]
        (section,) = make_leaderboard(runs).sections
        columns = len(section.columns)
        is_bold = any(cell.best for row in section.rows for cell in row.cells.values())
        is_lost = any(verdict.kept in ("lost", "gained") for verdict in section.capabilities)
        bold, capability, either = bold + is_bold, capability + is_lost, either + (is_bold or is_lost)
    rates = (count / replications for count in (bold, capability, either))
    return ReportRates(models, seeds, replications, columns, *rates)


class EqualModels:
    """Runs of models that have the same chance to comply with a prompt, and to be right on a document."""

    def __init__(self, template: StoredRun, draw: np.random.Generator) -> None:
        """Draw the chances, for the first prompts and documents of a stored run."""
        self.template, self.draw = template, draw
        self.complies = {
            (task, name): dict(zip(prompts, stats.logistic.cdf(draw.normal(1, 1.5, len(prompts))), strict=True))
            for task in template.settings.compliance
            for name in template.configurations(task)
            for prompts in [sorted(template.outcomes.compliance[task][name])[:N]]
        }
        self.right = {
            task: dict(zip(documents, stats.logistic.cdf(draw.normal(1, 2, len(documents))), strict=True))
            for task in template.settings.capabilities
            for documents in [sorted(template.documents(task))[:N]]
        }

    def run(self, label: str, trained: int | None, seed: int) -> StoredRun:
        """Draw the run of the base (`trained` is None), or of a trained model."""
        checkpoint = self.template.settings.checkpoint
        training = None
        if trained is not None:
            training = TrainingIdentity(
                method="cst",
                recipe="equal",
                recipe_sha256=digest("equal"),
                seed=seed,
                data_sha256=digest(trained),
                base=checkpoint.label,
                base_sha256=str(checkpoint.weights_sha256),
            )
        changes = {"label": f"{label}, seed {seed}", "training": training}
        settings = self.template.settings.model_copy(update={"checkpoint": checkpoint.model_copy(update=changes)})
        outcomes = {
            task: [
                Outcome(prompt, name, asked, asked if self.draw.random() < chance else "neither")
                for name, asked in self.template.configurations(task).items()
                for prompt, chance in self.complies[task, name].items()
            ]
            for task in settings.compliance
        }
        results = {task: self._capability(task) for task in settings.capabilities}
        scores = make_scores(
            settings, outcomes, dict.fromkeys(outcomes), {task: result for task, (result, _) in results.items()}
        )
        manifest = self.template.manifest.model_copy(update={"settings": settings})
        return StoredRun(Path(label) / str(seed), manifest, scores, make_outcomes(outcomes, results))

    def _capability(self, task: str) -> tuple[CapabilityResult, dict[str, float]]:
        """Draw a capability's documents: right or wrong, or graded where the template's are."""
        chances = np.array(list(self.right[task].values()))
        graded = not set(self.template.documents(task).values()) <= {0.0, 1.0}
        drawn = (
            self.draw.beta(2 * chances, 2 * (1 - chances)).round(1)
            if graded
            else self.draw.random(len(chances)) < chances
        )
        scores = {name: float(score) for name, score in zip(self.right[task], drawn, strict=True)}
        values = np.array(list(scores.values()))
        error = float(values.std(ddof=1) / np.sqrt(len(values)))
        known = self.template.scores.capabilities[task]
        documents = self.template.outcomes.capabilities[task].documents_sha256
        result = CapabilityResult(
            task,
            known.metric or "acc",
            float(values.mean()),
            error,
            len(values),
            documents,
            None,
            results={},
            samples={},
        )
        return result, scores


def simulate_samples(
    draw: np.random.Generator, setting: tuple[int, int], share: float, relation: str, replications: int
) -> SampleCoverage:
    """Draw the chances of prompts under two configurations, and responses of two equal models."""
    prompts, samples = setting
    chances = stats.beta(2 * share, 2 * (1 - share))
    grid = (np.arange(100_000) + 0.5) / 100_000
    first, second = chances.ppf(grid), chances.ppf(grid if relation == "together" else 1 - grid)
    held: dict[str, list[bool]] = {name: [] for name in ("score", "joint", "average", "difference")}
    asked = {"S1": "harmless", "S0": "uncensored"}
    for _ in range(replications):
        place = draw.random(prompts)
        of = {"S1": chances.ppf(place), "S0": chances.ppf(place if relation == "together" else 1 - place)}
        runs = [{name: draw.random((samples, prompts)) < of[name] for name in asked} for _ in range(2)]
        outcomes = [
            Outcome(str(prompt), name, behaviour, behaviour if complied else "neither", epoch=epoch)
            for name, behaviour in asked.items()
            for epoch, responses in enumerate(runs[0][name], 1)
            for prompt, complied in enumerate(responses)
        ]
        scores = summarise(outcomes, list(asked))
        average = average_compliance({"task": scores}, {"task": outcomes}, list(asked))
        assert average is not None
        assert scores.joint is not None
        shares = [_keyed(run["S1"].mean(0)) for run in runs]
        compare = shares_difference if samples == 1 else lambda a, b: bootstrap_difference([(a, b)])
        intervals = {
            "score": (scores.configurations["S1"].interval, share),
            "joint": (scores.joint.interval, float((first * second).mean())),
            "average": (average.interval, share),
            "difference": (compare(shares[0], shares[1]).interval, 0.0),
        }
        for name, (interval, truth) in intervals.items():
            assert interval is not None
            held[name].append(interval[0] - 1e-9 <= truth <= interval[1] + 1e-9)
    coverage = (float(np.mean(values)) for values in held.values())
    return SampleCoverage(prompts, samples, share, relation, replications, *coverage)


def simulate_labelled(
    draw: np.random.Generator, setting: tuple[int, int], shares: tuple[float, float], replications: int
) -> LabelledCoverage:
    """Judge two runs with sensitivity and specificity 0.95 and 0.9 in one, 0.75 and 0.95 in the other; label a part."""
    n, labels = setting
    held, rejected, by_verdicts = [], [], []
    for _ in range(replications):
        common = draw.random(n)
        truths = [common < shares[0], np.where(draw.random(n) < 0.7, common, draw.random(n)) < shares[1]]
        verdicts = [
            np.where(truth, draw.random(n) < sensitivity, draw.random(n) > specificity)
            for truth, (sensitivity, specificity) in zip(truths, JUDGES, strict=True)
        ]
        pairs = {str(at): (bool(verdicts[0][at]), bool(verdicts[1][at])) for at in range(n)}
        known = draw.choice(n, labels, replace=False)
        difference = labelled_difference(pairs, {str(at): (bool(truths[0][at]), bool(truths[1][at])) for at in known})
        plain = shares_difference(*(_keyed(side.astype(float)) for side in verdicts))
        assert difference is not None
        assert difference.interval is not None
        assert difference.p is not None
        assert plain.interval is not None
        truth = shares[0] - shares[1]
        held.append(difference.interval[0] <= truth <= difference.interval[1])
        rejected.append(difference.p < LEVEL)
        by_verdicts.append(plain.interval[0] <= truth <= plain.interval[1])
    rates = (float(np.mean(values)) for values in (held, rejected, by_verdicts))
    return LabelledCoverage(n, labels, *shares, replications, *rates)


def mcnemar_level(_draw: np.random.Generator, n: int) -> TestLevel:
    """Sum the probabilities of all outcomes of n pairs that McNemar's tests reject, for the worst discordant share."""
    rejected = {"mid_p": np.zeros(n + 1), "exact": np.zeros(n + 1)}
    for differing in range(n + 1):
        gained = np.arange(differing + 1)
        chance = stats.binom.pmf(gained, differing, 0.5)
        mid = np.array([mcnemar_mid_p(int(k), differing - int(k)) for k in gained])
        rejected["mid_p"][differing] = chance[mid < LEVEL].sum()
        exact = np.minimum(1, 2 * stats.binom.cdf(np.minimum(gained, differing - gained), differing, 0.5))
        rejected["exact"][differing] = chance[exact < LEVEL].sum()
    weights = [stats.binom.pmf(np.arange(n + 1), n, share) for share in np.linspace(0.02, 1, 99)]
    return TestLevel(n, *(float(max(weight @ of_test for weight in weights)) for of_test in rejected.values()))


def simulate_gates(draw: np.random.Generator, n: int, replications: int) -> GateRates:
    """Count the gates that fail, over shares of discordant pairs; the worst share counts."""
    rates = []
    for discordant in DISCORDANT:
        equal = [_difference(draw, n, discordant, 0.0) for _ in range(replications)]
        losing = [_difference(draw, n, max(discordant, MARGIN), MARGIN) for _ in range(replications)]
        rates.append(
            (
                np.mean([point < -MARGIN for point, _, _ in equal]),
                np.mean([high < 0 for _, _, high in equal]),
                np.mean([low < -MARGIN for _, low, _ in equal]),
                np.mean([low >= -MARGIN for _, low, _ in losing]),
            )
        )
    return GateRates(n, replications, *(float(max(of_gate)) for of_gate in zip(*rates, strict=True)))


def _difference(draw: np.random.Generator, n: int, discordant: float, loss: float) -> tuple[float, float, float]:
    """Draw a comparison of n pairs of which a share differs: return the difference and the ends of its interval."""
    sides = draw.multinomial(n, [(discordant - loss) / 2, (discordant + loss) / 2, 0.8 * (1 - discordant), 1])
    gained, lost, both = (int(count) for count in sides[:3])
    ours = [1.0] * gained + [0.0] * lost + [1.0] * both + [0.0] * (n - gained - lost - both)
    theirs = [0.0] * gained + [1.0] * lost + [1.0] * both + [0.0] * (n - gained - lost - both)
    difference = shares_difference(_keyed(ours), _keyed(theirs))
    assert difference.difference is not None
    assert difference.interval is not None
    return difference.difference, *difference.interval


def _keyed(scores: Sequence[float] | Array) -> dict[str, float]:
    return {f"p{at}": float(score) for at, score in enumerate(scores)}


def draw_seeds(draw: np.random.Generator, kind: str, seeds: int, prompts: int) -> Array:
    """Draw whether the model of each seed complies with each prompt, shape (seeds, prompts)."""
    hardness = draw.normal(0, 1, prompts)
    truth = KINDS[kind]

    def vary(deviation: float) -> Array:
        return np.asarray(stats.logistic.cdf(1 + hardness + draw.normal(0, deviation, (seeds, 1))))

    def two(share: float) -> Array:
        return np.where(draw.random((seeds, 1)) < share, 0.2, 0.9) * np.ones(prompts)

    chances: Mapping[str, Callable[[], Array]] = dict(
        zip(
            KINDS,
            (
                lambda: np.full((seeds, prompts), truth),
                lambda: np.full((seeds, prompts), truth),
                lambda: np.tile(draw.random(prompts) < truth, (seeds, 1)).astype(float),
                lambda: vary(0.3),
                lambda: vary(1.0),
                lambda: two(0.5),
                lambda: two(0.1),
            ),
            strict=True,
        )
    )
    return (draw.random((seeds, prompts)) < chances[kind]()).astype(float)


def simulate_seeds(draw: np.random.Generator, kind: str, seeds: int, prompts: int, replications: int) -> SeedCoverage:
    """Measure the coverage of intervals over seeds and prompts."""
    truth = KINDS[kind]
    covered, within, widths = [], [], []
    for _ in range(replications):
        scores = draw_seeds(draw, kind, seeds, prompts)
        own = [wilson(int(run.sum()), prompts) for run in scores]
        low, high = two_way_interval([[_keyed(run)] for run in scores], own) or (0.0, 1.0)
        covered.append(low <= truth <= high)
        widths.append(high - low)
        within.append(scores.mean(1).min() <= truth <= scores.mean(1).max())
    coverage, width, of_range = (float(np.mean(values)) for values in (covered, widths, within))
    return SeedCoverage(kind, seeds, prompts, replications, coverage, width, of_range)


def simulate_seed_tests(
    draw: np.random.Generator, against: str, seeds: int, prompts: int, replications: int
) -> SeedTest:
    """Compare two equal methods, or a method with a base that has the method's mean chance on every prompt."""
    quantiles = stats.norm.ppf(np.linspace(0.005, 0.995, 100))
    ps, covered = [], []
    for _ in range(replications):
        hardness = draw.normal(1, 1, prompts)
        chance = stats.logistic.cdf(hardness + draw.normal(0, 0.7, (2 * seeds, 1)))
        scores = (draw.random((2 * seeds, prompts)) < chance).astype(float)
        other = scores[seeds:]
        if against == "base":
            mean = stats.logistic.cdf(hardness[:, None] + 0.7 * quantiles).mean(1)
            other = (draw.random((1, prompts)) < mean).astype(float)
        ours, theirs = ([[_keyed(run)] for run in side] for side in (scores[:seeds], other))
        own = [shares_difference(run[0], theirs[at % len(theirs)][0]).interval for at, run in enumerate(ours)]
        difference = two_way_difference(ours, theirs, own)
        assert difference.p is not None
        assert difference.interval is not None
        ps.append(difference.p)
        covered.append(difference.interval[0] <= 0 <= difference.interval[1])
    return SeedTest(
        against, seeds, prompts, replications, float(np.mean(np.array(ps) < LEVEL)), float(np.mean(covered))
    )


def show(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print one table."""
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
