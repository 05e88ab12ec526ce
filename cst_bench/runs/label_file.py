"""`labels.jsonl` of a run folder: labels by people for a part of its responses, which its scores are corrected by.

It has a row for each answer: task, prompt_id, configuration, behaviour (null: unsure), by (null: a labeller
without a name), and the hash of the response. It holds no text. Later rows of a labeller override earlier ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cst_bench.errors import UserError
from cst_bench.files import jsonl_text, parse_json, read_text, write_text
from cst_bench.record import Record, validated
from cst_bench.runs.label_strata import Class, read_strata
from cst_bench.runs.run_folder import RunFolder, read_folder
from cst_bench.runs.to_label import LabelKey, ToLabel, responses_to_label
from cst_bench.statistics.agreement import Agreement, agreement

FILE = "labels.jsonl"
UNNAMED = "unnamed"
"""Labeller without a name, in tables."""


class _Answer(Record):
    """A row of the file."""

    task: str
    prompt_id: str
    configuration: str
    behaviour: str | None
    by: str | None
    response_sha256: str

    @property
    def key(self) -> LabelKey:
        """Return the key of the labelled response."""
        return self.task, self.prompt_id, self.configuration


@dataclass(frozen=True)
class RunLabels:
    """Labels by people of a run's responses, and how these were drawn."""

    votes: Mapping[LabelKey, tuple[str | None, ...]] = field(default_factory=dict)
    """Response → the behaviour that each of its labellers saw; None is unsure."""
    strata: Mapping[LabelKey, Class] = field(default_factory=dict)
    """Response → the stratum that it was in when responses were drawn; empty if they were drawn from all alike."""


def read_run_labels(run: Path) -> RunLabels:
    """Read the labels of a run's responses.

    A label of another response is refused and not left out: what is left would be no random part, since short
    responses, such as refusals, are more often the same in two runs than others.

    Raises:
        UserError: a line of the file is not a label, or belongs to another response than this run's.
    """
    answers = _latest(run / FILE)
    if not answers:
        return RunLabels()
    folder = read_folder(run)
    _check_responses(folder, answers)
    votes: dict[LabelKey, tuple[str | None, ...]] = {}
    for answer in answers:
        votes[answer.key] = (*votes.get(answer.key, ()), answer.behaviour)
    return RunLabels(votes, read_strata(folder))


def answered(run: Path, by: str | None) -> set[LabelKey]:
    """Read which responses a labeller was shown and answered, with or without a label."""
    return {answer.key for answer in _latest(run / FILE) if answer.by == by}


def labeller_agreement(run: Path) -> dict[str, Agreement]:
    """Return the agreement of labellers on each task where two or more labelled the same responses.

    It is computed on the responses that two or more answered; unsure counts as missing. Intervals are by prompt.

    Raises:
        UserError: a line of the file is not a label.
    """
    by_response: dict[LabelKey, dict[str, str]] = {}
    for answer in _latest(run / FILE):
        if answer.behaviour is not None:
            by_response.setdefault(answer.key, {})[answer.by or UNNAMED] = answer.behaviour
    shared = {key: labels for key, labels in sorted(by_response.items()) if len(labels) > 1}
    agreements = {}
    for task in dict.fromkeys(key[0] for key in shared):
        rows = [(key[1], labels) for key, labels in shared.items() if key[0] == task]
        names = sorted({name for _, labels in rows for name in labels})
        columns = [[labels.get(name) for _, labels in rows] for name in names]
        agreements[task] = agreement(names, columns, [prompt for prompt, _ in rows])
    return agreements


def add_label(run: Path, response: ToLabel, behaviour: str | None, by: str | None) -> None:
    """Append a label, on disk at once.

    Args:
        run: The run folder.
        response: The labelled response.
        behaviour: The label; None is unsure.
        by: Who labelled; None without a name.
    """
    task, prompt_id, configuration = response.key
    row = {
        "task": task,
        "prompt_id": prompt_id,
        "configuration": configuration,
        "behaviour": behaviour,
        "by": by,
        "response_sha256": response.response_sha256,
    }
    _drop_cut_line(run / FILE)
    with (run / FILE).open("a", encoding="utf-8") as file:
        file.write(jsonl_text([row]))
        file.flush()
        os.fsync(file.fileno())


def take_back(run: Path, by: str | None) -> LabelKey | None:
    """Remove the last label of a labeller and return its key; None if there is none."""
    answers = _read(run / FILE)
    own = [at for at, answer in enumerate(answers) if answer.by == by]
    if not own:
        return None
    lines = _lines(run / FILE)
    write_text(run / FILE, "".join(f"{line}\n" for at, line in enumerate(lines) if at != own[-1]))
    return answers[own[-1]].key


def _latest(path: Path) -> list[_Answer]:
    """Return the last answer of each labeller to each response."""
    return list({(answer.key, answer.by): answer for answer in _read(path)}.values())


def _read(path: Path) -> list[_Answer]:
    """Read the rows of the file, one a line."""
    answers = []
    for number, line in enumerate(_lines(path), 1):
        try:
            row = parse_json(f"{path}:{number}", line)
        except UserError:
            row = None
        advice = "not a label that `cst-bench judge label` wrote: remove the line, and label the response again"
        answers.append(validated(_Answer, row, f"{path}:{number}", advice))
    return answers


def _lines(path: Path) -> list[str]:
    """Return the complete lines; a label whose writing was cut off was never confirmed, and is asked for again."""
    text = read_text(path) if os.path.lexists(path) else ""
    *lines, rest = text.split("\n")  # splitlines() would split inside of JSON strings too
    return [*lines, rest] if _is_json(rest) else lines


def _is_json(line: str) -> bool:
    try:
        parse_json("", line)
    except UserError:
        return False
    return True


def _drop_cut_line(path: Path) -> None:
    """Rewrite a file whose last line is not complete, so that what is appended to it has a line of its own."""
    if os.path.lexists(path) and not read_text(path).endswith("\n"):
        write_text(path, "".join(f"{line}\n" for line in _lines(path)))


def _check_responses(folder: RunFolder, answers: list[_Answer]) -> None:
    hashes = {
        response.key: response.response_sha256
        for task in dict.fromkeys(answer.key[0] for answer in answers)
        if task in folder.settings.compliance
        for response in responses_to_label(folder, task)
    }
    foreign = [answer for answer in answers if hashes.get(answer.key) != answer.response_sha256]
    if foreign:
        raise UserError(
            f"{folder.path / FILE}: {len(foreign)} of {len(answers)} labels are of other responses than this run's "
            f"(the first: {', '.join(map(str, foreign[0].key))}): move the file to the run that it was made for, "
            "and label this one's responses with `cst-bench judge label`"
        )
