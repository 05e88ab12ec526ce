"""Choose responses of a run to be labelled by people, and take labels that were made elsewhere."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from cst_bench.errors import UserError
from cst_bench.files import Row, text_column, write_jsonl
from cst_bench.reporting.run_check import require_intact
from cst_bench.runs.label_file import add_label
from cst_bench.runs.label_strata import CLASSES, LabelStrata, Strata, keep_strata, strata_to_draw_from
from cst_bench.runs.run_folder import RunFolder, read_folder
from cst_bench.runs.to_label import LabelKey, ToLabel, responses_to_label, tasks_to_label
from cst_bench.statistics.allocation import PlannedStratum, allocation_order
from cst_bench.table_files import read_any

UNSURE = "unsure"
"""Answer of a labeller who cannot say, in exported files."""


def choose(run: Path, *, tasks: Sequence[str] = (), n: int | None = None, seed: int = 0) -> list[ToLabel]:
    """Draw responses to label, the same each time, in a random order that tells nothing of configuration or verdict.

    The configurations get as many each. Within one, a judged run's responses are drawn at random from each class of
    verdict, in numbers by Neyman's allocation (`cst_bench.statistics.allocation`); its strata are kept in the run's
    folder. Of a run that is not judged yet all are drawn alike. A larger `n` contains every smaller one.

    Args:
        run: A run folder with responses.
        tasks: Only these compliance tasks; all if empty.
        n: Number of responses; all if None.
        seed: Random seed for the draw and the order.

    Raises:
        UserError: the folder is not a run, has no such task, no responses, or strata of other ones.
    """
    folder = read_folder(run)
    require_intact(run, labels=False)
    by_configuration: list[list[ToLabel]] = []
    for task in tasks_to_label(folder, tasks):
        strata = strata_to_draw_from(folder, task)
        if strata is not None:
            keep_strata(folder, task, strata)
        by_configuration += _drawn(folder, task, strata, seed)
    longest = max(map(len, by_configuration), default=0)
    in_turns = [responses[at] for at in range(longest) for responses in by_configuration if at < len(responses)]
    chosen = in_turns[:n]
    random.Random(f"{seed}/order").shuffle(chosen)
    return chosen


def _drawn(folder: RunFolder, task: str, strata: Mapping[str, Strata] | None, seed: int) -> Iterator[list[ToLabel]]:
    """Yield the responses of each configuration in the order in which labels are allocated to them."""
    configurations = folder.settings.compliance[task].configurations
    by_stratum: dict[str, dict[str | None, list[ToLabel]]] = {name: {} for name in configurations}
    for response in sorted(responses_to_label(folder, task), key=lambda response: response.key):
        _, prompt, name = response.key
        if strata is not None and (name not in strata or prompt not in strata[name].classes):
            raise UserError(
                f"{folder.path / LabelStrata.FILE_NAME} is of other responses than this run's: move it, and the labels "
                "that were drawn by it, to the run that they were made for"
            )
        by_stratum[name].setdefault(None if strata is None else strata[name].classes[prompt], []).append(response)
    for name, members in by_stratum.items():
        for responses in members.values():
            responses.sort(key=lambda response: _order(seed, response))
        if strata is None:
            yield members.get(None, [])
        else:
            yield list(_allocated([members.get(stratum, []) for stratum in CLASSES], strata[name].planned))


def _order(seed: int, response: ToLabel) -> str:
    """Return a random number of a prompt, the same in every run and under every configuration.

    With such permanent random numbers (Ohlsson 1995), draws from two runs have most prompts in common, so that their
    difference can be corrected, and so have the configurations of a run, for joint compliance.
    """
    task, prompt, _ = response.key
    return sha256(f"{seed}/{task}/{prompt}".encode()).hexdigest()


def _allocated(strata: Sequence[Sequence[ToLabel]], expected: Sequence[PlannedStratum]) -> Iterator[ToLabel]:
    waiting = [iter(responses) for responses in strata]
    return (next(waiting[index]) for index in allocation_order(expected))


def export(path: Path, responses: Iterable[ToLabel]) -> None:
    """Write responses to label elsewhere, as jsonl with an empty column `behaviour`. The file holds their text.

    A labeller is to be shown prompt, fields, response and definitions, and not the configuration.
    """
    rows = [
        {
            **dict(zip(("task", "prompt_id", "configuration"), response.key, strict=True)),
            "prompt": response.prompt,
            "fields": dict(response.fields),
            "response": response.response,
            "known": [*response.behaviours, UNSURE],
            "definitions": dict(response.definitions),
            "behaviour": "",
        }
        for response in responses
    ]
    write_jsonl(path, rows)


def import_labels(run: Path, path: Path, by: str | None) -> int:
    """Add labels made elsewhere (`export`) and return their number. Rows without a behaviour are skipped.

    Args:
        run: The run folder.
        path: The file; `behaviour` is one of `known`.
        by: Who labelled; None without a name.

    Raises:
        UserError: a row belongs to no response of this run, its response differs, or its behaviour is unknown.
    """
    folder = read_folder(run)
    require_intact(run, labels=False)
    known = {r.key: r for task in tasks_to_label(folder, ()) for r in responses_to_label(folder, task)}
    labels: list[tuple[ToLabel, str]] = []
    for row in read_any(path):
        if row.values.get("behaviour") in (None, ""):
            continue
        response = _known_response(row, known)
        behaviour = text_column(row, "behaviour")
        if behaviour not in (*response.behaviours, UNSURE):
            raise UserError(f"{row.where}: {behaviour!r} is not one of {', '.join((*response.behaviours, UNSURE))}")
        if "response" in row.values and row.values["response"] != response.response:
            raise UserError(f"{row.where}: its response differs from the one of this run")
        labels.append((response, behaviour))
    for response, behaviour in labels:
        add_label(run, response, None if behaviour == UNSURE else behaviour, by)
    return len(labels)


def _known_response(row: Row, known: Mapping[LabelKey, ToLabel]) -> ToLabel:
    key = (text_column(row, "task"), text_column(row, "prompt_id"), text_column(row, "configuration"))
    if key not in known:
        raise UserError(f"{row.where}: this run has no response {', '.join(key)}")
    return known[key]
