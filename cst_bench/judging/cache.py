"""On-disk cache of the answers of judges' models, so that none that has a verdict is paid for twice.

An SQLite file, safe with several processes. A key is the SHA-256 of judge, model and prompt; prompts are not stored.
It also keeps the random secret of the markers in judges' prompts, without which no answer would be found again.
An unreadable file is put aside. Where the cache cannot be written, answers are kept in the folder that `spare_folder`
names, such as that of a run, and where that cannot be written either, in the memory of the judge. Such a folder may be
somebody else's, so what is kept there counts only with this user's authentication code.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from cst_bench.errors import UserError

_FILE = "judge-answers.sqlite"
_TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"
spare_folder: ContextVar[Path | None] = ContextVar("spare_folder", default=None)
"""Folder to keep answers in where the cache cannot be written; None if there is none."""


class Answer(TypedDict):
    """A model's answer, as the cache stores it."""

    answer: str
    stop_reason: str
    input_tokens: int
    output_tokens: int
    cost: float | None
    """US dollars; None if the price is not known."""
    notes: NotRequired[list[str]]
    """Notes on the calls."""
    served: NotRequired[list[str]]
    """Names of the models that answered."""


_MARKER_KEY = "secret"
"""Key under which the secret of the markers is stored, which is no SHA-256."""
_FAILED: Answer = {"answer": "", "stop_reason": "unknown", "input_tokens": 0, "output_tokens": 0, "cost": None}


class _AnswerFile:
    """An SQLite file of texts by key. What cannot be read is not there; what cannot be written is not written."""

    def __init__(self, folder: Path) -> None:
        """Open or create the file in a folder, if possible."""
        self.path = folder / _FILE
        self._connection: sqlite3.Connection | None = None
        self._writable = True
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = self._open()
        except sqlite3.OperationalError:
            return
        except sqlite3.DatabaseError:
            self._put_aside()
        except OSError:
            return

    def _put_aside(self) -> None:
        try:
            self.path.replace(self.path.with_suffix(f".unreadable-{int(time.time())}"))
            self._connection = self._open()
        except (OSError, sqlite3.Error):
            return

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(_TABLE)
        connection.execute("SELECT key, answer FROM answers LIMIT 1").fetchone()
        return connection

    def get(self, key: str) -> str | None:
        """Return the text under a key."""
        if self._connection is None:
            return None
        try:
            row = self._connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error:
            return None
        return None if row is None else str(row[0])

    def put(self, key: str, text: str, *, replace: bool = True) -> bool:
        """Store a text under a key; return whether it could be written. After one failure, no more is tried."""
        if self._connection is None or not self._writable:
            return False
        statement = "INSERT OR REPLACE INTO answers VALUES (?, ?)"
        try:
            self._connection.execute(statement if replace else statement.replace("REPLACE", "IGNORE"), (key, text))
        except sqlite3.Error:
            self._writable = False
        return self._writable

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _SignedAnswerFile(_AnswerFile):
    """An answer file in a folder that others may have written: only texts with the code of this user are there."""

    def __init__(self, folder: Path, code_key: bytes) -> None:
        super().__init__(folder)
        self._code_key = code_key

    def get(self, key: str) -> str | None:
        signed = super().get(key)
        code, text = (signed or "")[:64], (signed or "")[64:]
        return text if hmac.compare_digest(code.encode(), self._code(key, text).encode()) else None

    def put(self, key: str, text: str, *, replace: bool = True) -> bool:
        return super().put(key, self._code(key, text) + text, replace=replace)

    def _code(self, key: str, text: str) -> str:
        return hmac.digest(self._code_key, f"{key}\n{text}".encode(), "sha256").hex()


def _user_key() -> bytes | None:
    """Return a key that only this user has, of what is secret on this machine and to this user; None without any."""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        machine = ""
    api_key = os.environ.get("OPENAI_API_KEY", "")
    if len(machine) < 32 and len(api_key) < 20:
        return None
    return hashlib.sha256(f"cst-bench\n{machine}\n{api_key}".encode()).digest()


class AnswerCache:
    """Answers by key."""

    def __init__(self, folder: Path, memory: MutableMapping[str, str] | None = None) -> None:
        """Open or create the cache in a folder; `memory` gets what cannot be written.

        Raises:
            UserError: the folder is a file.
        """
        if folder.is_file():
            raise UserError(f"{folder} is a file: name a folder for the cache in CST_BENCH_CACHE")
        self._main = _AnswerFile(folder)
        self._memory = {} if memory is None else memory
        self._spare_folder, self._code_key = spare_folder.get(), _user_key()
        self._spare: _SignedAnswerFile | None = None
        if self._spare_folder is not None and (self._spare_folder / _FILE).is_file():
            self._open_spare()  # of an earlier call
        self._secret = self._find_secret()

    def get(self, key: str) -> Answer | None:
        """Return the answer stored under a key; None if there is none, or it is unreadable."""
        spare = None if self._spare is None else self._spare.get(key)
        text = self._memory.get(key) or spare or self._main.get(key)
        try:
            return None if text is None else cast(Answer, json.loads(text))
        except ValueError:
            return None

    def put(self, key: str, answer: Answer) -> bool:
        """Store an answer; return whether the next call can find it."""
        text = json.dumps(answer, ensure_ascii=True)
        if self._main.put(key, text) or self._put_in_spare(key, text):
            return True
        self._memory[key] = text
        return False

    def _open_spare(self) -> None:
        if self._spare_folder is not None and self._code_key is not None:
            self._spare = _SignedAnswerFile(self._spare_folder, self._code_key)

    def _put_in_spare(self, key: str, text: str) -> bool:
        if self._spare is None:
            self._open_spare()
        if self._spare is None or not self._spare.put(_MARKER_KEY, self._secret.hex()):
            return False
        return self._spare.put(key, text)

    def where_kept(self) -> str:
        """Return where the answers of this call are, as the end of a sentence about verdicts."""
        because = f"since the cache {self._main.path} cannot be written (CST_BENCH_CACHE names another folder)"
        lost = sum(len(key) == 64 for key in self._memory)
        if lost:
            return f"{lost} of the verdicts that it gave are lost, {because}"
        if self._spare is not None:
            return f"the verdicts that it gave are kept in {self._spare_folder}, {because}"
        return "the verdicts that it gave are cached"

    def secret(self) -> bytes:
        """Return the random secret of this cache, 16 bytes; another each time where nothing can be written."""
        return self._secret

    def _find_secret(self) -> bytes:
        stored = None if self._spare is None else self._spare.get(_MARKER_KEY)
        stored = stored or self._memory.get(_MARKER_KEY)
        new = secrets.token_bytes(16).hex()
        for replace in (False, True):  # replaced if what is there cannot be read
            if stored is not None and re.fullmatch("[0-9a-f]{32}", stored):
                return bytes.fromhex(stored)
            self._main.put(_MARKER_KEY, new, replace=replace)
            stored = self._main.get(_MARKER_KEY)
        if stored != new:
            self._memory[_MARKER_KEY] = new
        return bytes.fromhex(new)

    def set_secret(self, secret: bytes) -> None:
        """Use the secret of another cache, so that both give the same prompts."""
        self._secret = secret
        if not self._main.put(_MARKER_KEY, secret.hex()):
            self._memory[_MARKER_KEY] = secret.hex()

    def failed_before(self, key: str) -> bool:
        """Return whether an earlier call has stored that there was no usable answer under a key."""
        return self.get(f"{key} failed") is not None

    def put_failures(self, keys: Iterable[str]) -> bool:
        """Store that there was no usable answer under these keys; return whether the next call can find it."""
        stored = [self.put(f"{key} failed", _FAILED) for key in keys]
        return all(stored)

    def close(self) -> None:
        """Close the files."""
        self._main.close()
        if self._spare is not None:
            self._spare.close()


@contextmanager
def keeping_answers(folder: Path) -> Iterator[None]:
    """Keep answers in a folder for as long as the block's work is not done, where the cache cannot be written."""
    token = spare_folder.set(folder)
    try:
        yield
    finally:
        spare_folder.reset(token)
    for path in folder.glob(f"{_FILE}*"):
        path.unlink()
