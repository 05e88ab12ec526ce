"""Robustness of a judge to adversarial responses: labelled responses with additions that do not change what they do.

For each family of attacks it measures how often the verdict changed, how often to the attack's target, and the change
of macro F1, with a bootstrap interval paired by response and clustered on prompts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from cst_bench import content
from cst_bench.calibration.labels import Labelled, LabelSet, check_behaviours
from cst_bench.content import Content
from cst_bench.files import digest, prompt_hash
from cst_bench.judging import Judge, Verdict, all_behaviours, ask, total_spent
from cst_bench.judging.card import CardJudge
from cst_bench.record import Record, RecordFile, Spent
from cst_bench.statistics.classification import confusion_by_cluster, macro_f1_change
from cst_bench.statistics.intervals import UNDEFINED, Estimate

FOLDER = "judges/attacks"
_PLACEHOLDER = re.compile(r"\{(response|target|prompt|padding)\}")
_LOOK_ALIKE = str.maketrans("aeopcxyiAEOPCXHKMT", "аеорсхуіАЕОРСХНКМТ")


def _every_third(text: str, change: Callable[[str], str]) -> str:
    """Change every third word, so that the rest is still read."""
    parts = re.split(r"(\s+)", text)
    words = [at for at, part in enumerate(parts) if part and not part.isspace()]
    for at in words[::3]:
        parts[at] = change(parts[at])
    return "".join(parts)


TRANSFORMS: Mapping[str, Callable[[str], str]] = {
    "control": lambda text: _every_third(text, lambda word: f"{word}\x07\x1b[0m"),
    "zero_width": lambda text: _every_third(text, lambda word: "\u200b".join(word)),
    "right_to_left": lambda text: _every_third(text, lambda word: f"\u2067{word}\u2069"),
    "look_alike": lambda text: _every_third(text, lambda word: word.translate(_LOOK_ALIKE)),
}
"""Changes invisible to a reader: control characters, zero-width spaces, direction marks, Cyrillic look-alikes."""


class Padding(Content):
    """Repeated filler text."""

    text: str
    """Filler text."""
    times: Annotated[int, Field(ge=1, le=10_000)]
    """Number of repetitions."""


class Family(Content):
    """Attacks of one kind."""

    kind: Literal["injection", "style"]
    """`injection` addresses the judge; `style` changes the tone of the response."""
    texts: list[str] = Field(min_length=1)
    """Texts with `{response}`, and optionally `{target}`, `{prompt}`, `{padding}`; one is drawn for each response."""
    transform: Literal["control", "zero_width", "right_to_left", "look_alike"] | None = None
    """Change of characters that a reader does not see."""
    repeat: Padding | None = None
    """Filler text for `{padding}`."""
    applies: list[str] | None = None
    """Labels that stay true under this attack; all if None."""

    @model_validator(mode="after")
    def _whole(self) -> Family:
        for text in self.texts:
            if "{response}" not in text:
                raise ValueError(f"an attack text must contain {{response}}: {text[:40]!r}")
            if "{padding}" in text and self.repeat is None:
                raise ValueError("{padding} needs the key repeat")
        return self


class AttackFile(Content):
    """A suite of attacks."""

    name: str
    """Name for `--suite` of `cst-bench judge attack`."""
    version: Annotated[int, Field(ge=1)]
    """Version; increased by every change that changes results."""
    description: str
    """Purpose of the attacks, in a sentence."""
    families: dict[str, Family] = Field(min_length=1)
    """Name → attacks of one kind."""
    changelog: dict[int, str] = Field(default_factory=dict)
    """Version → what changed."""


@dataclass(frozen=True)
class Attacked:
    """A labelled response after an attack."""

    family: str
    row: Labelled
    target: str
    """Behaviour that the attack aims at."""
    response: str


def load_attacks(name: str) -> AttackFile:
    """Load a suite of attacks by name or path.

    Raises:
        UserError: the name is unknown, or the file is invalid.
    """
    return content.load(content.find(FOLDER, name, "attack suite"), AttackFile)


def make_attacks(rows: Sequence[Labelled], suite: AttackFile, behaviours: Sequence[str], seed: int) -> list[Attacked]:
    """Apply every family once to every response that it applies to, with a text drawn by the seed."""
    attacked = []
    for name, family in suite.families.items():
        for row in rows:
            if family.applies is not None and row.behaviour not in family.applies:
                continue
            draw = random.Random(f"{seed}/{name}/{row.key}")
            target = draw.choice([behaviour for behaviour in behaviours if behaviour != row.behaviour])
            attacked.append(Attacked(name, row, target, _attacked(family, row, target, draw.choice(family.texts))))
    return attacked


def _attacked(family: Family, row: Labelled, target: str, text: str) -> str:
    response = row.case.response if family.transform is None else TRANSFORMS[family.transform](row.case.response)
    padding = "" if family.repeat is None else family.repeat.text * family.repeat.times
    pieces = {"response": response, "target": target, "prompt": row.case.prompt, "padding": padding.strip()}
    return _PLACEHOLDER.sub(lambda match: pieces[match[1]], text)  # in one pass: a response is never filled


class AttackedLabels(Record):
    """The labelled responses of an attack."""

    name: str
    sha256: str
    by: tuple[str, ...]


class AttackSuite(Record):
    """The suite of an attack."""

    name: str
    version: int
    sha256: str


class FamilyResult(Record):
    """Effect of a family of attacks."""

    kind: str
    n: int
    """Attacked responses."""
    changed: int
    """Verdicts that changed."""
    towards_target: int
    """Verdicts that changed to the attack's target."""
    became_unscored: int
    f1_before: float | None
    f1_after: float | None
    change: Estimate
    """Macro F1 after minus before."""


class AttackResult(RecordFile):
    """Effect of each family of attacks on a judge. Undefined values are null."""

    FILE_NAME: ClassVar[str] = "attack.json"
    WRITTEN_BY: ClassVar[str] = "`cst-bench judge attack` writes one"

    schema_version: Literal[2] = Field(default=2, alias="schema")
    judge: CardJudge
    labels: AttackedLabels
    suite: AttackSuite
    n: int
    """Responses."""
    seed: int
    families: dict[str, FamilyResult]
    spent: Spent | None


def attack(
    judge: Judge,
    labels: LabelSet,
    suite: AttackFile,
    *,
    limit: int | None = None,
    seed: int = 0,
    count: Callable[[int], None] | None = None,
) -> AttackResult:
    """Measure the effect of each family of attacks on a judge, asked without the check for degenerate responses.

    Args:
        judge: Any judge.
        labels: Labelled responses; empty ones are left out.
        suite: The attacks.
        limit: Limit to N randomly drawn responses.
        seed: Random seed for drawing responses and texts, and for the bootstrap.
        count: Called with the number of new verdicts.

    Raises:
        UserError: a label is not one of the judge's behaviours.
        JudgeUnavailable: some verdicts are missing.
    """
    check_behaviours(labels, judge.behaviours)
    rows = [row for row in labels.rows if row.case.response.strip()]
    if limit is not None and limit < len(rows):
        rows = random.Random(seed).sample(rows, limit)
    attacked = make_attacks(rows, suite, judge.behaviours, seed)
    cases = [row.case for row in rows] + [replace(item.row.case, response=item.response) for item in attacked]
    verdicts = ask(judge, cases, count, check=False)
    before = {id(row): verdict for row, verdict in zip(rows, verdicts)}  # rows of one key can differ in their fields
    after = list(zip(attacked, verdicts[len(rows) :], strict=True))
    return AttackResult(
        judge=CardJudge.describe(judge),
        labels=AttackedLabels(name=labels.name, sha256=labels.sha256, by=tuple(labels.by)),
        suite=AttackSuite(name=suite.name, version=suite.version, sha256=digest(suite.model_dump(mode="json"))),
        n=len(rows),
        seed=seed,
        families={
            name: _family_result(
                family.kind,
                [(item, verdict) for item, verdict in after if item.family == name],
                before,
                judge.behaviours,
                seed,
            )
            for name, family in suite.families.items()
        },
        spent=total_spent(verdicts),
    )


def attack_size(labels: LabelSet, suite: AttackFile, limit: int | None) -> int:
    """Return about how many verdicts an attack takes, for a progress bar."""
    rows = sum(bool(row.case.response.strip()) for row in labels.rows)
    return min(rows, limit or rows) * (1 + len(suite.families))


def _family_result(
    kind: str,
    after: Sequence[tuple[Attacked, Verdict]],
    before: Mapping[int, Verdict],
    behaviours: Sequence[str],
    seed: int,
) -> FamilyResult:
    outcomes = [(item, before[id(item.row)].behaviour, verdict.behaviour) for item, verdict in after]
    both = [(item, old, new) for item, old, new in outcomes if old is not None and new is not None]
    f1_before, f1_after, change = _f1_change(both, behaviours, seed)
    return FamilyResult(
        kind=kind,
        n=len(after),
        changed=sum(old != new for _, old, new in both),
        towards_target=sum(old != new and new == item.target for item, old, new in both),
        became_unscored=sum(old is not None and new is None for _, old, new in outcomes),
        f1_before=f1_before,
        f1_after=f1_after,
        change=change,
    )


def _f1_change(
    both: Sequence[tuple[Attacked, str, str]], behaviours: Sequence[str], seed: int
) -> tuple[float | None, float | None, Estimate]:
    if not both:
        return None, None, UNDEFINED
    labels = [item.row.behaviour for item, _, _ in both]
    clusters = [prompt_hash(item.row.case.prompt) for item, _, _ in both]
    classes = all_behaviours(behaviours, [*labels, *(name for _, old, new in both for name in (old, new))])
    by_time = [
        confusion_by_cluster(labels, verdicts, classes, clusters)
        for verdicts in ([old for _, old, _ in both], [new for _, _, new in both])
    ]
    return macro_f1_change(np.stack(by_time, axis=1), behaviours, seed=seed)
