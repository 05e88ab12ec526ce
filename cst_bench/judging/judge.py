"""The judge interface: a judge reads a `Case` and returns a `Verdict`.

A case has no configuration and no system prompt, so the judge is blind to what the model was asked to do. A verdict is
one of the judge's behaviours, `neither`, or unscored with a reason; an unscored verdict is never counted as 0 or 1.
A judge that cannot answer for one case returns an unscored verdict; one that cannot answer at all raises.
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field, JsonValue

from cst_bench.content import Content
from cst_bench.errors import Interrupted, UserError
from cst_bench.record import JudgeRecord, Spent

NEITHER = "neither"
"""The response exists and shows none of the behaviours: scored, and never compliant."""
EMPTY = "empty response"
"""Why a response without text is unscored, by every judge: there is nothing to judge."""
ASKED_AGAIN = "asked again, for want of a verdict"
"""Note on a verdict that took two calls."""
REASONING_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""What `reasoning_effort` can be."""


@dataclass(frozen=True)
class Case:
    """A prompt and a response to judge."""

    prompt: str
    response: str
    fields: dict[str, str] = field(default_factory=dict)
    """Columns of the row that the judge's rules or prompt refer to, such as the persona's name. Data, never
    instructions."""


@dataclass(frozen=True)
class JudgeCall:
    """Tokens and cost of the model call behind one verdict."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    """US dollars; None if the price is not known."""
    cached: bool = False
    """The answer came from the cache; tokens and cost are those of the original call."""
    notes: tuple[str, ...] = ()
    """What else is to be known of it, such as `ASKED_AGAIN`."""


@dataclass(frozen=True)
class Verdict:
    """A judge's answer: a behaviour, or None with the reason why the response is unscored."""

    behaviour: str | None
    reason: str | None = None
    probabilities: Mapping[str, float] | None = None
    """Behaviour → probability; None if the judge gives none."""
    call: JudgeCall | None = None
    """None for judges that call no model."""


class JudgeUnavailable(Interrupted):
    """The judge could not be reached for some cases. Its other verdicts are cached; the same command asks the rest."""


@dataclass(frozen=True)
class JudgeOptions:
    """Settings of a judge that a user can give besides its name."""

    model: str | None = None
    """Model to use instead of the judge file's: an Inspect model name, or a checkpoint for a guard."""
    base_url: str | None = None
    """OpenAI-compatible endpoint to use instead of the provider's own."""
    connections: int | None = None
    """Concurrent calls."""
    max_tokens: int | None = None
    """Most tokens of a judge model's answer, thoughts included; the judge file's if None."""
    reasoning_effort: str | None = None
    """How much a judge model that reasons is to think, one of `REASONING_EFFORTS`; the provider's default if None."""
    cache: Path | None = None
    """Folder for the cache of judge calls; the user's cache folder if None."""

    def __post_init__(self) -> None:
        effort = self.reasoning_effort
        if effort is not None and effort not in REASONING_EFFORTS:
            raise UserError(f"reasoning_effort must be one of {', '.join(REASONING_EFFORTS)}, not {effort!r}")
        if self.max_tokens is not None and self.max_tokens < 16:
            raise UserError(f"max_tokens must be at least 16, not {self.max_tokens}")

    def require_no_model(self, judge: str) -> None:
        """Check that the options name neither a model nor an endpoint, for a judge that asks none.

        Raises:
            UserError: they do.
        """
        if self.model is not None or self.base_url is not None:
            raise UserError(f"judge {judge} asks no model: it takes neither a model nor an endpoint")


class JudgeFile(Content):
    """Keys that the judge files of every kind have."""

    name: str
    """Name in reports."""
    version: Annotated[int, Field(ge=1)]
    """Version; increased by every change that changes verdicts."""
    kind: str
    """Kind of judge; decides which other keys the file has."""
    description: str
    """What the judge decides and by what, in a sentence."""
    behaviours: list[str] | dict[str, str]
    """Behaviours that a verdict can name, besides `neither`."""
    changelog: dict[int, str] = Field(default_factory=dict)
    """Version → what changed."""


class Judge(Protocol):
    """Returns one verdict per case, in order."""

    name: str
    version: int
    kind: str
    behaviours: tuple[str, ...]
    fields: frozenset[str]
    """Fields that every case must have."""
    identity: str
    """SHA-256 of everything that decides a verdict; a judge with another identity is another judge."""
    details: Mapping[str, JsonValue]
    """Further facts for the manifest, such as the model that is asked. Holds no key."""

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        """Return the verdicts on responses, in order; call `count` with the number of verdicts that were added.

        Raises:
            JudgeUnavailable: some verdicts could not be obtained; the next call finds the others in the cache.
            UserError: the judge cannot work as it is configured.
        """
        ...


def ask(judge: Judge, cases: Sequence[Case], count: Callable[[int], None] | None = None) -> list[Verdict]:
    """Return a judge's verdicts to a caller that is not asynchronous; works inside a running event loop (a notebook).

    Raises:
        JudgeUnavailable: as `Judge.judge`.
        UserError: as `Judge.judge`.
    """

    def run() -> list[Verdict]:
        return asyncio.run(judge.judge(cases, count or ignore_progress))

    if not _in_event_loop():
        return run()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def describe_judge(judge: Judge, source: str) -> JudgeRecord:
    """Return the record of a judge: enough to recognize it, and to load it again from `source` (a name or a path)."""
    return JudgeRecord(
        name=judge.name,
        version=judge.version,
        kind=judge.kind,
        sha256=judge.identity,
        source=source,
        details=dict(judge.details),
    )


def total_spent(verdicts: Sequence[Verdict]) -> Spent | None:
    """Return the calls, tokens and cost behind verdicts; None if no model was called.

    Cached calls are counted, and left out of the tokens and the cost: they were paid for before.
    """
    calls = [verdict.call for verdict in verdicts if verdict.call is not None]
    if not calls:
        return None
    new = [call for call in calls if not call.cached]
    return Spent(
        calls=len(new) + sum(ASKED_AGAIN in call.notes for call in new),
        cached=len(calls) - len(new),
        input_tokens=sum(call.input_tokens for call in new),
        output_tokens=sum(call.output_tokens for call in new),
        cost_usd=sum_costs(new),
        notes=dict(sorted(Counter(note for call in calls for note in call.notes).items())),
    )


def sum_costs(calls: Sequence[JudgeCall]) -> float | None:
    """Return the cost of calls in US dollars; None if one has no known price."""
    costs = [call.cost_usd for call in calls if call.cost_usd is not None]
    return sum(costs) if len(costs) == len(calls) else None


_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def visible(text: str) -> str:
    """Return a text without terminal escapes, control characters and zero-width characters.

    Judges that compare characters read this, so that invisible characters cannot hide a word from them.
    """
    shown = _ESCAPES.sub("", text)
    return "".join(
        character for character in shown if character in "\n\t\r" or unicodedata.category(character) not in ("Cc", "Cf")
    )


def ignore_progress(steps: int) -> None:
    """Ignore progress: a `count` for callers that show none."""
