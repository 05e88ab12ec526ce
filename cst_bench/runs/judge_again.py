"""Judge a run that has its responses: what is not judged yet, or all of it with another judge. Loads no checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import JsonValue

from cst_bench import capabilities
from cst_bench.compliance.stored_samples import require_readable_log
from cst_bench.errors import Interrupted, UserError, did_you_mean
from cst_bench.judging import Judge, JudgeOptions, describe_judge, in_terms_of, load_judge, without_secrets
from cst_bench.judging.card import read_card
from cst_bench.progress import Progress, Silent
from cst_bench.record import ComplianceSettings, JudgeRecord, Receipt, hash_file
from cst_bench.reporting.run_check import check_run, responses_intact
from cst_bench.runs.evaluate import RunResult
from cst_bench.runs.finishing import attach_cards, finish, judge_all
from cst_bench.runs.label_file import read_run_labels
from cst_bench.runs.run_folder import RunFolder, read_folder
from cst_bench.runs.run_plan import NamedJudges
from cst_bench.workfolder import locked


@dataclass(frozen=True)
class JudgeRunOptions:
    """Options of judging a run, named as on the command line."""

    run: Path
    judges: tuple[str, ...] = ()
    """Other judges: each task takes the first that supports it, else its judge in the run."""
    judge_options: JudgeOptions = field(default_factory=JudgeOptions)
    tasks: tuple[str, ...] = ()
    """Judge only these tasks of the run."""
    judge_card: Path | None = None
    """Calibration card to use instead of the one found by the judge's hash."""
    min_judge_f1: float | None = None
    """Minimum macro F1 of a calibrated judge; the run's own if None."""
    show_text: bool = False
    """Show prompts and responses in the report."""

    @property
    def _names_a_model(self) -> bool:
        return self.judge_options.model is not None or self.judge_options.base_url is not None

    @property
    def _asks_otherwise(self) -> bool:
        given = self.judge_options
        return self._names_a_model or given.max_tokens is not None or given.reasoning_effort is not None


def judge_run(options: JudgeRunOptions, progress: Progress | None = None) -> RunResult:
    """Finish the judging of a run, or repeat it with another judge, and write its scores and report again.

    New calibration cards and labels are used. A killed call continues; verdicts of a language model are cached, so
    that none is paid for twice. A judge that is named again, or given more tokens, is asked again about the responses
    that it left unscored.

    Files of a finished run that were damaged since are written again where they follow from intact ones: verdicts from
    the responses, by the run's own judge, and scores and report from both.

    The folder may be somebody else's: a key goes to no address that is read from it unless the call names it again.

    Raises:
        UserError: the folder is not a run, responses are missing or damaged, the judge does not support a task, labels
            in the run's folder belong to other responses, or a key would go to an address that only the run names.
        Interrupted: a judge could not be reached, or capabilities of this run are still to be scored.
    """
    progress = progress or Silent()
    read_folder(options.run)  # a mistyped path is refused before the lock makes a folder there
    with locked(options.run):
        folder = read_folder(options.run)
        stale = _stale_tasks(folder)
        tasks = _tasks(folder, options.tasks)
        _require_readable(folder, options)
        judges = _judges(folder, tasks, options, stale)
        min_f1 = folder.settings.min_judge_f1 if options.min_judge_f1 is None else options.min_judge_f1
        records = {name: describe_judge(judge, source) for name, (judge, source) in judges.items()}
        if records or min_f1 != folder.settings.min_judge_f1:
            folder.judge_again(records, min_f1)
        outcomes = judge_all(folder, {name: judge for name, (judge, _) in judges.items()}, progress)
        attach_cards(folder, options.judge_card, progress)
        reasons = _unavailable_capabilities(folder)
        return RunResult(finish(folder, outcomes, show_text=options.show_text, reasons=reasons), False)


def _require_readable(folder: RunFolder, options: JudgeRunOptions) -> None:
    """Check what is read beside the responses, before a judge is paid and a finished run is set back.

    Raises:
        UserError: labels, results of capabilities or the card that was named are damaged, or of another run.
    """
    read_run_labels(folder.path)
    for name in folder.settings.capabilities:
        if capabilities.load(folder.path / "capabilities", name) is not None:
            capabilities.document_scores(folder.path / "capabilities", name)
    if options.judge_card is not None:
        read_card(options.judge_card)
    for name in folder.settings.compliance:
        for log in folder.logs(name):
            require_readable_log(log)


def _tasks(folder: RunFolder, wanted: tuple[str, ...]) -> list[str]:
    if folder.settings.checkpoint.kind == "file":
        raise UserError(f"{folder.path} was scored from a file and keeps no text: run `cst-bench score` on it again")
    known = list(folder.settings.compliance)
    for name in wanted:
        if name not in known:
            raise UserError(f"{folder.path} has no compliance task {name!r}: {did_you_mean(name, known)}")
    missing = [name for name in known if folder.compliance(name).state == "pending"]
    if missing:
        raise UserError(
            f"{folder.path}: responses of {', '.join(missing)} are missing: "
            "repeat the command that began this run, then judge it"
        )
    return list(wanted) or known


def _stale_tasks(folder: RunFolder) -> set[str]:
    """Return the tasks whose verdicts were damaged and whose responses are intact, by the run's receipt.

    Raises:
        UserError: responses or settings are damaged, which can't be made again here.
    """
    check = check_run(folder.path)
    if check.lost:
        raise UserError(check.message)
    if check.state == "unfinished" and check.receipt is not None:  # its logs may have new verdicts
        for log in check.receipt.responses:
            _require_responses(folder.path, log, check.receipt)
    parts = folder.manifest.status.compliance
    return {name for name, part in parts.items() if {*part.logs} & {*check.stale}}


def _require_responses(run: Path, log: str, receipt: Receipt) -> None:
    unchanged = hash_file(run, log) == receipt.files.get(log, (None, None))[1]
    if not unchanged and not responses_intact(run, log, receipt):
        raise UserError(
            f"{run / log} has other responses than the run was finished with: restore it from a copy, or repeat "
            "`cst-bench run` with a new folder as --out"
        )


def _judges(
    folder: RunFolder, tasks: list[str], options: JudgeRunOptions, stale: Set[str]
) -> dict[str, tuple[Judge, str]]:
    """Return the judges that this call needs, each with its source; verdicts of stale tasks are made again."""
    named = NamedJudges(options.judges, options.judge_options)
    judges: dict[str, tuple[Judge, str]] = {}
    address = without_secrets(options.judge_options.base_url)
    addresses = {folder.settings.compliance[name].judge.base_url for name in tasks}
    named_again = options.judge_options.model is None and address is not None and address in addresses
    for name, task in folder.settings.compliance.items():
        another = named.first_fitting(name, task.configurations.values(), task.fields) if name in tasks else None
        if another is not None:
            judges[name] = another.judge, another.source
        elif (
            name in tasks
            and not options.judges
            and options._asks_otherwise
            and (not named_again or task.judge.base_url == address)
        ):
            judges[name] = _otherwise(folder.path, task, options)
        elif folder.compliance(name).state != "judged" or name in stale:
            judges[name] = _same_judge(folder.path, name, task, options.judge_options)
    named.require_all_used()
    return judges


def _otherwise(run: Path, task: ComplianceSettings, options: JudgeRunOptions) -> tuple[Judge, str]:
    """Load a judge of the run with the options of this call."""
    given, record = options.judge_options, task.judge
    same_model = given.model is None and without_secrets(given.base_url) in (None, record.base_url)
    judge = load_judge(record.source, options=_as_recorded(record, given) if same_model else given)
    _require_named_address(run, judge, record.source, given)
    return in_terms_of(judge, task.configurations.values()), record.source


def _require_named_address(run: Path, judge: Judge, source: str, given: JudgeOptions) -> None:
    """Check that a judge that a run names, by its file or its options, sends no key to an address of its own.

    Raises:
        UserError: it would.
    """
    if not os.environ.get("OPENAI_API_KEY"):
        return
    for address in _addresses(dict(judge.details)):
        if address != without_secrets(given.base_url):
            raise UserError(
                f"{run}: its judge {source} would send OPENAI_API_KEY to {address}, which only the run names: "
                f"if you trust the address, name it again with --judge-base-url {address} (a panel: with --judge "
                f"{source}), or unset OPENAI_API_KEY"
            )


def _addresses(details: JsonValue) -> Iterator[str]:
    """Yield the addresses in a judge's details, and in those of its members."""
    if isinstance(details, dict):
        address = details.get("base_url")
        if isinstance(address, str):
            yield address
    nested = details.values() if isinstance(details, dict) else details if isinstance(details, list) else ()
    for value in nested:
        yield from _addresses(value)


def _as_recorded(record: JudgeRecord, given: JudgeOptions) -> JudgeOptions:
    """Return the options of a judge of the run, except for what this call gives."""
    named_again = given.base_url is not None and without_secrets(given.base_url) == record.base_url
    return replace(
        given,
        model=record.model,
        base_url=given.base_url if named_again else record.base_url,  # what was given may have user and password
        max_tokens=given.max_tokens or record.max_tokens,
        reasoning_effort=given.reasoning_effort or record.reasoning_effort,
    )


def _same_judge(run: Path, name: str, task: ComplianceSettings, options: JudgeOptions) -> tuple[Judge, str]:
    """Load the judge that the run was made with."""
    record = task.judge
    judge = in_terms_of(load_judge(record.source, options=_as_recorded(record, options)), task.configurations.values())
    if not describe_judge(judge, record.source).gives_verdicts_of(record):
        raise UserError(
            f"{run}: judge {record.source} of {name} has changed since the run began: "
            f"give --judge {record.source} to use it as it is now"
        )
    _require_named_address(run, judge, record.source, options)
    return judge, record.source


def _unavailable_capabilities(folder: RunFolder) -> dict[str, str]:
    """Return why capability tasks have no result."""
    reasons = {}
    for name in folder.settings.capabilities:
        part = folder.capability(name)
        if part.state == "unavailable":
            reasons[name] = str(part.reason)
        elif capabilities.load(folder.path / "capabilities", name) is None:
            raise Interrupted(
                f"{folder.path}: the verdicts are done, but capabilities ({name}) are not: "
                "repeat the command that began this run, with the judge that it has now"
            )
    return reasons
