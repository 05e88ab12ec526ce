"""The judging of a run and what follows from it: scores and report. It needs the run folder and no checkpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cst_bench import capabilities
from cst_bench.capabilities import CapabilityResult
from cst_bench.compliance.scores import Outcome
from cst_bench.errors import Interrupted, UserError
from cst_bench.files import write_json
from cst_bench.judging import Judge, JudgeUnavailable
from cst_bench.judging.card import card_summary, find_card, read_card
from cst_bench.progress import Progress
from cst_bench.reporting import write_report
from cst_bench.runs.labelling import read_run_labels
from cst_bench.runs.outcomes import write_outcomes
from cst_bench.runs.run_folder import RunFolder
from cst_bench.runs.scoring import make_scores


def judge_all(folder: RunFolder, judges: Mapping[str, Judge], progress: Progress) -> dict[str, list[Outcome]]:
    """The outcomes of every compliance task; those judged before are read from their logs.

    Raises:
        Interrupted: a judge could not be reached; every response, and every verdict that was had, is kept.
    """
    from cst_bench.compliance.logs import judge_log, read_outcomes

    found: dict[str, list[Outcome]] = {}
    for name, settings in folder.settings["compliance"].items():
        part = folder.part("compliance", name)
        log = folder.path / part["log"]
        if part["state"] == "judged":
            found[name] = read_outcomes(log)
            continue
        judge = judges[name]
        started = time.monotonic()
        with progress.stage(f"{settings['title']}: verdicts", part["responses"]) as count:
            try:
                found[name], spent = judge_log(log, judge, count)
            except JudgeUnavailable as error:
                raise Interrupted(
                    f"{name}: {error}; the responses are kept: `cst-bench judge {folder.path}` asks for the rest, "
                    f"with --judge another judge"
                ) from None
        folder.set_part(
            "compliance",
            name,
            state="judged",
            judging={"seconds": round(time.monotonic() - started, 1), **spent},
        )
    return found


def attach_cards(folder: RunFolder, path: Path | None) -> None:
    """Finds the calibration card of each task's judge, or takes the one that is given for those that it is of.

    Raises:
        UserError: the card that is given is of no judge of this run.
    """
    given = None if path is None else read_card(path)
    tasks = folder.settings["compliance"]
    if given is not None and given["judge"]["sha256"] not in {task["judge"]["sha256"] for task in tasks.values()}:
        raise UserError(
            f"{path} is the card of judge {given['judge']['name']} with the SHA-256 {given['judge']['sha256'][:12]}…, "
            "which judges no task of this run: calibrate the judge as the run uses it"
        )
    for name, task in tasks.items():
        identity, source = task["judge"]["sha256"], task["judge"]["source"]
        of_this = given is not None and given["judge"]["sha256"] == identity
        card = given if of_this else find_card(identity, Path(source) if Path(source).is_file() else None)
        folder.set_part("compliance", name, calibration=None if card is None else card_summary(card))


def finish(
    folder: RunFolder, outcomes: Mapping[str, list[Outcome]], *, show_text: bool, reasons: Mapping[str, str]
) -> dict[str, Any]:
    """Writes `outcomes.json`, `scores.json` and `report.md` and marks the run as finished; returns the scores.

    `reasons` says why a capability task has no result.
    """
    results = {name: _capability(folder, name, reasons) for name in folder.settings["capabilities"]}
    scores = make_scores(
        folder.settings,
        outcomes,
        {name: folder.part("compliance", name)["calibration"] for name in folder.settings["compliance"]},
        results,
        read_run_labels(folder.path),
    )
    documents = {
        name: (found, capabilities.document_scores(folder.path / "capabilities", name))
        for name, found in results.items()
        if not isinstance(found, str)
    }
    logs = {name: folder.path / folder.part("compliance", name)["log"] for name in folder.settings["compliance"]}
    write_outcomes(folder.path, outcomes, documents)
    write_json(folder.path / "scores.json", scores)
    write_report(folder.path, scores, folder.settings, logs, show_text=show_text)
    folder.finish()
    return scores


def _capability(folder: RunFolder, name: str, reasons: Mapping[str, str]) -> CapabilityResult | str:
    found = capabilities.load(folder.path / "capabilities", name)
    return reasons[name] if found is None else found
