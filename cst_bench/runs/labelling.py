"""Labels by people for a random part of a run's responses, which its scores are corrected by.

`labels.jsonl` of the run folder has a row for each answer: task, prompt_id, configuration, behaviour (null: unsure, not
labelled), by, and the hash of the response. It holds no text. Later rows override earlier ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import Row, jsonl_text, text_column, write_jsonl, write_text
from cst_bench.judging import RESERVED
from cst_bench.record import CalibrationSummary, Scores
from cst_bench.runs.run_folder import RunFolder, read_folder
from cst_bench.statistics.correction import labels_needed
from cst_bench.table_files import read_any

FILE = "labels.jsonl"
LabelKey = tuple[str, str, str]
"""Task, prompt id, configuration."""
_ASSUMED_ERROR = 0.2
"""Share of wrong verdicts that the planner assumes of a judge without a card."""


@dataclass(frozen=True)
class ToLabel:
    """A response to label. It reveals nothing of the judge's verdict."""

    key: LabelKey
    prompt: str
    response: str
    behaviours: tuple[str, ...]
    """Possible labels; `neither` comes last."""

    @property
    def response_sha256(self) -> str:
        """Return the hash of the response, so that a label is never applied to another one."""
        return hashlib.sha256(self.response.encode("utf-8", "surrogatepass")).hexdigest()


def choose(run: Path, *, tasks: Sequence[str] = (), n: int | None = None, seed: int = 0) -> list[ToLabel]:
    """Return responses to label, in a reproducible random order, of which any beginning is a random sample.

    The configurations of the tasks take turns, so that each has as many.

    Args:
        run: A run folder with responses.
        tasks: Only these compliance tasks; all if empty.
        n: Number of responses; all if None.
        seed: Random seed for the response order.

    Raises:
        UserError: the folder is not a run, has no such task, or no responses.
    """
    folder = read_folder(run)
    by_configuration: dict[tuple[str, str], list[ToLabel]] = {}
    for task in _tasks(folder, tasks):
        for response in _responses(folder, task):
            by_configuration.setdefault((task, response.key[2]), []).append(response)
    for name, responses in by_configuration.items():
        responses.sort(key=lambda response: response.key)
        random.Random(f"{seed}/{'/'.join(name)}").shuffle(responses)
    longest = max(map(len, by_configuration.values()), default=0)
    in_turns = [
        responses[at] for at in range(longest) for responses in by_configuration.values() if at < len(responses)
    ]
    return in_turns if n is None else in_turns[:n]


def read_run_labels(run: Path) -> dict[LabelKey, str]:
    """Read the labels of a run's responses; unsure answers are left out.

    Raises:
        UserError: a line of the file is not a label.
    """
    labels: dict[LabelKey, str | None] = {}
    for key, behaviour in _read(run / FILE):
        labels[key] = behaviour
    return {key: behaviour for key, behaviour in labels.items() if behaviour is not None}


def answered(run: Path) -> set[LabelKey]:
    """Read which responses were shown and answered, with or without a label."""
    return {key for key, _ in _read(run / FILE)}


def _read(path: Path) -> Iterator[tuple[LabelKey, str | None]]:
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            yield (row["task"], row["prompt_id"], row["configuration"]), row["behaviour"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}:{number}: not a label that `cst-bench judge label` wrote") from None


def add_label(run: Path, response: ToLabel, behaviour: str | None, by: str) -> None:
    """Append a label, on disk at once."""
    task, prompt_id, configuration = response.key
    row = {
        "task": task,
        "prompt_id": prompt_id,
        "configuration": configuration,
        "behaviour": behaviour,
        "by": by,
        "response_sha256": response.response_sha256,
    }
    with (run / FILE).open("a", encoding="utf-8") as file:
        file.write(jsonl_text([row]))
        file.flush()
        os.fsync(file.fileno())


def take_back(run: Path) -> LabelKey | None:
    """Remove the last label and return its key; None if there is none."""
    path = run / FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if not lines:
        return None
    last = json.loads(lines[-1])
    write_text(path, "".join(f"{line}\n" for line in lines[:-1]))
    return last["task"], last["prompt_id"], last["configuration"]


def export(path: Path, responses: Iterable[ToLabel]) -> None:
    """Write responses to label elsewhere, as jsonl with an empty column `behaviour`. The file holds their text."""
    rows = [
        {
            **dict(zip(("task", "prompt_id", "configuration"), response.key, strict=True)),
            "prompt": response.prompt,
            "response": response.response,
            "known": [*response.behaviours],
            "behaviour": "",
        }
        for response in responses
    ]
    write_jsonl(path, rows)


def import_labels(run: Path, path: Path, by: str) -> int:
    """Add labels made elsewhere (`export`) and return their number. Rows without a behaviour are skipped.

    Raises:
        UserError: a row belongs to no response of this run, its response differs, or its behaviour is unknown.
    """
    known = {response.key: response for response in choose(run)}
    labels: list[tuple[ToLabel, str]] = []
    for row in read_any(path):
        if row.values.get("behaviour") in (None, ""):
            continue
        response = _known_response(row, known)
        behaviour = text_column(row, "behaviour")
        if behaviour not in response.behaviours:
            raise UserError(f"{row.where}: {behaviour!r} is not one of {', '.join(response.behaviours)}")
        if "response" in row.values and row.values["response"] != response.response:
            raise UserError(f"{row.where}: its response differs from the one of this run")
        labels.append((response, behaviour))
    for response, behaviour in labels:
        add_label(run, response, behaviour, by)
    return len(labels)


def _known_response(row: Row, known: Mapping[LabelKey, ToLabel]) -> ToLabel:
    key = (text_column(row, "task"), text_column(row, "prompt_id"), text_column(row, "configuration"))
    if key not in known:
        raise UserError(f"{row.where}: this run has no response {', '.join(key)}")
    return known[key]


def plan_labels(run: Path, width: float, *, tasks: Sequence[str] = ()) -> dict[tuple[str, str], int | None]:
    """Return the number of responses to label per (task, configuration) for a target precision.

    It follows from the verdicts of a judged run and the judge's card; without a card one verdict in five is expected to
    be wrong. None: labelling all responses is not enough.

    Args:
        run: A judged run.
        width: Target half-width of the 95 % interval.
        tasks: Only these compliance tasks; all if empty.

    Raises:
        UserError: the run is not judged yet.
    """
    folder = read_folder(run)
    if not (run / Scores.FILE_NAME).is_file():
        raise UserError(f"{run} is not judged yet: run `cst-bench judge {run}`")
    scores = Scores.read(run)
    needed: dict[tuple[str, str], int | None] = {}
    for task in _tasks(folder, tasks):
        card = scores.judges[task].calibration
        for name, asked in folder.settings.compliance[task].configurations.items():
            score = scores.compliance[task].configurations[name]
            if score.score is not None:
                precision, miss = _error_rates(card, asked)
                needed[task, name] = labels_needed(width, score.score, precision, miss, score.n)
    return needed


def _error_rates(card: CalibrationSummary | None, behaviour: str) -> tuple[float, float]:
    """Return a judge's precision on a behaviour and the rate of misses among its other verdicts, half a count added."""
    if card is None or card.counts is None:
        return 1 - _ASSUMED_ERROR, _ASSUMED_ERROR
    counts = card.counts[behaviour]
    precision = (counts.tp + 0.5) / (counts.tp + counts.fp + 1)
    return precision, (counts.fn + 0.5) / (counts.fn + counts.tn + 1)


def _tasks(folder: RunFolder, wanted: Sequence[str]) -> list[str]:
    known = list(folder.settings.compliance)
    for name in wanted:
        if name not in known:
            raise UserError(f"{folder.path} has no compliance task {name!r}: {did_you_mean(name, known)}")
    missing = [name for name in wanted or known if folder.compliance(name).state == "pending"]
    if missing or not known:
        raise UserError(f"{folder.path}: there are no responses of {', '.join(missing) or 'any task'} to label yet")
    return list(wanted) or known


def _responses(folder: RunFolder, task: str) -> list[ToLabel]:
    """Read all responses of a task under a configuration that asks for something."""
    from inspect_ai.log import read_eval_log

    from cst_bench.compliance.inspect_task import case_of

    configurations = folder.settings.compliance[task].configurations
    behaviours = (*dict.fromkeys(configurations.values()), *RESERVED)
    responses = []
    for sample in read_eval_log(str(folder.log(task))).samples or []:
        if sample.metadata["asked"] is None:
            continue
        case = case_of(sample)
        key = (task, sample.metadata["prompt_id"], sample.metadata["configuration"])
        responses.append(ToLabel(key, case.prompt, case.response, behaviours))
    return responses
