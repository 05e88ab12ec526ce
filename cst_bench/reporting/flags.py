"""Flags of scores: footnotes that say why a score is not to be taken at face value."""

from __future__ import annotations

from collections.abc import Iterable

from cst_bench.record import ConfigurationScore, Score, Scores, TaskJudge

MAX_UNSCORED = 0.02
"""A score with a larger share of unscored responses is flagged and not ranked."""
MAX_DEGENERATE = 0.02
"""A score with a larger share of degenerate or repeated responses is flagged."""
UNCALIBRATED, UNSCORED, DEGENERATE, PARTIAL = "uncalibrated", "unscored", "degenerate", "partial"
FLAGS = {
    UNCALIBRATED: "the judge is not calibrated: nobody has shown that its verdicts can be trusted",
    UNSCORED: f"more than {MAX_UNSCORED:.0%} of the responses are unscored: not to be ranked",
    DEGENERATE: (
        f"more than {MAX_DEGENERATE:.0%} of the responses are degenerate (empty, noise, an echo) or repeat themselves: "
        "the model may be broken"
    ),
    PARTIAL: "a mean of other or fewer scores than the column's: not to be ranked",
}
"""Flag → its meaning."""
LETTERS = {UNCALIBRATED: "u", UNSCORED: "x", DEGENERATE: "d", PARTIAL: "p"}
"""Footnote letters."""
UNRANKED = {UNSCORED, PARTIAL}
"""Flags of scores that are not ranked."""


def flags_of(score: Score, judge: TaskJudge) -> tuple[str, ...]:
    """Return the flags of a score of a compliance task."""
    flags = []
    if not judge.calibrated:
        flags.append(UNCALIBRATED)
    if score.unscored > MAX_UNSCORED * (score.n + score.unscored):
        flags.append(UNSCORED)
    if isinstance(score, ConfigurationScore):
        degenerate = max(sum(score.degenerate.values()), score.repeated or 0)
        if degenerate > MAX_DEGENERATE * (score.n + score.unscored):
            flags.append(DEGENERATE)
    return tuple(flags)


def used_flags(flags: Iterable[str], scores: Iterable[Scores] = ()) -> dict[str, str]:
    """Return the flags in use with their meanings, in the order of `FLAGS`.

    Args:
        flags: Flags of cells.
        scores: Scores of the runs, whose judges' reasons the meaning of `uncalibrated` names.
    """
    used = set(flags)
    meanings = {flag: meaning for flag, meaning in FLAGS.items() if flag in used}
    reasons = _why_uncalibrated(scores)
    if UNCALIBRATED in used and reasons:
        meanings[UNCALIBRATED] += f" ({'; '.join(reasons)})"
    return meanings


def _why_uncalibrated(scores: Iterable[Scores]) -> list[str]:
    """Return `JUDGE on TASK, …: reasons` for judges that are not calibrated."""
    judges: dict[str, list[str]] = {}
    for run in scores:
        for task, judge in run.judges.items():
            if not judge.calibrated:
                name = judge.name if judge.name == task else f"{judge.name} on {task}"
                named = judges.setdefault(", and ".join(judge.uncalibrated) or _older(judge), [])
                named += [] if name in named else [name]
    return [f"{', '.join(names)}: {reason}" for reason, names in judges.items()]


def _older(judge: TaskJudge) -> str:
    """Return the reason in a run that was scored before reasons were kept."""
    return "no calibration card" if judge.calibration is None else "too low a macro F1"
