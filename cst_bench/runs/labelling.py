"""Labels by people for a random part of a run's responses, from which its scores are corrected.

`labels.jsonl` of the run folder has a row for each answer: task, prompt_id, configuration, behaviour (null: unsure, not
labelled), by, and the hash of the response. It holds no text. Later rows stand over earlier ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import Row, text_column, write_text
from cst_bench.judging import NEITHER
from cst_bench.runs.run_folder import RunFolder, read_folder
from cst_bench.statistics.correction import labels_needed
from cst_bench.table_files import read_any

FILE = "labels.jsonl"
Key = tuple[str, str, str]
"""Task, prompt id, configuration."""
_UNKNOWN_ERROR = 0.2
"""Share of wrong verdicts that the planner expects of a judge without a card."""


@dataclass(frozen=True)
class ToLabel:
    """A response to label. It says nothing of the judge's verdict."""

    key: Key
    prompt: str
    response: str
    behaviours: tuple[str, ...]
    """What it can be labelled as; `neither` comes last."""

    @property
    def response_sha256(self) -> str:
        """Of the response, so that a label is never taken for another."""
        return hashlib.sha256(self.response.encode("utf-8", "surrogatepass")).hexdigest()


def choose(run: Path, *, tasks: Sequence[str] = (), n: int | None = None, seed: int = 0) -> list[ToLabel]:
    """Responses to label, in an order that is random and the same each time: any beginning of it is a random part.

    The configurations of the tasks take turns, so that every one has as many.

    Args:
        run: A run folder with responses.
        tasks: Only these.
        n: So many; all if None.
        seed: Of the order.

    Raises:
        UserError: no run, no such task, or no responses.
    """
    folder = read_folder(run)
    arms: dict[tuple[str, str], list[ToLabel]] = {}
    for name in _tasks(folder, tasks):
        for one in _responses(folder, name):
            arms.setdefault((name, one.key[2]), []).append(one)
    for arm, of in arms.items():
        of.sort(key=lambda one: one.key)
        random.Random(f"{seed}/{'/'.join(arm)}").shuffle(of)
    turns = [of[at] for at in range(max(map(len, arms.values()), default=0)) for of in arms.values() if at < len(of)]
    return turns if n is None else turns[:n]


def read_run_labels(run: Path) -> dict[Key, str]:
    """The labels of a run's responses.

    Raises:
        UserError: the file holds something else.
    """
    path = run / FILE
    if not path.is_file():
        return {}
    found: dict[Key, str | None] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            found[row["task"], row["prompt_id"], row["configuration"]] = row["behaviour"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}:{number}: no label that `cst-bench judge label` wrote") from None
    return {key: behaviour for key, behaviour in found.items() if behaviour is not None}


def answered(run: Path) -> set[Key]:
    """The responses that were shown and answered, unsure ones among them."""
    path = run / FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = [json.loads(line) for line in lines]
    return {(row["task"], row["prompt_id"], row["configuration"]) for row in rows}


def add_label(run: Path, one: ToLabel, behaviour: str | None, by: str) -> None:
    """Appends a label, on disk at once."""
    task, prompt_id, configuration = one.key
    row = {
        "task": task,
        "prompt_id": prompt_id,
        "configuration": configuration,
        "behaviour": behaviour,
        "by": by,
        "response_sha256": one.response_sha256,
    }
    with (run / FILE).open("a", encoding="utf-8") as file:
        file.write(f"{json.dumps(row, ensure_ascii=False)}\n")
        file.flush()
        os.fsync(file.fileno())


def take_back(run: Path) -> Key | None:
    """Removes the last label; its key, or None if there is none."""
    path = run / FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if not lines:
        return None
    last = json.loads(lines[-1])
    write_text(path, "".join(f"{line}\n" for line in lines[:-1]))
    return last["task"], last["prompt_id"], last["configuration"]


def export(path: Path, chosen: Iterable[ToLabel]) -> None:
    """Writes responses to label elsewhere, as jsonl with an empty column behaviour. It holds their text."""
    rows = [
        {
            **dict(zip(("task", "prompt_id", "configuration"), one.key, strict=True)),
            "prompt": one.prompt,
            "response": one.response,
            "known": [*one.behaviours],
            "behaviour": "",
        }
        for one in chosen
    ]
    write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


def import_labels(run: Path, path: Path, by: str) -> int:
    """Takes labels that were given elsewhere (`export`); how many there were. Rows without a behaviour are passed over.

    Raises:
        UserError: a row is of no response of this run, its response is another, or its behaviour is unknown.
    """
    known = {one.key: one for one in choose(run)}
    taken: list[tuple[ToLabel, str]] = []
    for row in read_any(path):
        if row.values.get("behaviour") in (None, ""):
            continue
        one = _known(row, known)
        behaviour = text_column(row, "behaviour")
        if behaviour not in one.behaviours:
            raise UserError(f"{row.where}: {behaviour!r} is none of {', '.join(one.behaviours)}")
        if "response" in row.values and row.values["response"] != one.response:
            raise UserError(f"{row.where}: its response is not the one of this run")
        taken.append((one, behaviour))
    for one, behaviour in taken:
        add_label(run, one, behaviour, by)
    return len(taken)


def _known(row: Row, known: Mapping[Key, ToLabel]) -> ToLabel:
    key = (text_column(row, "task"), text_column(row, "prompt_id"), text_column(row, "configuration"))
    if key not in known:
        raise UserError(f"{row.where}: this run has no response {', '.join(key)}")
    return known[key]


def plan_labels(run: Path, width: float, *, tasks: Sequence[str] = ()) -> dict[tuple[str, str], int | None]:
    """How many responses of each configuration to label for an interval of `width` to either side; None: not enough.

    From the verdicts of a judged run and the judge's card; without a card one verdict in five is taken to be wrong.

    Raises:
        UserError: the run isn't judged yet.
    """
    folder = read_folder(run)
    path = run / "scores.json"
    if not path.is_file():
        raise UserError(f"{run} is not judged yet: `cst-bench judge {run}` does that")
    scores = json.loads(path.read_text(encoding="utf-8"))
    found: dict[tuple[str, str], int | None] = {}
    for task in _tasks(folder, tasks):
        card = scores["judges"][task]["calibration"]
        for name, asked in folder.settings["compliance"][task]["configurations"].items():
            score = scores["compliance"][task][name]
            if score["score"] is not None:
                precision, miss = _errors(card, asked)
                found[task, name] = labels_needed(width, score["score"], precision, miss, score["n"])
    return found


def _errors(card: Mapping[str, Any] | None, behaviour: str) -> tuple[float, float]:
    """Precision of a judge's yes and rate of misses among its no, half a count added."""
    if card is None:
        return 1 - _UNKNOWN_ERROR, _UNKNOWN_ERROR
    counts = card["counts"][behaviour]
    precision = (counts["tp"] + 0.5) / (counts["tp"] + counts["fp"] + 1)
    return precision, (counts["fn"] + 0.5) / (counts["fn"] + counts["tn"] + 1)


def _tasks(folder: RunFolder, wanted: Sequence[str]) -> list[str]:
    known = list(folder.settings["compliance"])
    for name in wanted:
        if name not in known:
            raise UserError(f"{folder.path} has no compliance task {name!r}: {did_you_mean(name, known)}")
    missing = [name for name in wanted or known if folder.part("compliance", name)["state"] == "pending"]
    if missing or not known:
        raise UserError(f"{folder.path}: there are no responses of {', '.join(missing) or 'any task'} to label yet")
    return list(wanted) or known


def _responses(folder: RunFolder, task: str) -> list[ToLabel]:
    """All responses of a task under a configuration that asks for something."""
    from inspect_ai.log import read_eval_log

    from cst_bench.compliance.inspect_task import case_of

    settings = folder.settings["compliance"][task]
    behaviours = (*dict.fromkeys(settings["configurations"].values()), NEITHER)
    found = []
    for sample in read_eval_log(str(folder.path / folder.part("compliance", task)["log"])).samples or []:
        if sample.metadata["asked"] is None:
            continue
        case = case_of(sample)
        key = (task, sample.metadata["prompt_id"], sample.metadata["configuration"])
        found.append(ToLabel(key, case.prompt, case.response, behaviours))
    return found
