"""Judges a run that has its responses: what is not judged yet, or all of it by another judge. Loads no checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cst_bench import capabilities
from cst_bench.errors import Interrupted, UserError, did_you_mean
from cst_bench.judging import Judge, JudgeOptions, load_judge
from cst_bench.progress import Progress, Silent
from cst_bench.runs.evaluate import RunResult
from cst_bench.runs.finishing import attach_cards, finish, judge_all
from cst_bench.runs.run_folder import RunFolder, locked, read_folder
from cst_bench.runs.run_plan import NamedJudges, judge_settings


@dataclass(frozen=True)
class JudgeRunOptions:
    """What the user asks for. The names are those of the command line."""

    run: Path
    judges: tuple[str, ...] = ()
    """Other judges: each task takes the first that can judge it, and keeps its own of the run if none can."""
    judge_options: JudgeOptions = field(default_factory=JudgeOptions)
    tasks: tuple[str, ...] = ()
    """Only these tasks of the run."""
    judge_card: Path | None = None
    """A calibration card to attach, in place of the one that is found by the judge's hash."""
    min_judge_f1: float | None = None
    """Below this macro F1 a judge counts as uncalibrated; what the run has if None."""
    show_text: bool = False

    @property
    def _names_a_model(self) -> bool:
        return self.judge_options.model is not None or self.judge_options.base_url is not None


def judge_run(options: JudgeRunOptions, progress: Progress | None = None) -> RunResult:
    """Finishes the judging of a run, or repeats it with another judge, and writes its scores and report again.

    Calibration cards and labels that have come since are taken up. Killed, the same call continues; verdicts of a
    language model are cached, so that none is paid for twice.

    Raises:
        UserError: the folder is no run, its responses are not all there, or the judge can't judge it.
        Interrupted: a judge could not be reached; or only the capabilities of this run are still to do.
    """
    progress = progress or Silent()
    with locked(options.run):
        folder = read_folder(options.run)
        tasks = _tasks(folder, options.tasks)
        judges = _judges(folder, tasks, options)
        min_f1 = folder.settings["min_judge_f1"] if options.min_judge_f1 is None else options.min_judge_f1
        changed = {
            name: judge_settings(judge, source)
            for name, (judge, source) in judges.items()
            if judge.identity != folder.settings["compliance"][name]["judge"]["sha256"]
        }
        if changed or min_f1 != folder.settings["min_judge_f1"]:
            folder.judge_again(changed, min_f1)
        outcomes = judge_all(folder, {name: judge for name, (judge, _) in judges.items()}, progress)
        attach_cards(folder, options.judge_card)
        reasons = _capabilities(folder)
        return RunResult(folder.path, finish(folder, outcomes, show_text=options.show_text, reasons=reasons), False)


def _tasks(folder: RunFolder, wanted: tuple[str, ...]) -> list[str]:
    if folder.settings["checkpoint"]["kind"] == "file":
        raise UserError(f"{folder.path} was scored from a file and keeps no text: `cst-bench score` that file again")
    known = list(folder.settings["compliance"])
    if not known:
        raise UserError(f"{folder.path} has no compliance task: there is nothing to judge")
    for name in wanted:
        if name not in known:
            raise UserError(f"{folder.path} has no compliance task {name!r}: {did_you_mean(name, known)}")
    missing = [name for name in known if folder.part("compliance", name)["state"] == "pending"]
    if missing:
        raise UserError(
            f"{folder.path}: responses of {', '.join(missing)} are still to be made: "
            "run the command that began this run again, then judge it"
        )
    return list(wanted) or known


def _judges(folder: RunFolder, tasks: list[str], options: JudgeRunOptions) -> dict[str, tuple[Judge, str]]:
    """The judges that this call needs, and where each comes from."""
    named = NamedJudges(options.judges, options.judge_options)
    found: dict[str, tuple[Judge, str]] = {}
    for name, task in folder.settings["compliance"].items():
        another = named.first_fitting(name, task["configurations"].values(), task["fields"]) if name in tasks else None
        if another is not None:
            found[name] = another
        elif name in tasks and not options.judges and options._names_a_model:
            source = task["judge"]["source"]
            found[name] = (load_judge(source, options=options.judge_options), source)
        elif folder.part("compliance", name)["state"] != "judged":
            found[name] = _own(folder.path, name, task["judge"], options.judge_options)
    named.require_all_used()
    return found


def _own(run: Path, name: str, known: Mapping[str, Any], options: JudgeOptions) -> tuple[Judge, str]:
    """The judge that the run was made with."""
    same = replace(options, model=known.get("model"), base_url=known.get("base_url"))
    judge = load_judge(known["source"], options=same)
    if judge.identity != known["sha256"]:
        raise UserError(
            f"{run}: judge {known['source']} of {name} is not what it was when the run began: "
            f"say --judge {known['source']} to judge by what it is now"
        )
    return judge, known["source"]


def _capabilities(folder: RunFolder) -> dict[str, str]:
    """Why a capability has no result."""
    reasons = {}
    for name in folder.settings["capabilities"]:
        part = folder.part("capabilities", name)
        if part["state"] == "unavailable":
            reasons[name] = part["reason"]
        elif capabilities.load(folder.path / "capabilities", name) is None:
            raise Interrupted(
                f"{folder.path}: the verdicts are there; capabilities ({name}) are still to do: "
                "the command that began this run, with the judge it has now, does them"
            )
    return reasons
