"""lm-eval's tasks, as ARC 25-shot or MMLU 5-shot, over made-up documents of their lengths or over real ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

Row = dict[str, object]
TASKS = {"arc_challenge": 25, "hellaswag": 10, "mmlu_abstract_algebra": 5, "truthfulqa_mc2": 0}
"""lm-eval's name → number of shots."""
_FOLDERS = ("arc", "hellaswag", "mmlu/default", "truthfulqa")
_MIRRORS = {
    "arc_challenge": "arc", "hellaswag": "hellaswag", "mmlu_abstract_algebra": "mmlu", "truthfulqa_mc2": "truthfulqa"
}  # fmt: skip
"""lm-eval's name → folder of a mirror of its Hub repository."""
_DOCUMENTS = {"arc_challenge": 5, "hellaswag": 5, "mmlu_abstract_algebra": 60, "truthfulqa_mc2": 24}


class Writer:
    """Writer of made-up text, the same in every run."""

    def __init__(self) -> None:
        """Make the vocabulary."""
        self.draw = random.Random(1)
        syllables = [a + b for a in "bdfgklmnprstv" for b in ("a", "e", "i", "o", "u", "an", "er", "ing")]
        self.words = ["".join(self.draw.choices(syllables, k=self.draw.randint(1, 3))) for _ in range(3000)]
        self.weights = [1 / (rank + 5) for rank in range(len(self.words))]

    def text(self, words: int, spread: float = 0.5) -> str:
        """Write about `words` words."""
        count = max(1, round(words * self.draw.uniform(1 - spread, 1 + spread)))
        return " ".join(self.draw.choices(self.words, self.weights, k=count)).capitalize()


def _arc_rows(writer: Writer, count: int) -> list[Row]:
    """Make questions of about 20 words with four short choices."""
    return [
        {
            "id": str(i),
            "question": f"{writer.text(20)}?",
            "choices": {"text": [writer.text(4) for _ in range(4)], "label": ["A", "B", "C", "D"]},
            "answerKey": "ABCD"[i % 4],
        }
        for i in range(count)
    ]


def _hellaswag_rows(writer: Writer, count: int) -> list[Row]:
    """Make scenes of about 35 words with four endings of about 22."""
    rows: list[Row] = []
    for i in range(count):
        first, second = f"{writer.text(30)}.", writer.text(4).lower()
        rows.append(
            {
                "ind": i,
                "activity_label": writer.text(2),
                "ctx_a": first,
                "ctx_b": second,
                "ctx": f"{first} {second}",
                "endings": [f"{writer.text(22)}." for _ in range(4)],
                "source_id": "made up",
                "split": "train",
                "split_type": "indomain",
                "label": str(i % 4),
            }
        )
    return rows


def _mmlu_rows(writer: Writer, count: int) -> list[Row]:
    """Make questions of about 45 words with four choices of about 7."""
    return [
        {
            "question": f"{writer.text(45)}?",
            "subject": "abstract_algebra",
            "choices": [writer.text(7) for _ in range(4)],
            "answer": i % 4,
        }
        for i in range(count)
    ]


def _truthfulqa_rows(writer: Writer, count: int) -> list[Row]:
    """Make questions of about 10 words with 4 to 11 answers of about 8."""
    rows: list[Row] = []
    for _ in range(count):
        choices = [f"{writer.text(8)}." for _ in range(writer.draw.randint(4, 11))]
        labels = [int(i < len(choices) // 2) for i in range(len(choices))]
        targets = {"choices": choices, "labels": labels}
        rows.append({"question": f"{writer.text(10)}?", "mc1_targets": targets, "mc2_targets": targets})
    return rows


def first_documents(scale: float) -> dict[str, list[int]]:
    """Return the indices of each task's documents: `scale` times the usual number of them."""
    return {name: list(range(max(2, round(count * scale)))) for name, count in _DOCUMENTS.items()}


def real_data(folder: Path) -> dict[str, Path]:
    """Return the mirrors of the four Hub data sets in a folder: `arc`, `hellaswag`, `mmlu` and `truthfulqa`."""
    return {task: folder / name for task, name in _MIRRORS.items()}


def made_up_data(folder: Path, writer: Writer, scale: float) -> dict[str, Path]:
    """Write mirrors of the four Hub data sets with `scale` times the usual number of documents, and return them."""
    n = {name: len(documents) for name, documents in first_documents(scale).items()}
    sets: dict[str, tuple[str, Callable[[Writer, int], list[Row]], dict[str, int]]] = {
        "arc_challenge": ("ARC-Challenge", _arc_rows, {"train": 1000, "test": n["arc_challenge"]}),
        "hellaswag": ("default", _hellaswag_rows, {"train": 1000, "validation": n["hellaswag"]}),
        "mmlu_abstract_algebra": ("abstract_algebra", _mmlu_rows, {"dev": 5, "test": n["mmlu_abstract_algebra"]}),
        "truthfulqa_mc2": ("multiple_choice", _truthfulqa_rows, {"validation": n["truthfulqa_mc2"]}),
    }
    for task, (subset, make_rows, splits) in sets.items():
        files = []
        for split, count in splits.items():
            rows = make_rows(writer, count)
            path = folder / task / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
            files.append({"split": split, "path": path.name})
        config = yaml.safe_dump({"configs": [{"config_name": subset, "data_files": files}]})
        (folder / task / "README.md").write_text(f"---\n{config}---\n")
    return {task: folder / task for task in sets}


def stock_tasks() -> Path:
    """Return the folder of lm-eval's own task definitions."""
    import lm_eval

    return Path(lm_eval.__file__).parent / "tasks"


def task_manager(folder: Path, mirrors: Mapping[str, Path]) -> TaskManager:
    """Make lm-eval's tasks over the mirrors, one by one as `bench_TASK` and together as `bench`.

    Args:
        folder: Folder for the definitions, and for the cache of `datasets`, which takes folders of one name for one.
        mirrors: Task → mirror of its Hub repository.
    """
    from datasets import config
    from lm_eval.tasks import TaskManager

    config.HF_DATASETS_CACHE = folder / "cache"
    root = stock_tasks()
    members = [
        {"task": name, "dataset_path": str(mirrors[name]), "num_fewshot": shots} for name, shots in TASKS.items()
    ]
    definitions = folder / "definitions"
    definitions.mkdir()
    for name, tasks in {"bench": members, **{f"bench_{member['task']}": [member] for member in members}}.items():
        (definitions / f"{name}.yaml").write_text(json.dumps({"group": name, "task": tasks}))
    include = [*(str(root / name) for name in _FOLDERS), str(definitions)]
    return TaskManager(include_path=include, include_defaults=False)
