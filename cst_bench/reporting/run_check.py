"""Compare a run folder with its receipt: are its files those that the run was finished with, and what to do if not."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cst_bench.errors import UserError
from cst_bench.record import LABEL_FILES, FileHash, Manifest, Receipt, StageName, hash_file, stage_files

State = Literal["intact", "damaged", "no receipt", "unfinished"]
_SHOWN = 5
"""Files that a message names; further ones are counted."""
_LABELS_ADDED = "labels were added since the scores were computed: `cst-bench judge RUN` uses them"


@dataclass(frozen=True)
class Fault:
    """A file that is not as it was when the run was finished."""

    file: str
    """Relative to the run folder."""
    problem: str
    """Predicate, as in "is missing"."""
    stage: StageName | None
    """Stage of the file; None for the receipt itself."""
    remakable: bool
    """Whether its content follows from files that are intact."""


@dataclass(frozen=True)
class RunCheck:
    """State of a run's files."""

    folder: Path
    state: State
    receipt: Receipt | None = None
    """None for a run without a receipt, or with a damaged one."""
    faults: tuple[Fault, ...] = ()
    kind: str | None = None
    """Kind of checkpoint, which decides how the run is repeated; None if `run.json` can't be read."""
    notes: tuple[str, ...] = ()
    """Changes since then that are no fault."""

    @property
    def stale(self) -> tuple[str, ...]:
        """Return the Inspect logs whose verdicts are damaged and whose responses are intact."""
        return tuple(fault.file for fault in self.faults if fault.stage == "verdicts" and fault.remakable)

    @property
    def lost(self) -> tuple[Fault, ...]:
        """Return the faults of files that nothing intact gives again."""
        return tuple(fault for fault in self.faults if not fault.remakable)

    @property
    def message(self) -> str:
        """Return which files are damaged, and what to do."""
        shown = [f"{self.folder / fault.file} {fault.problem}" for fault in self.faults[:_SHOWN]]
        more = len(self.faults) - len(shown)
        return f"{', '.join(shown)}{f' and {more} more' if more else ''}: {self._advice()}"

    def _advice(self) -> str:
        judge = f"`cst-bench judge {shlex.quote(str(self.folder))}`"
        if self.lost:
            command = "cst-bench score" if self.kind == "file" else "cst-bench run"
            restore = f"restore {_it(self.lost)} from a copy, or repeat `{command}` with a new folder as --out"
            rest = "" if len(self.lost) == len(self.faults) else f"; once restored, {judge} makes the other files again"
            return f"{restore}{rest}"
        if self.kind == "file":
            return f"score the file again into this folder (`cst-bench score` with --out {self.folder})"
        if self.stale:
            return f"{judge} judges the responses again, which are intact, and writes the scores and the report"
        if any(fault.stage is None for fault in self.faults):
            return f"restore it, or, if you trust the other files, {judge} computes from them again and writes another"
        if any(fault.stage == "labels" for fault in self.faults):
            return f"restore it, or, if these are the labels to use, {judge} computes the scores by them"
        return f"{judge} writes {_it(self.faults)} again, from responses and verdicts that are intact"


def _it(faults: Sequence[Fault]) -> str:
    return "it" if len(faults) == 1 else "them"


def read_manifest(folder: Path) -> Manifest:
    """Read the `run.json` of a run folder.

    Raises:
        UserError: the folder is not a run, or the file is missing, of another version or damaged.
    """
    if not (folder / Manifest.FILE_NAME).is_file() and not (folder / Receipt.FILE_NAME).is_file():
        raise UserError(f"{folder} is not a run folder: it has no run.json; `cst-bench run` makes one")
    manifest, fault = _manifest(folder)
    if manifest is None:
        check = check_run(folder)
        raise UserError(check.message if check.faults else fault)
    return manifest


def run_folders(path: Path) -> list[Path]:
    """Return the run folders at or below a path by name, also those whose `run.json` is lost."""
    found = {file.parent for file in path.rglob(Manifest.FILE_NAME)}
    others = {file.parent for file in path.rglob(Receipt.FILE_NAME)} - found
    return sorted(found | {folder for folder in others if _receipt(folder)[0] is not None})


def check_run(folder: Path, *, only_sizes: bool = False) -> RunCheck:
    """Compare the files of a run with its receipt.

    Args:
        folder: A run folder, which may be another user's: no link is followed out of it.
        only_sizes: Compare only the sizes of logs, samples and labels, which may be large.

    Raises:
        UserError: the folder has neither a receipt nor a readable `run.json`.
    """
    manifest, fault_of_manifest = _manifest(folder)
    receipt, fault_of_receipt = _receipt(folder)
    if manifest is None and receipt is None:
        raise UserError(fault_of_manifest)
    kind = None if manifest is None else manifest.settings.checkpoint.kind
    if manifest is not None and manifest.status.run != "finished":
        return RunCheck(folder, "unfinished", receipt, kind=kind)
    if receipt is None:
        if manifest is not None and not manifest.has_receipt and not fault_of_receipt:
            return RunCheck(folder, "no receipt", kind=kind)
        fault = Fault(Receipt.FILE_NAME, fault_of_receipt or "is missing", None, True)
        return RunCheck(folder, "damaged", None, (fault,), kind)
    faults = list(_faults(folder, receipt, only_sizes))
    if manifest is not None and not any(fault.stage == "run" for fault in faults):
        faults += _unlisted(manifest, receipt)
    notes = (_LABELS_ADDED,) if any(_added(folder, name, receipt) for name in LABEL_FILES) else ()
    return RunCheck(folder, "damaged" if faults else "intact", receipt, tuple(faults), kind, notes)


def require_intact(folder: Path, *, labels: bool = True) -> Receipt | None:
    """Check the files of a run against its receipt and return it; None for a run without one.

    Args:
        folder: The run folder.
        labels: Check those of labels, too.

    Raises:
        UserError: a file is missing, or not as the run was finished with; the message says what to do.
    """
    check = check_run(folder)
    if check.state == "damaged" and any(labels or fault.stage != "labels" for fault in check.faults):
        raise UserError(check.message)
    return check.receipt if check.state != "unfinished" else None


def responses_intact(folder: Path, log: str, receipt: Receipt) -> bool:
    """Return whether the responses in a log are those of the receipt, whatever the verdicts in it."""
    from cst_bench.compliance.judged_log import responses_digest

    if isinstance(hash_file(folder, log), str):
        return False
    try:
        return responses_digest(folder / log) == receipt.responses.get(log)
    except Exception:  # noqa: BLE001  whatever a reader raises of a damaged log, its responses are not all there
        return False


def _manifest(folder: Path) -> tuple[Manifest | None, str]:
    """Return the manifest, or what is wrong with it."""
    if not (folder / Manifest.FILE_NAME).is_file():  # opening a pipe would wait for who writes into it
        return None, f"{folder / Manifest.FILE_NAME} is missing or no file: restore it"
    try:
        return Manifest.read(folder), ""
    except UserError as error:
        return None, str(error)


def _receipt(folder: Path) -> tuple[Receipt | None, str]:
    """Return the receipt, or what is wrong with it: nothing, if there is none."""
    problem = hash_file(folder, Receipt.FILE_NAME)
    if problem == "is missing":
        return None, ""
    if isinstance(problem, str):
        return None, problem
    try:
        return Receipt.read(folder), ""
    except UserError:
        return None, "is not as cst-bench wrote it"


def _faults(folder: Path, receipt: Receipt, only_sizes: bool) -> Iterator[Fault]:
    """Yield the files of a receipt that are not as it has them, in the order of the stages."""
    for name, (stage, known) in receipt.files.items():
        small = "/" not in name and stage != "labels"
        problem = _size_problem(folder, name, known) if only_sizes and not small else _problem(folder, name, known)
        if problem is None or _added(folder, name, receipt):
            continue
        remakable = stage not in ("run", "responses", "verdicts")
        if stage == "verdicts" and not only_sizes:
            remakable = responses_intact(folder, name, receipt)
        yield Fault(name, problem, stage, remakable)


def _added(folder: Path, name: str, receipt: Receipt) -> bool:
    """Return whether a file of labels has come since, or rows at the end of one."""
    path = folder / name
    if name not in LABEL_FILES or not path.is_file() or path.is_symlink():
        return False
    if name not in receipt.files:
        return True
    known = receipt.files[name][1]
    if name != LABEL_FILES[0] or path.stat().st_size <= known.bytes:
        return False
    with path.open("rb") as file:
        return hashlib.sha256(file.read(known.bytes)).hexdigest() == known.sha256


def _problem(folder: Path, name: str, known: FileHash) -> str | None:
    now = hash_file(folder, name)
    if isinstance(now, str):
        return now
    if now.bytes != known.bytes:
        return f"has {now.bytes:,} bytes, not the {known.bytes:,} of its receipt"
    return None if now == known else "was changed since the run was finished"


def _size_problem(folder: Path, name: str, known: FileHash) -> str | None:
    try:
        size = (folder / name).lstat().st_size
    except (OSError, ValueError):
        return "is missing"
    return None if size == known.bytes or (folder / name).is_symlink() else "has another size than on its receipt"


def _unlisted(manifest: Manifest, receipt: Receipt) -> Iterator[Fault]:
    """Yield a fault if a receipt does not list just the files that the run has."""
    wanted = {name for names in stage_files(manifest).values() for name in names}
    listed = receipt.files.keys() - set(LABEL_FILES)
    if wanted != listed:
        name = sorted(wanted ^ listed)[0]
        yield Fault(Receipt.FILE_NAME, f"is of other files than the run's ({name})", None, True)
