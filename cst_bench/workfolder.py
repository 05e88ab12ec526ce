"""Work folders: locked while a process works in them, continued only under the settings they were made with.

A work folder has a manifest: a JSON file whose `settings` hold everything that decides the results. The same call
continues the work of a folder; a call with other settings is refused, so that results of two settings never mix.
"""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from cst_bench.errors import UserError
from cst_bench.files import read_json, require_local, write_json

LOCK = ".lock"
"""File in a work folder that a working process holds a lock on."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""Error numbers of a lock on a file system that has none, as some network file systems."""
_PATIENCE = 0.5
"""Seconds to wait for a lock: `is_locked` of another process holds it for a moment."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a folder against other processes, and create it if it does not exist.

    The operating system frees the lock when the process ends, even if it is killed.

    Raises:
        UserError: the path is a file or an address, its lock file is a link, its file system has no locks, or another
            process holds the lock.
    """
    require_local(path)
    _require_folder(path)
    path.mkdir(parents=True, exist_ok=True)
    if (path / LOCK).is_symlink():  # locking would empty the file that it leads to
        raise UserError(f"{path / LOCK} is a link, which cst-bench does not make: remove it")
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise UserError(
            f"{path}: another cst-bench run is working in this folder: wait for it, or give another with --out"
        ) from None
    except NotImplementedError:
        raise _without_locks(path) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise _without_locks(path) from None
        raise
    try:
        yield
    finally:
        lock.release()


def _without_locks(path: Path) -> UserError:
    return UserError(
        f"{path}: its file system does not support locks, without which two processes could work in one folder: "
        "give a folder on a local disk with --out, and copy it afterwards"
    )


def is_locked(path: Path) -> bool:
    """Return whether a process is working in a folder, which may be another user's."""
    try:
        with (path / LOCK).open("rb") as file:
            return _is_held(file)
    except OSError:  # no lock file, or one that may not be read
        return False


def _is_held(file: BinaryIO) -> bool:
    """Return whether a lock is held on a file that is open for reading.

    `FileLock` would need to write to it; the lock that it takes is that of `flock`, which can be asked for shared.
    """
    if sys.platform == "win32":
        try:
            with FileLock(file.name).acquire(blocking=False):
                return False
        except Timeout:
            return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def open_work_folder(
    path: Path,
    manifest_name: str,
    settings: Mapping[str, object],
    *,
    kind: str,
    schema: int,
    state: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Return the manifest of a work folder: the stored one if the settings are the same, a new one in an empty folder.

    Args:
        path: The folder, which the caller has locked.
        manifest_name: Name of the manifest's file.
        settings: Everything that decides the results, as JSON values.
        kind: What the folder holds, for error messages: "a self-critique".
        schema: Version of the manifest's format.
        state: Further keys of a new manifest.

    Raises:
        UserError: the folder holds other files, an unreadable manifest, or work with other settings.
    """
    file = path / manifest_name
    if not file.is_file():
        require_empty(path, f"the folder of {kind}")
        manifest = {"schema": schema, "settings": dict(settings), **(state or {})}
        write_json(file, manifest)
        return manifest
    manifest = read_manifest(file)
    if manifest.get("schema") != schema:
        raise UserError(
            f"{file} has schema {manifest.get('schema')!r}, but this cst-bench reads schema {schema}: "
            "give another folder with --out"
        )
    require_same_settings(path, manifest.get("settings"), settings, kind)
    return manifest


def read_manifest(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file is missing or does not hold a JSON object.
    """
    try:
        manifest = read_json(file)
    except UserError:
        manifest = None
    if not isinstance(manifest, dict):
        raise UserError(f"{file} is not a manifest that cst-bench wrote: give another folder with --out")
    return manifest


def require_empty(path: Path, kind: str) -> None:
    """Check that a folder without a manifest holds nothing but its lock; `kind` is what it should be, for the message.

    Raises:
        UserError: it holds files, or is a file.
    """
    _require_folder(path)
    if any(entry.name != LOCK for entry in path.iterdir()):
        raise UserError(f"{path} holds files and is not {kind}: give another with --out")


def _require_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file: give a folder with --out")


def require_same_settings(
    path: Path, stored: object, wanted: Mapping[str, object], kind: str, *, otherwise: str = "delete this one"
) -> None:
    """Check that work is continued under the settings it was begun with.

    Args:
        path: Its folder, for the message.
        stored: Settings of the manifest.
        wanted: Settings of this call.
        kind: What the folder holds, for the message.
        otherwise: What the user can do instead of naming another folder.

    Raises:
        UserError: the settings differ; the message lists the differences.
    """
    lines = differences(stored, wanted)
    if lines:
        raise UserError(
            f"{path} holds {kind} with other settings ({', '.join(lines)}): "
            f"give another folder with --out, or {otherwise}"
        )


def differences(stored: object, wanted: object, at: str = "") -> list[str]:
    """List where two settings differ, stored value first: `seed: 0, not 1`. Long values such as hashes are cut."""
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        return [
            line
            for key in dict.fromkeys([*stored, *wanted])
            for line in differences(
                stored.get(key, _MISSING), wanted.get(key, _MISSING), f"{at}.{key}" if at else str(key)
            )
        ]
    before, after = _text(stored), _text(wanted)
    return [] if before == after else [f"{at or 'settings'}: {_cut(before)}, not {_cut(after)}"]


_MISSING = object()
"""Stands for the value of a key that only the other settings have."""


def _text(value: object) -> str:
    return "missing" if value is _MISSING else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _cut(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:24]}…"


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each package."""
    return {name: version(name) for name in names}
