"""The judging of a run and what follows from it: scores and report. It needs the run folder and no checkpoint."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cst_bench import capabilities
from cst_bench.capabilities import CapabilityResult
from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.errors import Interrupted, UserError
from cst_bench.judging import Judge, JudgeUnavailable
from cst_bench.judging.cache import keeping_answers
from cst_bench.judging.card import find_card, read_card
from cst_bench.progress import Progress
from cst_bench.record import Judging, Outcomes, Scores, Spent
from cst_bench.reporting import StoredRun, write_run_report
from cst_bench.runs.divergence import read_divergences
from cst_bench.runs.engine import engine_notes
from cst_bench.runs.label_file import read_run_labels
from cst_bench.runs.receipt_writing import write_receipt
from cst_bench.runs.run_folder import RunFolder, finished_manifest
from cst_bench.runs.run_outcomes import make_outcomes
from cst_bench.runs.scoring import make_scores


def judge_all(folder: RunFolder, judges: Mapping[str, Judge], progress: Progress) -> dict[str, list[Outcome]]:
    """Judge every compliance task and return the outcomes; tasks judged before are read from their logs.

    Raises:
        Interrupted: a judge could not be reached; every response and every verdict so far is kept.
    """
    with keeping_answers(folder.path):
        return _judge_all(folder, judges, progress)


def _judge_all(folder: RunFolder, judges: Mapping[str, Judge], progress: Progress) -> dict[str, list[Outcome]]:
    from cst_bench.compliance.judged_log import judge_log, read_outcomes

    outcomes: dict[str, list[Outcome]] = {}
    for name, settings in folder.settings.compliance.items():
        part = folder.compliance(name)
        logs = folder.logs(name)
        if part.state == "judged":
            outcomes[name] = [outcome for log in logs for outcome in read_outcomes(log)]
            continue
        started = time.monotonic()
        with progress.stage(f"{settings.title}: verdicts", part.responses or 0) as count:
            try:
                judged = [judge_log(log, judges[name], count) for log in logs]
            except JudgeUnavailable as error:
                address = settings.judge.base_url
                command = f"cst-bench judge {folder.path}{f' --judge-base-url {address}' if address else ''}"
                raise Interrupted(
                    f"{name}: {error}; the responses are kept: `{command}` judges the rest, "
                    "or all of them with --judge another judge"
                ) from None
        outcomes[name] = [outcome for of_log, _ in judged for outcome in of_log]
        spent = Spent.total([spent for _, spent in judged if spent is not None])
        stages = Counter(outcome.first.stage for outcome in outcomes[name] if outcome.first is not None)
        judging = Judging(
            seconds=round(time.monotonic() - started, 1), spent=spent, stages=dict(sorted(stages.items()))
        )
        folder.set_compliance(name, state="judged", judging=judging)
    return outcomes


def attach_cards(folder: RunFolder, path: Path | None, progress: Progress) -> None:
    """Find the calibration card of each task's judge; a card given by `path` is used for the judge that it describes.

    Raises:
        UserError: the given card describes no judge of this run.
    """
    chosen_card = None if path is None else read_card(path)
    tasks = folder.settings.compliance
    if chosen_card is not None and chosen_card.judge.sha256 not in {task.judge.sha256 for task in tasks.values()}:
        raise UserError(
            f"{path} is the card of judge {chosen_card.judge.name} with the SHA-256 {chosen_card.judge.sha256[:12]}…, "
            "which judges no task of this run: calibrate the judge as the run uses it"
        )
    summaries = {}
    for name, task in tasks.items():
        source = Path(task.judge.source)
        own_card = chosen_card if chosen_card is not None and chosen_card.judge.sha256 == task.judge.sha256 else None
        card = own_card or find_card(task.judge.sha256, source if source.is_file() else None, progress.note)
        summaries[name] = None if card is None else card.summary()
    folder.set_calibrations(summaries)


def finish(
    folder: RunFolder, outcomes: Mapping[str, list[Outcome]], *, show_text: bool, reasons: Mapping[str, str]
) -> StoredRun:
    """Write `outcomes.json`, `scores.json`, `report.md` and the receipt, flag the run as finished, and return it.

    Args:
        folder: The run.
        outcomes: Compliance task → what its responses did.
        show_text: Put prompts and responses into the report.
        reasons: Capability task → why it has no result.

    Raises:
        Interrupted: the KL divergence is still to be measured.
    """
    results = {name: _capability(folder, name, reasons) for name in folder.settings.capabilities}
    divergences = read_divergences(folder)
    labels = read_run_labels(folder.path)
    scores = make_scores(
        folder.settings,
        outcomes,
        {name: folder.compliance(name).calibration for name in folder.settings.compliance},
        results,
        labels,
        divergences,
    ).model_copy(update={"notes": tuple(engine_notes(folder.manifest))})
    documents = {
        name: (result, capabilities.document_scores(folder.path / "capabilities", name))
        for name, result in results.items()
        if not isinstance(result, str)
    }
    logs = {name: folder.logs(name) for name in folder.settings.compliance}
    made = make_outcomes(outcomes, documents, labels, divergences)
    return write_results(folder, scores, made, logs, show_text=show_text)


def write_results(
    folder: RunFolder, scores: Scores, outcomes: Outcomes, logs: Mapping[str, Sequence[Path]], *, show_text: bool
) -> StoredRun:
    """Write `outcomes.json`, `scores.json`, `report.md`, the receipt, and last `run.json`; return the run.

    Only the last write makes the run a finished one: cut off before it, the same command writes all of them again.
    """
    folder.reopen()
    outcomes.write(folder.path)
    scores.write(folder.path)
    write_run_report(StoredRun(folder.path, folder.manifest, scores, outcomes), logs, show_text=show_text)
    manifest = finished_manifest(folder.manifest, has_receipt=True)
    receipt = write_receipt(folder.path, manifest)
    folder.finish(manifest)
    return StoredRun(folder.path, folder.manifest, scores, outcomes, receipt.sha256)


def _capability(folder: RunFolder, name: str, reasons: Mapping[str, str]) -> CapabilityResult | str:
    result = capabilities.load(folder.path / "capabilities", name)
    return reasons[name] if result is None else result
