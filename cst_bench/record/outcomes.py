"""`outcomes.json`: what every response and every document came to, so that runs can be compared pair by pair.

It holds no text. Prompts are named by their hash, documents by (sub)task and number.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from cst_bench.record.record_file import Record, RecordFile
from cst_bench.record.side_effects import SideEffectName


class DocumentScores(Record):
    """Scores of a capability task's documents."""

    documents_sha256: str
    """SHA-256 of the documents and of their prompts with shots."""
    scores: dict[str, float]
    """Document → score in the task's metric."""


class ConfigurationLabels(Record):
    """Labels by people of the responses under a configuration."""

    shown: dict[str, bool | None]
    """Prompt id → whether its response does what was asked, by most of its labellers; null is unsure."""
    drawn_from: dict[str, str] = Field(default_factory=dict)
    """Prompt id → class of verdict that its response was drawn from, for all prompts; empty if all were drawn alike."""


class Outcomes(RecordFile):
    """The content of `outcomes.json`."""

    FILE_NAME: ClassVar[str] = "outcomes.json"
    WRITTEN_BY: ClassVar[str] = "`cst-bench judge {folder}` writes it again"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of this format."""
    compliance: dict[str, dict[str, dict[str, str | tuple[str | None, ...] | None]]]
    """Task → configuration (`none`: no system prompt) → prompt id → behaviour, or a list of those of several responses,
    by wording and number; null is unscored."""
    capabilities: dict[str, DocumentScores]
    """Capability task → scores of its documents."""
    labels: dict[str, dict[str, ConfigurationLabels]] = Field(default_factory=dict)
    """Task → configuration → labels by people."""
    side_effects: dict[str, dict[str, dict[SideEffectName, dict[str, float]]]] = Field(default_factory=dict)
    """Task → configuration (`none`: no system prompt) → measure → prompt id → mean over its responses; prompts without
    a value are left out."""

    def write(self, folder: Path, *, compact: bool = True) -> None:
        """Write the file into a folder, on one line by default: it has a value for every response."""
        super().write(folder, compact=compact)
