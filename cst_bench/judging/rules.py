"""Judges of kind `rules`: conditions on the text of a response, declared in the judge file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from cst_bench.content import Content
from cst_bench.errors import UserError
from cst_bench.files import digest
from cst_bench.judging.judge import NEITHER, RESERVED, Case, JudgeFile, JudgeOptions, Verdict
from cst_bench.judging.visible_text import visible


class RuleCondition(Content):
    """Condition on a response, with exactly one key. `{field}` is replaced by that field of the row."""

    contains: str | list[str] | None = None
    """Text that the response contains, or a list of alternatives."""
    matches: str | None = None
    """Regular expression that is found in the response; fields are filled in as literal text."""
    all: list[RuleCondition] | None = None
    """Conditions that all hold."""
    any: list[RuleCondition] | None = None
    """Conditions of which at least one holds."""
    not_: Annotated[RuleCondition | None, Field(alias="not")] = None
    """Condition that does not hold."""

    @model_validator(mode="after")
    def _one_key(self) -> RuleCondition:
        keys = [name for name in self.model_fields_set if getattr(self, name) is not None]
        if len(keys) != 1 or len(self.model_fields_set) != 1:
            raise ValueError("a condition has exactly one of contains, matches, all, any, not")
        if self.matches is not None:
            try:
                re.compile(_PLACEHOLDER.sub(_literal("x"), self.matches))
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return self


class Rule(Content):
    """A behaviour, and the condition under which a response shows it."""

    behaviour: str
    """Verdict if the condition holds; may be `neither` or `incapable`."""
    when: RuleCondition
    """Condition on the response."""


class RulesFile(JudgeFile):
    """Judge file of kind `rules`."""

    kind: Literal["rules"]
    """Decides by conditions on the text."""
    behaviours: list[str] = Field(min_length=1)
    """Behaviours that a rule can name, besides `neither` and `incapable`."""
    ignore_case: bool = False
    """Compare text without regard to case."""
    first_characters: Annotated[int, Field(ge=1)] | None = None
    """Number of characters of the response to read; all of them if None."""
    rules: list[Rule]
    """Rules in order; the first that holds decides."""
    otherwise: str = NEITHER
    """Behaviour if no rule holds."""

    @model_validator(mode="after")
    def _known_behaviours(self) -> RulesFile:
        for behaviour in (self.otherwise, *(rule.behaviour for rule in self.rules)):
            if behaviour not in (*self.behaviours, *RESERVED):
                raise ValueError(f"behaviour {behaviour!r} is not among {self.behaviours}")
        return self


class RulesJudge:
    """Judge that decides by the first of its rules that holds."""

    kind = "rules"
    details: Mapping[str, JsonValue] = {}

    def __init__(self, file: RulesFile) -> None:
        """Create the judge from the content of its file."""
        self.name = file.name
        self.version = file.version
        self.behaviours = tuple(file.behaviours)
        self.fields = frozenset(field for rule in file.rules for field in _fields(rule.when))
        self.reserved = file.reserved([file.otherwise, *(rule.behaviour for rule in file.rules)])
        self.identity = digest(file.deciding())
        self._file = file

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        """Return the behaviour of the first rule that holds."""
        verdicts = [Verdict(behaviour_of(self._file, visible(case.response), case.fields)) for case in cases]
        count(len(verdicts))
        return verdicts


FILE_MODEL = RulesFile


def make(file: RulesFile, path: Path, options: JudgeOptions) -> RulesJudge:
    """Return the judge that a file defines.

    Raises:
        UserError: the options name a model, and rules ask none.
    """
    options.require_no_model(file.name)
    return RulesJudge(file)


def behaviour_of(file: RulesFile, response: str, fields: Mapping[str, str]) -> str:
    """Return the behaviour of the first rule that holds.

    Raises:
        UserError: a rule refers to a field that the row doesn't have.
    """
    text = response if file.first_characters is None else response[: file.first_characters]
    for rule in file.rules:
        if _holds(rule.when, text, fields, file.ignore_case):
            return rule.behaviour
    return file.otherwise


# Only a lower-case name in braces is a field, so that `{2,3}` in a regular expression stays what it is.
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def _literal(text: str) -> str:
    """Return a pattern for literal text; a group, so that a quantifier after it applies to all of it."""
    return f"(?:{re.escape(text)})"


def _fill(template: str, fields: Mapping[str, str], escape: Callable[[str], str] = str) -> str:
    """Fill in fields, in one pass: a value that looks like a placeholder is not filled again."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in fields:
            raise UserError(
                f"a judge's rule refers to the field {match[1]!r}, which the row doesn't have: {sorted(fields)}"
            )
        return escape(fields[match[1]])

    return _PLACEHOLDER.sub(value, template)


def _holds(condition: RuleCondition, text: str, fields: Mapping[str, str], ignore_case: bool) -> bool:
    if condition.contains is not None:
        alternatives = [condition.contains] if isinstance(condition.contains, str) else condition.contains
        haystack = text.casefold() if ignore_case else text
        needles = (_fill(alternative, fields) for alternative in alternatives)
        return any((needle.casefold() if ignore_case else needle) in haystack for needle in needles)
    if condition.matches is not None:
        flags = re.IGNORECASE if ignore_case else 0
        return re.search(_fill(condition.matches, fields, _literal), text, flags) is not None
    if condition.all is not None:
        return all(_holds(part, text, fields, ignore_case) for part in condition.all)
    if condition.any is not None:
        return any(_holds(part, text, fields, ignore_case) for part in condition.any)
    assert condition.not_ is not None
    return not _holds(condition.not_, text, fields, ignore_case)


def _fields(condition: RuleCondition) -> Iterator[str]:
    """Yield the fields that a condition refers to."""
    texts = [condition.contains] if isinstance(condition.contains, str) else condition.contains or []
    for text in (*texts, *([condition.matches] if condition.matches else [])):
        yield from _PLACEHOLDER.findall(text)
    for part in (*(condition.all or ()), *(condition.any or ()), *([condition.not_] if condition.not_ else ())):
        yield from _fields(part)
