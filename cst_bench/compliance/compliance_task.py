"""Schema of a compliance task file: a data set, its configurations, the judge of its behaviours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from cst_bench import content
from cst_bench.content import Content
from cst_bench.errors import UserError, did_you_mean
from cst_bench.files import digest

FOLDER = "tasks/compliance"
REFERENCE = "none"
"""Name of the reference: every prompt once more with no system prompt, described and never scored."""
_RESERVED = {"joint", "reference", REFERENCE}
ALL_WORDINGS = "all"
"""Stands for a task's unseen wordings."""


class Selector(Content):
    """Conditions for a row to belong to a split; all that are given must hold."""

    where: dict[str, str] = Field(default_factory=dict)
    """Column → the value it must have."""
    unless: dict[str, str] = Field(default_factory=dict)
    """Column → a value it must not have."""
    listed_in: str | None = None
    """File of prompt hashes (`cst_bench.files.prompt_hash`), relative to the task file, that lists the prompt."""
    not_listed_in: str | None = None
    """File of prompt hashes that does not list the prompt."""
    hash_range: tuple[float, float] | None = None
    """Half-open range [low, high) of the prompt's hash as a share of all hashes."""


class Data(Content):
    """Source of the rows (a Hub data set or a file) and their columns."""

    hub: str | None = None
    """Data set id on the Hugging Face Hub."""
    revision: str | None = None
    """Branch, tag or commit of the Hub data set; the newest if None."""
    subset: str | None = None
    """Configuration of the Hub data set, where it has several."""
    hub_split: str = "train"
    """Split of the Hub data set; `train+test` concatenates two."""
    file: str | None = None
    """Data file, relative to the task file."""
    local_names: list[str] = Field(default_factory=list)
    """Names of the data in a folder of local data, beside the task's."""
    prompt: str = "prompt"
    """Column with the user prompt."""
    fields: list[str] = Field(default_factory=list)
    """Columns passed to the judge as data (`tool`, `name`, …)."""
    splits: dict[str, Selector] = Field(default_factory=lambda: {"test": Selector()})
    """`test` is for reporting, `validation` for model selection, `train` for training."""

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        if (self.hub is None) == (self.file is None):
            raise ValueError("give either hub or file")
        if "test" not in self.splits:
            raise ValueError("a split named test is needed")
        return self


class Wording(Content):
    """Text of a system prompt and where it was published."""

    system: str = Field(min_length=1)
    """Text of the system prompt."""
    source: str
    """Where the text was published."""


class Configuration(Content):
    """System prompt and the behaviour it asks for."""

    behaviour: str
    """Behaviour that the system prompt asks for, one of the judge's."""
    wordings: dict[str, Wording] = Field(default_factory=dict)
    """Name of a source → the system prompt in that source's words; the task's `wording` is the default."""
    system_column: str | None = None
    """Column with a system prompt per row (personas), instead of wordings."""
    paraphrases: list[str] = Field(default_factory=list)
    """Additional wordings, for training only."""

    @model_validator(mode="after")
    def _one_origin(self) -> Configuration:
        if bool(self.wordings) == (self.system_column is not None):
            raise ValueError("give either wordings or system_column")
        return self


class GenerationSettings(Content):
    """Sampling settings of the responses; temperature 0 is greedy."""

    max_tokens: Annotated[int, Field(ge=1)]
    """Most tokens of a response."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Sampling temperature; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of probability that is sampled from."""


class ComplianceTask(Content):
    """Compliance task: every prompt runs under every configuration, and with no system prompt as a reference."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    """Name for `--task`, in the run folder and in scores.json."""
    version: Annotated[int, Field(ge=1)]
    """Version; increased by every change that changes results."""
    title: str
    """Name in reports."""
    description: str
    """Sentence on what the task measures."""
    source: str
    """Where prompts and wordings come from."""
    judge: str
    """Name of a judge, or path to a judge file, relative to the task file."""
    judge_without_key: str | None = None
    """Judge to use where the one above asks a model whose key is not set."""
    wording: str
    """Default wording."""
    unseen_wordings: list[str] = Field(default_factory=list)
    """Wordings that are never trained on; every configuration with wordings has each of them."""
    configurations: dict[str, Configuration] = Field(min_length=1)
    """Id (S1, S0, …) → system prompt and the behaviour that it asks for."""
    generation: GenerationSettings
    """Sampling settings."""
    ordinary: bool = False
    """Its prompts are ordinary requests, on which the KL divergence from a base is measured (`--kl-base`)."""
    data: Data
    """Prompts."""
    changelog: dict[int, str] = Field(default_factory=dict)
    """Version → what changed."""

    @model_validator(mode="after")
    def _names(self) -> ComplianceTask:
        reserved = _RESERVED & set(self.configurations)
        if reserved:
            raise ValueError(f"a configuration cannot be called {reserved.pop()}")
        known = self.known_wordings()
        if known and self.wording not in known:
            raise ValueError(f"wording {self.wording!r} is in no configuration: {did_you_mean(self.wording, known)}")
        if ALL_WORDINGS in known:
            raise ValueError(f"a wording cannot be called {ALL_WORDINGS}")
        for name, configuration in self.configurations.items():
            missing = [wording for wording in self.unseen_wordings if wording not in configuration.wordings]
            if configuration.wordings and missing:
                raise ValueError(f"unseen wording {missing[0]!r} is missing in configuration {name}")
        return self

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of what decides its scores; a judge that is used is recorded by itself."""
        content = self.model_dump(
            mode="json", exclude={"judge_without_key": True, "ordinary": True, "data": {"local_names"}}
        )
        return digest(content)

    @property
    def asked(self) -> dict[str, str]:
        """Return the behaviour each configuration asks for."""
        return {name: configuration.behaviour for name, configuration in self.configurations.items()}

    def known_wordings(self) -> set[str]:
        """Return the wordings that at least one configuration has."""
        return {wording for configuration in self.configurations.values() for wording in configuration.wordings}

    def system_prompt(self, name: str, wording: str, row: Mapping[str, str]) -> str:
        """Return the system prompt of a configuration, from the row or in a wording.

        A configuration without that wording uses the task's default, so that a wording published for only one
        configuration can be chosen.
        """
        configuration = self.configurations[name]
        if configuration.system_column is not None:
            return row[configuration.system_column]
        wordings = configuration.wordings
        chosen = wordings.get(wording) or wordings.get(self.wording) or next(iter(wordings.values()))
        return chosen.system

    def configuration_of(self, system: str, row: Mapping[str, str] | None = None, *, unseen: bool = True) -> str | None:
        """Return the configuration that a system prompt belongs to, or None if there is none or more than one.

        Compares with every wording and paraphrase, ignoring differences in whitespace.

        Args:
            system: The system prompt.
            row: Columns of the prompt's row, to compare with the personas in `system_column` as well.
            unseen: Compare with the task's unseen wordings as well.
        """
        text = _folded(system)
        matches = [name for name in self.configurations if text in self._system_prompts(name, row or {}, unseen)]
        return matches[0] if len(matches) == 1 else None

    def _system_prompts(self, name: str, row: Mapping[str, str], unseen: bool) -> set[str]:
        configuration = self.configurations[name]
        wordings = [w.system for key, w in configuration.wordings.items() if unseen or key not in self.unseen_wordings]
        texts = [*wordings, *configuration.paraphrases]
        column = configuration.system_column
        if column is not None and column in row:
            texts.append(row[column])
        return set(map(_folded, texts))


def _folded(text: str) -> str:
    return " ".join(text.split())


def load_task(name: str) -> tuple[ComplianceTask, Path]:
    """Load a compliance task by name or path; return it with the path of its file.

    Raises:
        UserError: The name is unknown, or the file is invalid.
    """
    path = content.find(FOLDER, name, "compliance task")
    return content.load(path, ComplianceTask), path


def check_wording(task: ComplianceTask, wording: str | None) -> str:
    """Return the wording to train with: the task's default if None.

    Raises:
        UserError: The task has no such wording, or it is one that is never trained on.
    """
    if wording is None:
        return task.wording
    if wording in task.unseen_wordings:
        raise UserError(f"wording {wording!r} of task {task.name} is for evaluation only: training must not see it")
    if wording not in task.known_wordings():
        raise UserError(f"task {task.name} has no wording {wording!r}: {did_you_mean(wording, task.known_wordings())}")
    return wording


def choose_wordings(task: ComplianceTask, names: Sequence[str]) -> tuple[str, ...]:
    """Return the wordings to evaluate: those named, the task's default if none is, and its unseen ones for `all`.

    Raises:
        UserError: The task has no such wording, or `all` is asked of a task with no unseen wordings.
    """
    if not names:
        return (task.wording,)
    chosen: dict[str, None] = {}
    for name in names:
        if name == ALL_WORDINGS:
            if not task.unseen_wordings:
                listed = ", ".join(sorted(task.known_wordings()))
                raise UserError(f"task {task.name} has no unseen wordings: name some of {listed}")
            chosen |= dict.fromkeys(task.unseen_wordings)
        elif name not in task.known_wordings():
            known = [*sorted(task.known_wordings()), ALL_WORDINGS]
            raise UserError(f"task {task.name} has no wording {name!r}: {did_you_mean(name, known)}")
        else:
            chosen[name] = None
    return tuple(chosen)
