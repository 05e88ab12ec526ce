"""The run folder: `run.json` says what the run is and how far it is; other settings are refused, not mixed in."""

from __future__ import annotations

import fcntl
import json
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cst_bench.errors import UserError
from cst_bench.files import digest, write_json

SCHEMA = 2
_LOCK = ".lock"
PACKAGES = ("cst-bench", "inspect-ai", "lm-eval", "peft", "torch", "transformers")


class RunFolder:
    """A run's folder and its manifest, which is rewritten whole whenever something has changed."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        """Use `open_folder`."""
        self.path = path
        self.manifest = manifest

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the results."""
        settings: dict[str, Any] = self.manifest["settings"]
        return settings

    @property
    def finished(self) -> bool:
        """Whether every part is done and the scores and the report are written."""
        return bool(self.manifest["status"]["run"] == "finished")

    def part(self, kind: str, task: str) -> dict[str, Any]:
        """What is known of one task: its state and, when there, where its log is and what it used."""
        part: dict[str, Any] = self.manifest["status"][kind].get(task, {"state": "pending"})
        return part

    def set_part(self, kind: str, task: str, **known: Any) -> None:
        """Adds to what is known of one task, on disk at once."""
        self.manifest["status"][kind][task] = {**self.part(kind, task), **known}
        self.save()

    def finish(self) -> None:
        """Marks the run as finished."""
        self.manifest["status"]["run"] = "finished"
        self.manifest["finished"] = _now()
        self.save()

    def judge_again(self, judges: dict[str, dict[str, Any]], min_judge_f1: float) -> None:
        """Puts tasks back to where their responses are there and their verdicts are not, in one write."""
        compliance = {
            name: {**task, "judge": judges.get(name, task["judge"])}
            for name, task in self.settings["compliance"].items()
        }
        replaced = {name: self.settings["compliance"][name]["judge"] for name in judges}
        if replaced:
            self.manifest.setdefault("earlier_judges", []).append(replaced)
        settings = {**self.settings, "compliance": compliance, "min_judge_f1": min_judge_f1}
        self.manifest.update(settings=settings, settings_sha256=digest(settings))
        for name in judges:
            self.manifest["status"]["compliance"][name]["state"] = "generated"
        self.manifest["status"]["run"] = "running"
        self.save()

    def save(self) -> None:
        """Writes the manifest."""
        write_json(self.path / "run.json", self.manifest)


def open_folder(path: Path, settings: dict[str, Any]) -> RunFolder:
    """Makes an empty folder a run folder, or opens one that was made with the same settings.

    Raises:
        UserError: the folder holds something else, or a run with other settings.
    """
    settings = {**settings, "packages": package_versions(PACKAGES)}
    manifest_path = path / "run.json"
    if not manifest_path.is_file():
        if any(entry.name != _LOCK for entry in path.iterdir()):
            raise UserError(f"{path} holds files and is not a run folder: give another with --out")
        folder = RunFolder(path, _new_manifest(settings))
        folder.save()
        return folder
    manifest = _read_manifest(manifest_path, "give another folder with --out")
    found = manifest["settings"]
    if manifest["settings_sha256"] != digest(settings):
        differing = ", ".join(differences(found, settings)) or "its manifest was changed by hand"
        raise UserError(
            f"{path} holds a run with other settings ({differing}): give another folder with --out, or delete this one"
        )
    return RunFolder(path, manifest)


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """The installed versions of packages."""
    return {name: version(name) for name in names}


def read_folder(path: Path) -> RunFolder:
    """A run folder as it is, whatever its settings.

    Raises:
        UserError: the path is no run folder.
    """
    manifest_path = path / "run.json"
    if not manifest_path.is_file():
        raise UserError(f"{path} is no run folder: it has no run.json; `cst-bench run` makes one")
    return RunFolder(path, _read_manifest(manifest_path, "give the folder of a run"))


def _read_manifest(path: Path, advice: str) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema = manifest["settings"] and manifest["status"] and manifest["schema"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a manifest that cst-bench wrote: {advice}") from None
    if schema != SCHEMA:
        raise UserError(f"{path} has the schema {schema!r}, and this cst-bench reads {SCHEMA}: {advice}")
    return manifest


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a run folder against a second process.

    Raises:
        UserError: another process is running in it.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file: give a folder with --out")
    path.mkdir(parents=True, exist_ok=True)
    with (path / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path}: another cst-bench run is working in this folder") from None
        yield


def differences(found: Any, wanted: Any, at: str = "") -> list[str]:
    """Where two settings differ: `seed: 0, not 1`. Long values such as hashes are cut."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [*found, *(key for key in wanted if key not in found)]
        return [
            line
            for key in keys
            for line in differences(found.get(key), wanted.get(key), f"{at}.{key}" if at else str(key))
        ]
    return [] if found == wanted else [f"{at}: {_short(found)}, not {_short(wanted)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:24]}…"


def _new_manifest(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "settings": settings,
        "settings_sha256": digest(settings),
        "status": {"run": "running", "compliance": {}, "capabilities": {}},
        "environment": {"python": platform.python_version(), "platform": platform.platform()},
        "started": _now(),
        "finished": None,
    }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
