"""The run folder: `run.json` says what the run is and how far it is; other settings are refused, never mixed."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cst_bench.errors import UserError
from cst_bench.files import digest
from cst_bench.record import (
    CalibrationSummary,
    CapabilityPart,
    CompliancePart,
    DivergencePart,
    EnginePart,
    Environment,
    JudgeRecord,
    Manifest,
    RunSettings,
    Status,
)
from cst_bench.reporting.run_check import read_manifest as read_run_manifest
from cst_bench.workfolder import read_manifest, require_empty, require_same_settings

PACKAGES = ("cst-bench", "inspect-ai", "lm-eval", "peft", "torch", "transformers")
"""Packages whose versions decide results."""


class RunFolder:
    """A run's folder and its manifest, which is written again whenever something has changed."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Use `open_folder` or `read_folder`."""
        self.path = path
        self.manifest = manifest

    @property
    def settings(self) -> RunSettings:
        """Return what decides the results."""
        return self.manifest.settings

    @property
    def finished(self) -> bool:
        """Return whether every part is done and the scores and the report are written."""
        return self.manifest.status.run == "finished"

    def compliance(self, task: str) -> CompliancePart:
        """Return the progress of a compliance task."""
        return self.manifest.status.compliance.get(task) or CompliancePart()

    def capability(self, task: str) -> CapabilityPart:
        """Return the progress of a capability task."""
        return self.manifest.status.capabilities.get(task) or CapabilityPart()

    def logs(self, task: str) -> list[Path]:
        """Return the paths of a compliance task's Inspect logs, in the order of its prompts.

        Raises:
            UserError: one is outside of the run folder, or the run has none.
        """
        logs = self.compliance(task).logs
        if not logs:
            raise UserError(
                f"{self.path / Manifest.FILE_NAME} names no log with the responses of {task}: restore the file from a "
                "copy, or make the run again into a new folder with --out"
            )
        for log in logs:
            if not (self.path / log).resolve().is_relative_to(self.path.resolve()):
                file = self.path / Manifest.FILE_NAME
                raise UserError(f"{file} names a log of {task} outside of the run folder: {log}")
        return [self.path / log for log in logs]

    def has_responses(self, task: str) -> bool:
        """Return whether all responses of a compliance task are in its logs; one that was deleted is made again.

        Raises:
            UserError: as `logs`.
        """
        return self.compliance(task).state != "pending" and all(log.is_file() for log in self.logs(task))

    def set_compliance(self, task: str, **changes: object) -> None:
        """Update the progress of a compliance task, on disk at once."""
        part = CompliancePart.model_validate({**dict(self.compliance(task)), **changes})
        self._set_status(compliance={**self.manifest.status.compliance, task: part})

    def set_capability(self, task: str, part: CapabilityPart) -> None:
        """Replace the progress of a capability task, on disk at once."""
        self._set_status(capabilities={**self.manifest.status.capabilities, task: part})

    def set_engine(self, part: EnginePart) -> None:
        """Replace what is known of the server that generates the responses, on disk at once."""
        self._set_status(engine=part)

    def set_divergence(self, task: str, part: DivergencePart) -> None:
        """Replace the progress of the KL divergence on a task's prompts, on disk at once."""
        self._set_status(divergence={**self.manifest.status.divergence, task: part})

    def reopen(self) -> None:
        """Flag a finished run as running, on disk at once, before its files are written again."""
        if self.finished:
            self._set_status(run="running")

    def set_calibrations(self, summaries: Mapping[str, CalibrationSummary | None]) -> None:
        """Replace the calibration of each task's judge and flag the run as running, in one write."""
        compliance = {
            task: self.compliance(task).model_copy(update={"calibration": summary})
            for task, summary in summaries.items()
        }
        self._set_status(run="running", compliance={**self.manifest.status.compliance, **compliance})

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest of the finished run (`finished_manifest`)."""
        self.manifest = manifest
        self.manifest.write(self.path)

    def judge_again(self, judges: Mapping[str, JudgeRecord], min_judge_f1: float) -> None:
        """Set tasks back to where their responses are there and their verdicts are not, in one write.

        Judges that others take the place of are kept in the manifest.
        """
        tasks = self.settings.compliance
        replaced = {
            name: tasks[name].judge for name, new in judges.items() if not new.gives_verdicts_of(tasks[name].judge)
        }
        settings = self.settings.model_copy(
            update={
                "compliance": {
                    name: task.model_copy(update={"judge": judges.get(name, task.judge)})
                    for name, task in tasks.items()
                },
                "min_judge_f1": min_judge_f1,
            }
        )
        earlier = self.manifest.earlier_judges
        self.manifest = self.manifest.model_copy(
            update={"settings": settings, "earlier_judges": (*earlier, replaced) if replaced else earlier}
        )
        compliance = dict(self.manifest.status.compliance)
        for name in judges:
            compliance[name] = compliance[name].model_copy(update={"state": "generated"})
        self._set_status(run="running", compliance=compliance)

    def save(self) -> None:
        """Write the manifest, with the hash of its settings as this version writes them."""
        self.manifest = _digested(self.manifest)
        self.manifest.write(self.path)

    def _set_status(self, **changes: Any) -> None:
        status = self.manifest.status.model_copy(update=changes)
        self.manifest = self.manifest.model_copy(update={"status": status})
        self.save()


def open_folder(path: Path, settings: RunSettings) -> RunFolder:
    """Make an empty folder a run folder, or open one that was made with the same settings.

    Raises:
        UserError: the folder holds something else, a run with other settings, or links that lead out of it.
    """
    _require_no_links_outside(path)
    if not (path / Manifest.FILE_NAME).is_file():
        require_empty(path, "a run folder")
        folder = RunFolder(path, new_manifest(settings))
        folder.save()
        return folder
    manifest = read_run_manifest(path)
    wanted = settings.as_json()
    if manifest.settings_sha256 != digest(wanted):
        require_same_settings(path, manifest.settings.as_json(), wanted, "a run")
        stored = read_manifest(path / Manifest.FILE_NAME)["settings"]
        if digest(stored) == manifest.settings_sha256:  # of a version that had fewer settings
            return RunFolder(path, manifest)
        raise UserError(
            f"{path} holds a run with other settings (its manifest was edited by hand): "
            "give another folder with --out, or delete this one"
        )
    return RunFolder(path, manifest)


def read_folder(path: Path) -> RunFolder:
    """Read a run folder as it is, whatever its settings.

    Raises:
        UserError: the path is not a run folder, its `run.json` is damaged, or links in it lead out of it.
    """
    _require_no_links_outside(path)
    return RunFolder(path, read_run_manifest(path))


def _require_no_links_outside(path: Path) -> None:
    """Check that nothing in a run folder, which may be another user's, is a link to a place outside of it."""
    root = path.resolve()
    for folder, folders, files in os.walk(path):
        for entry in (Path(folder, name) for name in (*folders, *files)):
            if entry.is_symlink() and not entry.resolve().is_relative_to(root):
                raise UserError(f"{entry} is a link that leads out of the run folder: put a copy in its place")


def new_manifest(settings: RunSettings) -> Manifest:
    """Return the manifest of a run that begins now."""
    return Manifest(
        settings=settings,
        settings_sha256=digest(settings.as_json()),
        status=Status(),
        environment=Environment(python=platform.python_version(), platform=platform.platform()),
        started=_now(),
    )


def finished_manifest(manifest: Manifest, *, has_receipt: bool = False) -> Manifest:
    """Return the manifest of a run that ends now."""
    status = manifest.status.model_copy(update={"run": "finished"})
    return _digested(manifest.model_copy(update={"finished": _now(), "status": status, "has_receipt": has_receipt}))


def _digested(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"settings_sha256": digest(manifest.settings.as_json())})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
