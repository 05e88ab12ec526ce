"""Cache of reference log-probabilities on disk, shared by all trainings on the same rows and base.

A row's key is the hash of its token ids; each set of weights has a file. Trainings on the same base with another
method, β or seed use the same entries.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.files import digest

if TYPE_CHECKING:
    from cst_bench.tuning.packed.pair_packing import TokenizedPair

LogProbs = tuple[float, float]
"""Summed log-probabilities of a row's chosen and rejected response."""


def row_keys(rows: Iterable[TokenizedPair], max_length: int | None) -> list[str]:
    """Return the key of each row: the hash of its token ids, cut to `max_length`."""
    keys = []
    for row in rows:
        end = None if max_length is None else max_length - len(row["prompt_ids"])
        keys.append(digest([row["prompt_ids"], row["chosen_ids"][:end], row["rejected_ids"][:end]])[:32])
    return keys


class ReferenceCache:
    """The file of one set of weights: lines of key, log-probability of chosen, log-probability of rejected."""

    def __init__(self, folder: Path, weights: Mapping[str, object]) -> None:
        """Name the file; create nothing.

        Args:
            folder: Folder with a file for each set of weights.
            weights: Everything besides the row that decides the log-probabilities: hash of the weights, dtype,
                device, packages, and how they are summed.
        """
        self.path = folder / f"{digest(dict(weights))[:32]}.jsonl"

    def read(self) -> dict[str, LogProbs]:
        """Read all entries, without lines that were cut off when a process was killed."""
        if not self.path.is_file():
            return {}
        known = {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                key, chosen, rejected = json.loads(line)
                known[str(key)] = (float(chosen), float(rejected))
            except (ValueError, TypeError):
                continue
        return known

    def add(self, entries: Mapping[str, LogProbs]) -> None:
        """Append entries in one write, so that two processes do not write into each other's lines."""
        if not entries:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{json.dumps([key, *values])}\n" for key, values in entries.items())
        before = b"" if not self.path.is_file() or _ends_whole(self.path) else b"\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, before + text.encode())
        finally:
            os.close(descriptor)


def _ends_whole(path: Path) -> bool:
    """Return whether the last line of a file is complete."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        if file.tell() == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
