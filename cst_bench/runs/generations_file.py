"""Read generations made elsewhere: rows with prompt, response and system prompt, and perhaps labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cst_bench import content
from cst_bench.calibration.labels import RELEASED_VALUES
from cst_bench.checkpoint.thoughts import CUT_OFF_THOUGHT, ONLY_THOUGHTS, SplitText, ThinkTokens, split_thoughts
from cst_bench.columns import Columns
from cst_bench.compliance.compliance_task import FOLDER, REFERENCE, ComplianceTask, load_task
from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import Row, has_half_character, prompt_hash, text_column
from cst_bench.judging import RESERVED
from cst_bench.runs.imports import ImportedLog

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "instruction"),
    "response": ("response", "generation", "completion", "output", "answer"),
    "system": ("system", "system_prompt"),
    "configuration": ("configuration",),
    "label": ("label", "behaviour", "score_response"),
}
"""Usual names of each column; the first that a file has is read."""


@dataclass(frozen=True, slots=True)
class ScoredGeneration:
    """One row: prompt, response, the configuration in force, and the file's label."""

    prompt_id: str
    """Hash of the prompt."""
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
    unscored: str | None = None
    """Why there is no response to judge, in the log of another tool; None if there is one."""
    stop_reason: str | None = None
    """Inspect's stop reason; None if unknown."""
    epoch: int = 1
    """Number of the response among those to the same prompt under the same configuration."""


@dataclass(frozen=True)
class ConfigurationChoice:
    """Options on the configurations of a file."""

    all_rows: str | None = None
    """Configuration of all rows; None if each row says its own."""
    system_prompts: Mapping[str, str] = field(default_factory=dict)
    """Configuration → text that is part of its system prompts in the file, which are in no wording of the task."""


NO_CHOICE = ConfigurationChoice()


def find_task(file: Path, rows: Iterable[Row], columns: Columns) -> tuple[ComplianceTask, Path]:
    """Return the only task whose wordings include all system prompts of a file, with the path of the task file.

    The unseen wordings of a task, which may be published ones of another, count only if no task has them otherwise.

    Raises:
        UserError: the file has no system prompts, or no task or several have them.
    """
    systems = {text_column(row, column) for row in rows if (column := columns.find(row, "system")) is not None}
    if not systems:
        raise UserError(f"{file}: it has no system prompts to recognize the task by: give --task")
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
    rows: Iterable[Row],
    task: ComplianceTask,
    columns: Columns,
    values: Mapping[str, str],
    think_tokens: ThinkTokens | None = None,
    choice: ConfigurationChoice = NO_CHOICE,
    log: ImportedLog | None = None,
) -> list[ScoredGeneration]:
    """Read the generations of a file.

    A row of a log without a system prompt is one of the reference, if other rows have one. A log may have several
    responses to a prompt under a configuration; a table may not, since they may be of several models.

    Args:
        rows: Rows of the file.
        task: Compliance task whose configurations were in force.
        columns: Names of the columns.
        values: Label of the file → behaviour.
        think_tokens: Markers of thoughts to remove from the responses.
        choice: What the user says about the configurations.
        log: Log of another tool that the rows are from; None for a table.

    Raises:
        UserError: a column is missing, a row has no configuration of the task or an unknown label, or a prompt comes
            twice under one configuration.
    """
    _check_choice(choice, task)
    generations: list[ScoredGeneration] = []
    first_row = ""
    seen: dict[tuple[str, str], tuple[str, int]] = {}
    """Prompt id and configuration → place of the first such row, and the number of such rows."""
    for number, row in enumerate(rows):
        first_row = first_row or row.where
        prompt = text_column(row, columns.need(row, "prompt"))
        configuration = _configuration(row, task, columns, choice, in_log=log is not None)
        prompt_id = prompt_hash(prompt)
        place, epoch = seen.get((prompt_id, configuration), (row.where.rpartition(", ")[2], 0))
        if epoch and log is None:
            raise UserError(
                f"{row.where}: same prompt and configuration ({configuration}) as {place}: score one model and "
                "one sample per prompt at a time"
            )
        seen[prompt_id, configuration] = place, epoch + 1
        response = row.values[columns.need(row, "response")]
        if not isinstance(response, str):
            raise UserError(f"{row.where}: the response must be text, not {type(response).__name__}")
        fields = {name: text_column(row, name) for name in task.data.fields if name in row.values}
        label = _label(row, task, columns, values)
        response = _whole_characters(response)
        split = SplitText(response) if think_tokens is None else split_thoughts(response, think_tokens)
        thought = bool(split.thoughts) or split.unfinished
        missing = None
        if thought and not split.answer:
            missing = CUT_OFF_THOUGHT if split.unfinished else ONLY_THOUGHTS
        imported = None if log is None else log.responses[number]
        generations.append(
            ScoredGeneration(
                prompt_id,
                prompt,
                split.answer,
                configuration,
                label,
                fields,
                thought,
                missing,
                unscored=None if imported is None else imported.unscored,
                stop_reason=None if imported is None else imported.stop_reason,
                epoch=epoch + 1,
            )
        )
    if all(generation.configuration == REFERENCE for generation in generations):
        names = ", ".join(task.configurations)
        raise UserError(
            f"{first_row}: neither this row nor another one has a system prompt: give "
            f"--configuration with the one of task {task.name} that all were made under ({names})"
        )
    return generations


def _whole_characters(text: str) -> str:
    """Return a response with U+FFFD for half of a character, which programs that cut off UTF-16 leave behind."""
    if not has_half_character(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _check_choice(choice: ConfigurationChoice, task: ComplianceTask) -> None:
    for name in (*choice.system_prompts, *filter(None, [choice.all_rows])):
        if name not in task.configurations:
            raise UserError(
                f"task {task.name} has no configuration {name!r}: {did_you_mean(name, task.configurations)}"
            )


def _configuration(
    row: Row, task: ComplianceTask, columns: Columns, choice: ConfigurationChoice, *, in_log: bool
) -> str:
    column = columns.find(row, "configuration")
    if column is not None:
        name = text_column(row, column)
        if name not in task.configurations:
            raise UserError(
                f"{row.where}: task {task.name} has no configuration {name!r}: "
                f"{did_you_mean(name, task.configurations)}"
            )
        return name
    system_column = columns.find(row, "system") if in_log or choice.all_rows else columns.need(row, "system")
    system = None if system_column is None else text_column(row, system_column)
    configuration = None if system is None else _by_system_prompt(row, task, system, choice.system_prompts)
    if choice.all_rows is not None:
        if configuration not in (None, choice.all_rows):
            raise UserError(
                f"{row.where}: its system prompt is one of configuration {configuration}: leave out --configuration "
                f"{choice.all_rows}, which is for files whose rows were all made under it"
            )
        return choice.all_rows
    if system is None:
        return REFERENCE
    if configuration is not None:
        return configuration
    personas = [name for name, known in task.configurations.items() if known.system_column is not None]
    if len(personas) == 1:
        return personas[0]
    raise UserError(
        f"{row.where}: its system prompt ({system[:60]!r}) is in no wording of task {task.name}: give "
        f"--system-prompt NAME=TEXT, where TEXT is part of it and NAME one of {', '.join(task.configurations)}, or "
        "--configuration NAME for all rows"
    )


def _by_system_prompt(row: Row, task: ComplianceTask, system: str, parts: Mapping[str, str]) -> str | None:
    """Return the configuration of a system prompt: the one that the user says, or the one that has it as a wording."""
    folded = " ".join(system.split())
    named = [name for name, part in parts.items() if " ".join(part.split()) in folded]
    if len(named) > 1:
        raise UserError(f"{row.where}: its system prompt has the --system-prompt of {' and of '.join(named)}")
    return named[0] if named else task.configuration_of(system)


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
