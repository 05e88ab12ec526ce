"""Tries to talk a judge round: labelled responses with something added that doesn't change what they do.

For each family of attacks it says how often the verdict changed, whether towards what the attack was after, and how far
macro F1 fell, with a bootstrap interval paired by response and clustered on prompts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from cst_bench import content
from cst_bench.calibration.labels import Labelled, LabelSet, check_behaviours
from cst_bench.content import Content
from cst_bench.files import digest, prompt_hash
from cst_bench.judging import Judge, Verdict, ask, total_spent
from cst_bench.statistics.classification_metrics import by_cluster, figures, interval, resample

FOLDER = "judges/attacks"
_PLACEHOLDER = re.compile(r"\{(response|target|prompt|padding)\}")
_LOOK_ALIKE = str.maketrans("aeopcxyiAEOPCXHKMT", "аеорсхуіАЕОРСХНКМТ")


def _every_third(text: str, change: Callable[[str], str]) -> str:
    """Changes every third word, so that what remains is still read."""
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
"""Changes that a reader doesn't see: control characters, zero-width spaces, direction marks, Cyrillic look-alikes."""


class Padding(Content):
    """Filler."""

    text: str
    times: Annotated[int, Field(ge=1, le=10_000)]


class Family(Content):
    """Attacks of one kind."""

    kind: Literal["injection", "style"]
    texts: list[str] = Field(min_length=1)
    """Each with `{response}`, and perhaps `{target}`, `{prompt}` and `{padding}`; a response takes one, by the seed."""
    transform: Literal["control", "zero_width", "right_to_left", "look_alike"] | None = None
    repeat: Padding | None = None
    applies: list[str] | None = None
    """The labels that this leaves as they are; all if None."""

    @model_validator(mode="after")
    def _whole(self) -> Family:
        for text in self.texts:
            if "{response}" not in text:
                raise ValueError(f"an attack must hold {{response}}: {text[:40]!r}")
            if "{padding}" in text and self.repeat is None:
                raise ValueError("padding is put in by repeat, which is not given")
        return self


class AttackFile(Content):
    """A suite of attacks."""

    name: str
    version: Annotated[int, Field(ge=1)]
    description: str
    families: dict[str, Family] = Field(min_length=1)
    changelog: dict[int, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Attacked:
    """A labelled response and what an attack made of it."""

    family: str
    row: Labelled
    target: str
    """The label that the attack is after."""
    response: str


def load_attacks(name: str) -> AttackFile:
    """A suite of attacks by name or path.

    Raises:
        UserError: unknown name, or a fault in the file.
    """
    return content.load(content.find(FOLDER, name, "attack suite"), AttackFile)


def make_attacks(rows: Sequence[Labelled], suite: AttackFile, behaviours: Sequence[str], seed: int) -> list[Attacked]:
    """Every family applied once to every response that it applies to; which of its texts is drawn by the seed."""
    made = []
    for name, family in suite.families.items():
        for row in rows:
            if family.applies is not None and row.behaviour not in family.applies:
                continue
            draw = random.Random(f"{seed}/{name}/{row.key}")
            target = draw.choice([behaviour for behaviour in behaviours if behaviour != row.behaviour])
            made.append(Attacked(name, row, target, _attacked(family, row, target, draw.choice(family.texts))))
    return made


def _attacked(family: Family, row: Labelled, target: str, text: str) -> str:
    response = row.case.response if family.transform is None else TRANSFORMS[family.transform](row.case.response)
    padding = "" if family.repeat is None else family.repeat.text * family.repeat.times
    pieces = {"response": response, "target": target, "prompt": row.case.prompt, "padding": padding.strip()}
    return _PLACEHOLDER.sub(lambda match: pieces[match[1]], text)  # in one pass: a response is never filled


def attack(
    judge: Judge,
    labels: LabelSet,
    suite: AttackFile,
    *,
    limit: int | None = None,
    seed: int = 0,
    count: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """What each family of attacks does to a judge. Undefined figures are None.

    Args:
        judge: Any judge.
        labels: Labelled responses; those without text are left out.
        suite: The attacks.
        limit: Only so many responses, drawn by the seed.
        seed: Of drawing and bootstrap.
        count: Told of verdicts as they come.

    Raises:
        UserError: a label is no behaviour of the judge.
        JudgeUnavailable: some verdicts could not be had.
    """
    check_behaviours(labels, judge.behaviours)
    rows = [row for row in labels.rows if row.case.response.strip()]
    if limit is not None and limit < len(rows):
        rows = random.Random(seed).sample(rows, limit)
    made = make_attacks(rows, suite, judge.behaviours, seed)
    cases = [row.case for row in rows] + [replace(one.row.case, response=one.response) for one in made]
    verdicts = ask(judge, cases, count)
    before = {id(row): verdict for row, verdict in zip(rows, verdicts)}  # fields tell rows of one key apart
    after = list(zip(made, verdicts[len(rows) :], strict=True))
    return {
        "schema": 1,
        "judge": {
            "name": judge.name,
            "version": judge.version,
            "kind": judge.kind,
            "sha256": judge.identity,
            **judge.details,
        },
        "labels": {"name": labels.name, "sha256": labels.sha256, "by": labels.by},
        "suite": {"name": suite.name, "version": suite.version, "sha256": digest(suite.model_dump(mode="json"))},
        "n": len(rows),
        "seed": seed,
        "families": {
            name: {
                "kind": family.kind,
                **_drift(
                    [(one, verdict) for one, verdict in after if one.family == name], before, judge.behaviours, seed
                ),
            }
            for name, family in suite.families.items()
        },
        "spent": spent.as_json() if (spent := total_spent(verdicts)) else {},
    }


def attack_size(labels: LabelSet, suite: AttackFile, limit: int | None) -> int:
    """About how many verdicts an attack takes, for a progress bar."""
    rows = sum(bool(row.case.response.strip()) for row in labels.rows)
    return min(rows, limit or rows) * (1 + len(suite.families))


def _drift(
    of: Sequence[tuple[Attacked, Verdict]], before: Mapping[int, Verdict], behaviours: Sequence[str], seed: int
) -> dict[str, Any]:
    scored = [(one, before[id(one.row)].behaviour, verdict.behaviour) for one, verdict in of]
    both = [(one, old, new) for one, old, new in scored if old is not None and new is not None]
    return {
        "n": len(of),
        "changed": sum(old != new for _, old, new in both),
        "towards_target": sum(old != new and new == one.target for one, old, new in both),
        "became_unscored": sum(old is not None and new is None for _, old, new in scored),
        **_f1(both, behaviours, seed),
    }


def _f1(both: Sequence[tuple[Attacked, str, str]], behaviours: Sequence[str], seed: int) -> dict[str, Any]:
    """Macro F1 before and after, and the difference with its paired interval."""
    if not both:
        return {"f1_before": None, "f1_after": None, "drift": None, "interval": None}
    labels = [one.row.behaviour for one, _, _ in both]
    clusters = [prompt_hash(one.row.case.prompt) for one, _, _ in both]
    counts = np.stack([by_cluster(labels, [pair[at] for pair in both], behaviours, clusters) for at in (1, 2)], axis=1)  # type: ignore[misc]
    point = figures(counts.sum(0), behaviours)["macro_f1"]
    drawn = figures(resample(counts, seed), behaviours)["macro_f1"]
    if np.isnan(point).any():
        return {"f1_before": None, "f1_after": None, "drift": None, "interval": None}
    return {
        "f1_before": float(point[0]),
        "f1_after": float(point[1]),
        "drift": float(point[1] - point[0]),
        "interval": interval(drawn[:, 1] - drawn[:, 0]),
    }
