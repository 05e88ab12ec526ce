"""Verify runs: their files against their receipts, and the receipts' signatures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cst_bench.errors import UserError
from cst_bench.reporting.run_check import RunCheck, check_run, require_intact
from cst_bench.reporting.signature import SIGNATURE, Signature, check_signature
from cst_bench.reporting.signature import sign as sign_receipt
from cst_bench.reporting.stored_run import find_runs
from cst_bench.workfolder import locked


@dataclass(frozen=True)
class VerifiedRun:
    """State of a run's files since it was finished."""

    folder: str
    state: str
    """intact, damaged, no receipt or unfinished."""
    receipt: str | None
    """Digest of the receipt, which reports name; None without an intact one."""
    files: int
    """Files of the receipt."""
    signed_by: str | None = None
    """Who signed the receipt; the key's fingerprint if no allowed signers were given. None if it is not signed."""
    problems: tuple[str, ...] = ()
    """Message for a fault: what is wrong, and what to do."""
    notes: tuple[str, ...] = ()

    @property
    def verified(self) -> bool:
        """Return whether every file is the one that the run was finished with, and signed if that was asked for."""
        return self.state == "intact" and not self.problems

    def as_json(self) -> dict[str, object]:
        """Return the run as a JSON object."""
        return {**asdict(self), "verified": self.verified}


def verify(
    runs: Path | str | Sequence[Path | str],
    *,
    allowed_signers: Path | str | None = None,
    sign: Path | str | None = None,
) -> list[VerifiedRun]:
    """Compare the files of runs with their receipts, and check or make the receipts' signatures.

    Args:
        runs: Run folders, or folders that have some.
        allowed_signers: OpenSSH's file of who may sign; if given, a receipt must be signed by one of them.
        sign: SSH key to sign the receipts with; a run that is not intact is not signed.

    Raises:
        UserError: a path has no run, a run to sign is not intact, or the key can't be used. What is wrong with a run
            that is only verified is in its `problems`.
    """
    folders = find_runs([Path(path) for path in ([runs] if isinstance(runs, (str, Path)) else runs)])
    signers = None if allowed_signers is None else Path(allowed_signers)
    for file, what in ((sign, "an SSH key"), (allowed_signers, "a file of allowed signers")):
        if file is not None and not Path(file).is_file():
            raise UserError(f"{file}: no such file: give {what}")
    if sign is not None:
        for folder in folders:
            with locked(folder):
                if require_intact(folder) is None:
                    raise UserError(f"{folder}: there is nothing to sign: {_without_receipt(check_run(folder))}")
                sign_receipt(folder, Path(sign))
    return [_verified(folder, signers) for folder in folders]


def _verified(folder: Path, allowed_signers: Path | None) -> VerifiedRun:
    try:
        check = check_run(folder)
    except UserError as error:
        return VerifiedRun(str(folder), "damaged", None, 0, problems=(str(error),))
    problems = [check.message] if check.faults else []
    if check.state in ("no receipt", "unfinished"):
        problems.append(f"{folder}: {_without_receipt(check)}")
    signature: Signature | None = None
    if check.receipt is not None and check.state != "unfinished":
        try:
            signature = check_signature(folder, allowed_signers)
            if signature is None and allowed_signers is not None:
                problems.append(f"{folder / SIGNATURE} is missing: the receipt is not signed by any allowed signer")
        except UserError as error:
            problems.append(str(error))
    known = check.receipt if check.state in ("intact", "damaged") else None
    return VerifiedRun(
        str(folder),
        check.state,
        None if known is None else known.sha256,
        0 if known is None else len(known.files),
        None if signature is None else signature.by,
        tuple(problems),
        check.notes,
    )


def _without_receipt(check: RunCheck) -> str:
    """Return why a run has no receipt, and how it gets one."""
    if check.state == "unfinished":
        return "the run is not finished: repeat the command that began it"
    again = "`cst-bench score` with its --out" if check.kind == "file" else f"`cst-bench judge {check.folder}`"
    return f"it has no receipt, being a run of an earlier version: {again} computes its scores again and writes one"
