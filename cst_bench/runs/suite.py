"""The schema of a suite file: which compliance and capability tasks are run together, and what is averaged."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from cst_bench import content
from cst_bench.content import Content

FOLDER = "tasks/suites"


class Suite(Content):
    """A list of compliance tasks and capability tasks, by name or path."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]+$")
    """Name for `--suite`; part of the run folder's name."""
    version: Annotated[int, Field(ge=1)]
    """Version; increased by every change that changes results."""
    title: str
    """Name in reports."""
    compliance: list[str] = Field(default_factory=list)
    """Compliance tasks, by name or by path relative to where the command is started."""
    capabilities: list[str] = Field(default_factory=list)
    """Capability tasks, likewise."""
    average: list[str] = Field(default_factory=list)
    """The configurations whose scores the compliance average is over."""
    changelog: dict[int, str] = Field(default_factory=dict)
    """Version → what changed."""

    @model_validator(mode="after")
    def _something(self) -> Suite:
        if not self.compliance and not self.capabilities:
            raise ValueError("a suite needs at least one task")
        return self


def load_suite(name: str) -> Suite:
    """Load a suite by name or path.

    Raises:
        UserError: the name is unknown, or the file is invalid.
    """
    return content.load(content.find(FOLDER, name, "suite"), Suite)
