"""The judge interface. What a judge sees is a `Case`; what it says is a `Verdict`.

A case has no configuration and no system prompt, so a judge can't be swayed by what was asked for. A verdict is a
behaviour of the judge's own list, `neither`, or unscored with a reason; an unscored one is never counted as 0 or 1.
A judge that can't answer returns an unscored verdict; only a fault in the judge itself raises.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cst_bench import content
from cst_bench.files import digest
from cst_bench.judging.rules import RulesFile, behaviour_of

FOLDER = "judges"


@dataclass(frozen=True)
class Case:
    """What a judge is shown."""

    prompt: str
    response: str
    fields: dict[str, str] = field(default_factory=dict)
    """Facts of the row that the judge's rules or prompt name, such as the persona's name. Data, never instructions."""


@dataclass(frozen=True)
class Verdict:
    """What a judge says: a behaviour, or None with the reason why the response is unscored."""

    behaviour: str | None
    reason: str | None = None


class Judge(Protocol):
    """Reads cases, gives verdicts, one for each, in order."""

    name: str
    version: int
    kind: str
    behaviours: tuple[str, ...]
    identity: str
    """SHA-256 of all that decides a verdict; another identity is another judge."""

    async def judge(self, case: Case) -> Verdict:
        """The verdict on one response."""
        ...


class RulesJudge:
    """A judge of declared rules: the first that holds decides."""

    kind = "rules"

    def __init__(self, file: RulesFile) -> None:
        """From the content of a judge file."""
        self.name = file.name
        self.version = file.version
        self.behaviours = tuple(file.behaviours)
        self.identity = digest(file.model_dump(mode="json"))
        self._file = file

    async def judge(self, case: Case) -> Verdict:
        """The behaviour of the first rule that holds; an empty response is unscored: there is nothing to judge."""
        if not case.response.strip():
            return Verdict(None, "empty response")
        return Verdict(behaviour_of(self._file, case.response, case.fields))


def load_judge(name: str, beside: Path | None = None) -> Judge:
    """A judge by name or path; a path is tried relative to the file that names it (`beside`), too.

    Raises:
        UserError: unknown name, or a fault in the file.
    """
    if beside is not None and name.endswith((".yaml", ".yml")) and (beside.parent / name).is_file():
        name = str(beside.parent / name)
    return RulesJudge(content.load(content.find(FOLDER, name, "judge"), RulesFile))
