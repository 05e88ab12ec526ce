"""The content of a run's report, from `scores.json` and the run's settings. Formats only lay it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_UNSCORED = 0.02
"""A score with more unscored responses than this share is marked, and not to be ranked."""


@dataclass(frozen=True)
class Figure:
    """One number with what is needed to believe it."""

    name: str
    score: float | None
    interval: tuple[float, float] | None
    n: int
    unscored: int = 0
    flags: tuple[str, ...] = ()
    """Footnotes that hold for it, such as `uncalibrated`."""


@dataclass(frozen=True)
class ConfigurationFigure:
    """The score of a configuration (or joint compliance) and what the responses did."""

    task: str
    figure: Figure
    behaviours: Mapping[str, int]
    corrected: Figure | None = None
    """The score with the judge's error in it."""
    method: str = ""
    """How it was corrected."""


@dataclass(frozen=True)
class JudgeLine:
    """Who judged a task, and how far that judge was found to agree with labels."""

    task: str
    name: str
    model: str
    f1: float | None
    interval: tuple[float, float] | None
    n: int
    labels: str
    by: str


@dataclass(frozen=True)
class RunReport:
    """What a report of one run says."""

    label: str
    suite: str
    compliance: Sequence[Figure]
    """The columns of Tables I and II: the averaged configurations, the others, Avg."""
    details: Sequence[ConfigurationFigure]
    references: Sequence[ConfigurationFigure]
    """The reference arm of each task: what the model does with no system prompt."""
    capabilities: Sequence[Figure]
    """The columns of Table III, and Avg."""
    unavailable: Mapping[str, str]
    """Capability tasks that could not be run, and why."""
    judges: Sequence[JudgeLine]
    flags: Mapping[str, str]
    """What each footnote means."""
    notes: Sequence[str]
    """What else a reader has to know."""

    @property
    def has_joint(self) -> bool:
        """Whether a task has more than one configuration."""
        return any(detail.figure.name == "joint" for detail in self.details)

    @property
    def corrections(self) -> Sequence[ConfigurationFigure]:
        """The configurations whose score could be corrected."""
        return [detail for detail in self.details if detail.corrected is not None]


def make_report(scores: Mapping[str, Any]) -> RunReport:
    """Reads the content of `scores.json`."""
    details = [
        _configuration(scores, task, name, value)
        for task, found in scores["compliance"].items()
        for name, value in found.items()
        if name != "reference"
    ]
    references = [
        ConfigurationFigure(
            task,
            Figure("no system prompt", None, None, found["reference"]["n"], found["reference"]["unscored"]),
            found["reference"]["behaviours"],
        )
        for task, found in scores["compliance"].items()
        if "reference" in found
    ]
    compliance = _compliance_row(scores, [detail.figure for detail in details if detail.figure.name != "joint"])
    capabilities = scores["capabilities"]
    figures = (*compliance, *(detail.figure for detail in details))
    used = {flag for figure in figures for flag in figure.flags}
    return RunReport(
        label=scores["checkpoint"]["label"],
        suite=scores["suite"]["title"],
        compliance=compliance,
        details=details,
        references=references,
        capabilities=_capability_row(scores),
        unavailable={name: value["unavailable"] for name, value in capabilities.items() if "unavailable" in value},
        judges=[_judge(task, judge) for task, judge in scores["judges"].items()],
        flags={flag: text for flag, text in FLAGS.items() if flag in used},
        notes=scores.get("notes", []),
    )


PARTIAL = "partial"
FLAGS = {
    "uncalibrated": (
        "no calibration card of the judge, or one with too low an F1: nobody has shown that its verdicts can be trusted"
    ),
    "unscored": f"more than {MAX_UNSCORED:.0%} of the responses are unscored: not to be ranked",
    PARTIAL: "a mean of other or fewer scores than the column's: not to be ranked",
}
LETTERS = {"uncalibrated": "u", "unscored": "x", PARTIAL: "p"}
"""Footnote letters."""
UNRANKED = {"unscored", PARTIAL}
"""Marks of scores that are not ranked."""


def _configuration(scores: Mapping[str, Any], task: str, name: str, value: Mapping[str, Any]) -> ConfigurationFigure:
    figure = _figure(scores, task, name, value)
    corrected = value.get("corrected")
    if corrected is None or corrected["score"] is None:
        return ConfigurationFigure(task, figure, value.get("behaviours", {}))
    better = Figure(name, corrected["score"], _pair(corrected["interval"]), figure.n)
    return ConfigurationFigure(task, figure, value.get("behaviours", {}), better, corrected["method"])


def _judge(task: str, judge: Mapping[str, Any]) -> JudgeLine:
    card = judge["calibration"] or {"macro_f1": None, "interval": None, "n": 0, "labels": "", "by": []}
    return JudgeLine(
        task,
        judge["name"],
        judge.get("model") or judge["kind"],
        card["macro_f1"],
        _pair(card["interval"]),
        card["n"],
        card["labels"],
        ", ".join(card["by"]),
    )


def _figure(scores: Mapping[str, Any], task: str, name: str, value: Mapping[str, Any]) -> Figure:
    flags = flags_of(scores, task, value)
    return Figure(name, value["score"], _pair(value["interval"]), value["n"], value["unscored"], flags)


def flags_of(scores: Mapping[str, Any], task: str, value: Mapping[str, Any]) -> tuple[str, ...]:
    """Footnotes of one score of a compliance task."""
    flags = []
    if not scores["judges"][task]["calibrated"]:
        flags.append("uncalibrated")
    if value["unscored"] > MAX_UNSCORED * (value["n"] + value["unscored"]):
        flags.append("unscored")
    return tuple(flags)


def _compliance_row(scores: Mapping[str, Any], figures: Sequence[Figure]) -> list[Figure]:
    average = scores["averages"]["compliance"]
    if average is None:
        return list(figures)
    by_name = {figure.name: figure for figure in figures}
    over = [by_name[name] for name in average["over"]]
    others = [figure for figure in figures if figure.name not in average["over"]]
    flags = tuple(dict.fromkeys(flag for figure in over for flag in figure.flags))
    interval = _pair(average["interval"])
    total = sum(figure.n for figure in over)
    return [*over, Figure("Avg.", average["score"], interval, total, sum(f.unscored for f in over), flags), *others]


def _capability_row(scores: Mapping[str, Any]) -> list[Figure]:
    figures = [
        Figure(value["title"], value["score"], _pair(value["interval"]), value["n"])
        for value in scores["capabilities"].values()
    ]
    average = scores["averages"]["capabilities"]
    if average is None:
        return figures
    total = sum(figure.n for figure in figures)
    return [*figures, Figure("Avg.", average["score"], _pair(average["interval"]), total)]


def _pair(interval: Sequence[float] | None) -> tuple[float, float] | None:
    return None if interval is None else (interval[0], interval[1])
