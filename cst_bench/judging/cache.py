"""On-disk cache of the answers of judges' models, so that none that has a verdict is paid for twice.

An SQLite file, safe with several processes. A key is the SHA-256 of judge, model and prompt; prompts are not stored.
It also keeps the random secret of the markers in judges' prompts, without which no answer would be found again.
An unreadable file is put aside; if the disk cannot be written to, the cache is lost and no verdict is.
"""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from cst_bench.errors import UserError

_TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"


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


_SECRET = "secret"
"""Key of the cache's random secret, which is no SHA-256."""
_FAILED: Answer = {"answer": "", "stop_reason": "unknown", "input_tokens": 0, "output_tokens": 0, "cost": None}


class AnswerCache:
    """Answers by key."""

    def __init__(self, folder: Path) -> None:
        """Open or create the cache in a folder.

        Raises:
            UserError: the folder is a file.
        """
        self._path = folder / "judge-answers.sqlite"
        self._connection: sqlite3.Connection | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UserError(f"{folder} is a file: name a folder for the cache in CST_BENCH_CACHE") from None
        except OSError:
            return  # nowhere to write: go without
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                return
            self._path.replace(self._path.with_suffix(f".unreadable-{int(time.time())}"))
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(_TABLE)
        connection.execute("SELECT key, answer FROM answers LIMIT 1").fetchone()
        return connection

    def get(self, key: str) -> Answer | None:
        """Return the answer stored under a key; None if there is none, or it is unreadable."""
        if self._connection is None:
            return None
        try:
            row = self._connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
            return None if row is None else cast(Answer, json.loads(row[0]))
        except (sqlite3.Error, ValueError):
            return None

    def put(self, key: str, answer: Answer) -> None:
        """Store an answer. If it cannot be written, later calls ask again."""
        self._put(key, json.dumps(answer, ensure_ascii=True))

    def _put(self, key: str, text: str) -> None:
        if self._connection is None:
            return
        try:
            self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, text))
        except sqlite3.Error:
            self._connection = None

    def secret(self) -> bytes:
        """Return the random secret of this cache, 16 bytes; another each time where nothing can be written."""
        new = secrets.token_bytes(16)
        if self._connection is None:
            return new
        try:
            for how in ("IGNORE", "REPLACE"):  # replaced if what is there cannot be read
                self._connection.execute(f"INSERT OR {how} INTO answers VALUES (?, ?)", (_SECRET, new.hex()))
                (stored,) = self._connection.execute("SELECT answer FROM answers WHERE key = ?", (_SECRET,)).fetchone()
                if re.fullmatch("[0-9a-f]{32}", str(stored)):
                    return bytes.fromhex(stored)
        except sqlite3.Error:
            self._connection = None
        return new

    def set_secret(self, secret: bytes) -> None:
        """Use the secret of another cache, so that both give the same prompts."""
        self._put(_SECRET, secret.hex())

    def failed_before(self, key: str) -> bool:
        """Return whether an earlier call has stored that there was no usable answer under a key."""
        return self.get(f"{key} failed") is not None

    def put_failures(self, keys: Iterable[str]) -> bool:
        """Store that there was no usable answer under these keys; return whether that could be written."""
        for key in keys:
            self.put(f"{key} failed", _FAILED)
        return self._connection is not None

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
