"""Reads the items beside this file, so that the tasks work from any current directory and without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

DATA = Path(__file__).resolve().parent / "data"


def load(table: str, **_: Any) -> DatasetDict:
    """The splits of one table, one jsonl file each; lm-eval also passes its metadata, which is not used."""
    return DatasetDict({path.stem: Dataset.from_list(_rows(path)) for path in sorted((DATA / table).glob("*.jsonl"))})


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
