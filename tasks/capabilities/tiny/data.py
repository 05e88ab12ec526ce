"""Load the items beside this file, from any current directory and without a network."""

from __future__ import annotations

import json
from pathlib import Path

from datasets import Dataset, DatasetDict

DATA = Path(__file__).resolve().parent / "data"


def load(table: str, **_: object) -> DatasetDict:
    """Load the splits of one table, one jsonl file each; lm-eval also passes its metadata, which is not used."""
    return DatasetDict({path.stem: Dataset.from_list(_rows(path)) for path in sorted((DATA / table).glob("*.jsonl"))})


def _rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
