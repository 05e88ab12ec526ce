"""The schema of a compliance task file: a data set, its configurations, the judge of its behaviours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from cst_bench import content
from cst_bench.content import Content
from cst_bench.errors import UserError, did_you_mean
from cst_bench.judging import Judge

FOLDER = "tasks/compliance"
REFERENCE = "none"
"""The reference arm: every prompt once more with no system prompt, described and never scored."""
_RESERVED = {"joint", "reference", REFERENCE}


class Selector(Content):
    """Which rows belong to a split. All conditions that are given must hold."""

    where: dict[str, str] = Field(default_factory=dict)
    """Columns and the value that they must have."""
    unless: dict[str, str] = Field(default_factory=dict)
    """Columns and a value that they must not have."""
    listed_in: str | None = None
    """A file of prompt hashes (`cst_bench.files.prompt_hash`), relative to the task file; the prompt is among them."""
    not_listed_in: str | None = None
    """A file of prompt hashes; the prompt is not among them."""
    hash_range: tuple[float, float] | None = None
    """The prompt's hash, as a share of all hashes, is from the first to below the second."""


class Data(Content):
    """Where the rows come from: a hub data set or a file, and which columns they have."""

    hub: str | None = None
    """Data set id on the Hugging Face hub."""
    revision: str | None = None
    subset: str | None = None
    hub_split: str = "train"
    """Split of the hub data set; `train+test` joins two."""
    file: str | None = None
    """A file, relative to the task file."""
    prompt: str = "prompt"
    """Column with the user prompt."""
    fields: list[str] = Field(default_factory=list)
    """Columns that are handed to the judge as data (`tool`, `name`, …)."""
    splits: dict[str, Selector] = Field(default_factory=lambda: {"test": Selector()})
    """`test` is what is evaluated; others (`train`, `validation`) are what training may use."""

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        if (self.hub is None) == (self.file is None):
            raise ValueError("give either hub or file")
        if "test" not in self.splits:
            raise ValueError("a split named test is needed")
        return self


class Wording(Content):
    """A system prompt's text and where it was published."""

    system: str = Field(min_length=1)
    source: str


class Configuration(Content):
    """A system prompt and the behaviour that it asks for."""

    behaviour: str
    wordings: dict[str, Wording] = Field(default_factory=dict)
    """The same request in the words of different sources; the task's `wording` picks one."""
    system_column: str | None = None
    """Column with a system prompt for each row (personas), in place of wordings."""
    paraphrases: list[str] = Field(default_factory=list)
    """Further wordings, for training only."""

    @model_validator(mode="after")
    def _one_origin(self) -> Configuration:
        if bool(self.wordings) == (self.system_column is not None):
            raise ValueError("give either wordings or system_column")
        return self


class Settings(Content):
    """How responses are generated. Temperature 0 is greedy."""

    max_tokens: Annotated[int, Field(ge=1)]
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0


class ComplianceTask(Content):
    """A compliance task: every prompt is run under every configuration, and under no system prompt as a reference."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    version: Annotated[int, Field(ge=1)]
    title: str
    description: str
    source: str
    judge: str
    """Name of a judge, or path to a judge file (relative to the task file)."""
    wording: str
    """The wording that is used when the user names none."""
    configurations: dict[str, Configuration] = Field(min_length=1)
    generation: Settings
    data: Data
    changelog: dict[int, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names(self) -> ComplianceTask:
        taken = _RESERVED & set(self.configurations)
        if taken:
            raise ValueError(f"a configuration can't be called {taken.pop()}")
        known = self.known_wordings()
        if known and self.wording not in known:
            raise ValueError(f"wording {self.wording!r} is in no configuration: {did_you_mean(self.wording, known)}")
        return self

    @property
    def asked(self) -> dict[str, str]:
        """The behaviour that each configuration asks for."""
        return {name: configuration.behaviour for name, configuration in self.configurations.items()}

    def known_wordings(self) -> set[str]:
        """All wordings that some configuration has."""
        return {wording for configuration in self.configurations.values() for wording in configuration.wordings}

    def system_prompt(self, configuration: str, wording: str, row: dict[str, str]) -> str:
        """The system prompt of a configuration, from the row or in a wording.

        A configuration without that wording keeps the task's default one, so that a wording published for one
        configuration alone can be used.
        """
        chosen = self.configurations[configuration]
        if chosen.system_column is not None:
            return row[chosen.system_column]
        found = chosen.wordings.get(wording) or chosen.wordings.get(self.wording)
        return (found or next(iter(chosen.wordings.values()))).system


def load_task(name: str) -> tuple[ComplianceTask, Path]:
    """A compliance task by name or path, and the file it stands in.

    Raises:
        UserError: unknown name, or a fault in the file.
    """
    path = content.find(FOLDER, name, "compliance task")
    return content.load(path, ComplianceTask), path


def check_wording(task: ComplianceTask, wording: str | None) -> str:
    """The wording to use.

    Raises:
        UserError: the task has no such wording.
    """
    if wording is None:
        return task.wording
    if wording not in task.known_wordings():
        raise UserError(f"task {task.name} has no wording {wording!r}: {did_you_mean(wording, task.known_wordings())}")
    return wording


def check_judge(judge: Judge, task: str, asked: Iterable[str], fields: Iterable[str]) -> None:
    """Sees to it that a judge can judge a task that asks for these behaviours and hands it these fields.

    Raises:
        UserError: it doesn't know one of the behaviours, or needs another field.
    """
    asked, fields = sorted(set(asked)), list(fields)
    if not set(asked) <= set(judge.behaviours):
        raise UserError(
            f"judge {judge.name} knows {', '.join(judge.behaviours)}, and can't judge task {task}, "
            f"which asks for {', '.join(asked)}"
        )
    missing = sorted(judge.fields - set(fields))
    if missing:
        raise UserError(
            f"judge {judge.name} needs the field {missing[0]!r}, which task {task} doesn't hand to its judge: "
            f"{did_you_mean(missing[0], fields)}"
        )
