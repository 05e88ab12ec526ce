"""Work folders: one process at a time, freed by a kill, and continued only under the same settings."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cst_bench.errors import UserError
from cst_bench.workfolder import LOCK, differences, is_locked, locked, open_work_folder, package_versions

SETTINGS = {"seed": 0, "data": {"sha256": "a" * 64, "limit": None}}
_HOLD = """
import sys, time
from pathlib import Path
from cst_bench.workfolder import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_lock_file_that_is_a_link_is_refused_and_its_target_kept(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / LOCK).symlink_to(tmp_path / "precious.txt")
    with pytest.raises(UserError, match="is a link"), locked(tmp_path / "work"):
        raise AssertionError("it was locked")
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_folder_is_locked_against_a_second_use_and_free_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert not is_locked(folder)
    with locked(folder):
        assert is_locked(folder)
        with pytest.raises(UserError, match="another cst-bench run is working in this folder"), locked(folder):
            pass
        assert is_locked(folder)
    assert not is_locked(folder)
    with locked(folder):
        pass


def test_asking_leaves_no_lock_behind(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert not list(tmp_path.iterdir())


def test_asking_does_not_stop_another_process_from_starting(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    with (tmp_path / ".lock").open("rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        threading.Timer(0.1, asking.close).start()
        with locked(tmp_path):
            assert is_locked(tmp_path)


def test_the_run_of_another_user_is_seen_to_be_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(tmp_path):
        tmp_path.chmod(0o755)
        (tmp_path / ".lock").chmod(0o444)
        monkeypatch.chdir(tmp_path)  # another user may not search the folders above
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            assert not os.access(".lock", os.W_OK, effective_ids=True)
            assert is_locked(Path())
        finally:
            os.seteuid(user)


def test_a_killed_process_frees_its_folder(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        assert is_locked(tmp_path)
        with pytest.raises(UserError), locked(tmp_path):
            pass
        os.kill(process.pid, signal.SIGKILL)
    assert not is_locked(tmp_path)
    with locked(tmp_path):
        pass


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep")
    with pytest.raises(UserError, match="is a file: give a folder"), locked(tmp_path / "file"):
        pass


def opened(folder: Path, settings: dict[str, object], schema: int = 1) -> dict[str, object]:
    with locked(folder):
        return open_work_folder(
            folder, "work.json", settings, kind="a piece of work", schema=schema, state={"seconds": {}}
        )


def test_a_folder_is_continued_under_the_same_settings_only(tmp_path: Path) -> None:
    manifest = opened(tmp_path, {**SETTINGS, "packages": ("a", "b")})
    assert manifest == {"schema": 1, "settings": {**SETTINGS, "packages": ("a", "b")}, "seconds": {}}
    stored = json.loads((tmp_path / "work.json").read_text())
    (tmp_path / "work.json").write_text(json.dumps({**stored, "seconds": {"first": 2}}))
    assert opened(tmp_path, {"packages": ["a", "b"], **SETTINGS})["seconds"] == {"first": 2}
    with pytest.raises(UserError, match=r"holds a piece of work with other settings \(seed: 0, not 1\)"):
        opened(tmp_path, {**SETTINGS, "seed": 1, "packages": ["a", "b"]})
    with pytest.raises(UserError, match=r"packages: \[\"a\", \"b\"\], not missing"):
        opened(tmp_path, dict(SETTINGS))
    with pytest.raises(UserError, match="has schema 1, but this cst-bench reads schema 2"):
        opened(tmp_path, {**SETTINGS, "packages": ["a", "b"]}, schema=2)


@pytest.mark.parametrize("text", ["{", "[]", "3", "[" * 100_000])
def test_a_file_that_is_not_a_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "work.json").write_text(text)
    with pytest.raises(UserError, match="is not a manifest that cst-bench wrote"):
        opened(tmp_path, dict(SETTINGS))


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep")
    with pytest.raises(UserError, match="holds files and is not the folder of a piece of work"):
        opened(tmp_path, dict(SETTINGS))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, json_values)
def test_settings_differ_exactly_if_their_json_does(stored: object, wanted: object) -> None:
    same = json.dumps(stored, sort_keys=True) == json.dumps(wanted, sort_keys=True)
    assert (not differences(stored, wanted)) is same
    assert not differences(stored, json.loads(json.dumps(stored)))


def test_long_values_are_cut() -> None:
    (line,) = differences(SETTINGS, {**SETTINGS, "data": {"sha256": "b" * 64, "limit": None}})
    assert line == f'data.sha256: "{"a" * 23}…, not "{"b" * 23}…'


def test_package_versions_are_those_installed() -> None:
    import filelock

    assert package_versions(["filelock"]) == {"filelock": filelock.__version__}
