"""Read generations made elsewhere: a file with prompt, response and system prompt, and perhaps labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cst_bench import content
from cst_bench.calibration.labels import RELEASED_VALUES
from cst_bench.checkpoint.thoughts import CUT_OFF_THOUGHT, ONLY_THOUGHTS, SplitText, ThinkTokens, split_thoughts
from cst_bench.columns import Columns
from cst_bench.compliance.compliance_task import FOLDER, ComplianceTask, load_task
from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import Row, prompt_hash, text_column
from cst_bench.judging import RESERVED

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "instruction"),
    "response": ("response", "generation", "completion", "output", "answer"),
    "system": ("system", "system_prompt"),
    "configuration": ("configuration",),
    "label": ("label", "behaviour", "score_response"),
}
"""Usual names of each column; the first that a file has is read."""


@dataclass(frozen=True)
class ScoredGeneration:
    """One row: prompt, response, the configuration in force, and the file's label."""

    prompt: str
    response: str
    """Without its thoughts, if their markers were given."""
    configuration: str
    label: str | None
    """Behaviour; None without a label."""
    fields: Mapping[str, str]
    """Columns that a judge may read."""
    thought: bool = False
    """A thought was removed from the response."""
    missing_answer: str | None = None
    """Why nothing is left of the response without its thoughts; None if something is."""

    @property
    def prompt_id(self) -> str:
        """Return the hash of the prompt."""
        return prompt_hash(self.prompt)


def find_task(file: Path, rows: Sequence[Row], columns: Columns) -> tuple[ComplianceTask, Path]:
    """Return the only task whose wordings include all system prompts of a file, with the path of the task file.

    The unseen wordings of a task, which may be published ones of another, count only if no task has them otherwise.

    Raises:
        UserError: the file has no system prompts, or no task or several have them.
    """
    column = columns.find(rows[0], "system")
    if column is None:
        raise UserError(f"{file}: it has no system prompts to recognize the task by: give --task")
    systems = {text_column(row, column) for row in rows}
    tasks = [load_task(name) for name in content.names(FOLDER)]
    fitting = [found for found in tasks if all(found[0].configuration_of(text, unseen=False) for text in systems)]
    fitting = fitting or [found for found in tasks if all(found[0].configuration_of(text) for text in systems)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(task.name for task, _ in fitting)
        raise UserError(f"{file}: its system prompts are those of several tasks ({names}): give --task")
    raise UserError(f"{file}: no task has its {len(systems)} system prompts: give --task")


def read_generations(
    rows: Sequence[Row],
    task: ComplianceTask,
    columns: Columns,
    values: Mapping[str, str],
    think_tokens: ThinkTokens | None = None,
) -> list[ScoredGeneration]:
    """Read the generations of a file.

    Args:
        rows: Rows of the file.
        task: Compliance task whose configurations were in force.
        columns: Names of the columns.
        values: Label of the file → behaviour.
        think_tokens: Markers of thoughts to remove from the responses.

    Raises:
        UserError: a column is missing, a row has no configuration of the task or an unknown label, or a prompt comes
            twice under one configuration.
    """
    generations = []
    seen: dict[tuple[str, str], str] = {}
    for row in rows:
        prompt = text_column(row, columns.need(row, "prompt"))
        configuration = _configuration(row, task, columns)
        key = (prompt_hash(prompt), configuration)
        if key in seen:
            raise UserError(
                f"{row.where}: same prompt and configuration ({configuration}) as {seen[key]}: score one model and "
                "one sample per prompt at a time"
            )
        seen[key] = row.where.rpartition(", ")[2]
        response = row.values[columns.need(row, "response")]
        if not isinstance(response, str):
            raise UserError(f"{row.where}: the response must be text, not {type(response).__name__}")
        fields = {name: text_column(row, name) for name in task.data.fields if name in row.values}
        label = _label(row, task, columns, values)
        split = SplitText(response) if think_tokens is None else split_thoughts(response, think_tokens)
        thought = bool(split.thoughts) or split.unfinished
        missing = None
        if thought and not split.answer:
            missing = CUT_OFF_THOUGHT if split.unfinished else ONLY_THOUGHTS
        generations.append(ScoredGeneration(prompt, split.answer, configuration, label, fields, thought, missing))
    return generations


def _configuration(row: Row, task: ComplianceTask, columns: Columns) -> str:
    column = columns.find(row, "configuration")
    if column is not None:
        name = text_column(row, column)
        if name not in task.configurations:
            raise UserError(
                f"{row.where}: task {task.name} has no configuration {name!r}: "
                f"{did_you_mean(name, task.configurations)}"
            )
        return name
    system = text_column(row, columns.need(row, "system"))
    configuration = task.configuration_of(system)
    if configuration is not None:
        return configuration
    personas = [name for name, known in task.configurations.items() if known.system_column is not None]
    if len(personas) == 1:
        return personas[0]
    raise UserError(
        f"{row.where}: its system prompt ({system[:60]!r}) is in no wording of task {task.name}: "
        f"add a column configuration with {', '.join(task.configurations)}"
    )


def _label(row: Row, task: ComplianceTask, columns: Columns, values: Mapping[str, str]) -> str | None:
    column = columns.find(row, "label")
    if column is None or row.values[column] in (None, ""):
        return None
    value = str(row.values[column])
    behaviour = {**(RELEASED_VALUES if column == "score_response" else {}), **values}.get(value, value)
    known = (*sorted(set(task.asked.values())), *RESERVED)
    if behaviour not in known:
        raise UserError(
            f"{row.where}: label {value!r} is not one of the behaviours of task {task.name} ({', '.join(known)}): "
            f"give --value {value}=BEHAVIOUR"
        )
    return behaviour
