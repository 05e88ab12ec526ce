"""Reference log-probabilities on disk, one entry a row, so that whoever trains on the same rows shares them.

A row's key is of its token ids; a file is of the weights that it was computed with. DPO and CST, other β and other
seeds on the same base find theirs there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cst_bench.files import digest


def row_keys(rows: Iterable[Mapping[str, Any]], max_length: int | None) -> list[str]:
    """Names each row by its token ids, cut to `max_length`."""
    keys = []
    for row in rows:
        end = None if max_length is None else max_length - len(row["prompt_ids"])
        keys.append(digest([row["prompt_ids"], row["chosen_ids"][:end], row["rejected_ids"][:end]])[:32])
    return keys


class ReferenceCache:
    """The file of one set of weights: lines of row, log-probability of chosen, log-probability of rejected."""

    def __init__(self, folder: Path, weights: Mapping[str, Any]) -> None:
        """
        Args:
            folder: Holds a file for each set of weights.
            weights: What decides the log-probabilities besides the row: weights, dtype, device, how they're summed.
        """
        self.path = folder / f"{digest(dict(weights))[:32]}.jsonl"

    def read(self) -> dict[str, tuple[float, float]]:
        """All entries. A line that was cut off when a process was killed is passed over."""
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

    def add(self, found: Mapping[str, tuple[float, float]]) -> None:
        """Appends entries, in one write, so that two processes don't write into each other's lines."""
        if not found:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{json.dumps([key, *values])}\n" for key, values in found.items())
        before = b"" if not self.path.is_file() or _ends_whole(self.path) else b"\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, before + text.encode())
        finally:
            os.close(descriptor)


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        if file.tell() == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
