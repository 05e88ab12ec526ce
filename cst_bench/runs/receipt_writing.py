"""Write the receipt of a run that is being finished."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from cst_bench import __version__
from cst_bench.errors import UserError
from cst_bench.record import LABEL_FILES, FileHash, Manifest, Receipt, StageName, hash_file, stage_files
from cst_bench.reporting.signature import SIGNATURE


def write_receipt(folder: Path, manifest: Manifest) -> Receipt:
    """Hash the files of a run and write `receipt.json`; a signature of an earlier receipt is removed.

    Args:
        folder: The run folder, in which all files are written but `run.json`.
        manifest: The content that `run.json` will have.

    Raises:
        UserError: a file is missing, or is not in the run folder.
    """
    from cst_bench.compliance.judged_log import responses_digest

    names = stage_files(manifest)
    own = manifest.text().encode()
    files: dict[StageName, dict[str, FileHash]] = {
        stage: _hashes(folder, of_stage) for stage, of_stage in names.items() if stage != "run"
    }
    files["run"] = {Manifest.FILE_NAME: FileHash(sha256=hashlib.sha256(own).hexdigest(), bytes=len(own))}
    files["labels"] = _hashes(folder, [name for name in LABEL_FILES if (folder / name).exists()])
    receipt = Receipt.make(__version__, files, {log: responses_digest(folder / log) for log in names["verdicts"]})
    (folder / SIGNATURE).unlink(missing_ok=True)
    receipt.write(folder)
    return receipt


def _hashes(folder: Path, names: Iterable[str]) -> dict[str, FileHash]:
    hashes = {}
    for name in names:
        found = hash_file(folder, name)
        if isinstance(found, str):
            raise UserError(f"{folder / name} {found}: repeat the command that began this run")
        hashes[name] = found
    return hashes
