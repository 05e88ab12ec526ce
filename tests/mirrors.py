"""Local mirrors of the four data sets behind the stock capability tasks: a few benign made-up rows in their columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

Tables = Mapping[str, Mapping[str, Sequence[dict[str, Any]]]]
"""Subset of the data set → split → rows."""

NUMBERS = ["one", "two", "three", "four"]


def write_mirror(folder: Path, tables: Tables) -> Path:
    """Writes the rows as jsonl and the README that tells `datasets` what they are, as on the hub."""
    configs = []
    for subset, splits in tables.items():
        files = []
        for split, rows in splits.items():
            path = folder / subset / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
            files.append({"split": split, "path": f"{subset}/{split}.jsonl"})
        configs.append({"config_name": subset, "data_files": files})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    return folder


def arc(folder: Path) -> Path:
    """30 rows to take shots from, 6 to answer."""
    rows = [
        {
            "id": str(i),
            "question": f"Which number comes after {i}?",
            "choices": {"text": NUMBERS, "label": ["A", "B", "C", "D"]},
            "answerKey": "ABCD"[i % 4],
        }
        for i in range(36)
    ]
    return write_mirror(folder, {"ARC-Challenge": {"train": rows[:30], "validation": rows[:1], "test": rows[30:]}})


def hellaswag(folder: Path) -> Path:
    """15 rows to take shots from, 6 to answer."""
    rows = [
        {
            "ind": i,
            "activity_label": "Baking",
            "ctx_a": f"A baker kneads {i} loaves.",
            "ctx_b": "then she",
            "ctx": f"A baker kneads {i} loaves. then she",
            "endings": ["rests.", "bakes them.", "sings [title] a song.", "sleeps."],
            "source_id": "made up",
            "split": "train",
            "split_type": "indomain",
            "label": str(i % 4),
        }
        for i in range(21)
    ]
    return write_mirror(folder, {"default": {"train": rows[:15], "validation": rows[15:], "test": rows[:1]}})


def mmlu(folder: Path) -> Path:
    """All 57 subjects, five shots and two questions each."""
    package = find_spec("lm_eval")
    assert package is not None
    assert package.origin is not None
    definitions = (Path(package.origin).parent / "tasks" / "mmlu" / "default").glob("mmlu_*.yaml")
    subjects = [yaml.safe_load(path.read_text())["dataset_name"] for path in sorted(definitions)]
    assert len(subjects) == 57

    def rows(subject: str, count: int) -> list[dict[str, Any]]:
        return [
            {"question": f"About {subject}: {i}?", "subject": subject, "choices": NUMBERS, "answer": i % 4}
            for i in range(count)
        ]

    return write_mirror(
        folder, {s: {"test": rows(s, 2), "validation": rows(s, 1), "dev": rows(s, 5)} for s in subjects}
    )


def truthfulqa(folder: Path) -> Path:
    """6 questions with true and false answers."""
    rows = [
        {
            "question": f"Is {i} a number?",
            "mc1_targets": {"choices": ["Yes.", "No."], "labels": [1, 0]},
            "mc2_targets": {"choices": ["Yes.", "It is.", "No.", "Never."], "labels": [1, 1, 0, 0]},
        }
        for i in range(6)
    ]
    return write_mirror(folder, {"multiple_choice": {"validation": rows}})


MIRRORS = {"arc_challenge": arc, "hellaswag": hellaswag, "mmlu": mmlu, "truthfulqa_mc2": truthfulqa}
