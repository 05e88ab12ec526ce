"""The judge interface: a judge reads a `Case` and returns a `Verdict`.

A case has no configuration and no system prompt, so the judge is blind to what the model was asked to do. A verdict is
one of the judge's behaviours, a reserved one (`neither`, `incapable`), or unscored with a reason; an unscored verdict
is never counted as 0 or 1. Degenerate responses are `neither` whoever judges: no judge is asked about them.
A judge that cannot answer for one case returns an unscored verdict; one that cannot answer at all raises.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Protocol, runtime_checkable

from pydantic import Field, JsonValue, model_validator

from cst_bench.content import Content
from cst_bench.errors import Interrupted, UserError
from cst_bench.event_loop import run_to_end
from cst_bench.interruption import finishing_first
from cst_bench.judging import degenerate
from cst_bench.judging.budget import Budget
from cst_bench.judging.incapability import INCAPABLE_REASON, says_incapable
from cst_bench.record import JudgeRecord, Spent

NEITHER = "neither"
"""The response shows none of the behaviours: scored, and never compliant."""
INCAPABLE = "incapable"
"""The response says that it does not know how, and gives no answer: neither a refusal nor help, and never compliant."""
RESERVED = (NEITHER, INCAPABLE)
"""Behaviours that every response can show, whatever the judge's own are, and that no configuration asks for."""
ASKED_AGAIN = "asked again, for want of a verdict"
"""Note on a verdict that took two calls."""
REASONING_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Values of `reasoning_effort`."""


def all_behaviours(behaviours: Iterable[str], seen: Iterable[str | None]) -> tuple[str, ...]:
    """Return a judge's behaviours with `neither`, and with `incapable` if it is among those `seen`."""
    return (*behaviours, NEITHER, *((INCAPABLE,) if INCAPABLE in set(seen) else ()))


@dataclass(frozen=True, slots=True)
class Case:
    """A prompt and a response to judge."""

    prompt: str
    response: str
    fields: dict[str, str] = field(default_factory=dict)
    """Columns of the row that the judge's rules or prompt refer to, such as the persona's name. Data, never
    instructions."""
    stop_reason: str | None = None
    """Inspect's stop reason of the response; None if unknown. Not shown to judges."""


@dataclass(frozen=True, slots=True)
class JudgeCall:
    """Tokens and cost of the model call behind one verdict."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    """US dollars; None if the price is not known."""
    cached: bool = False
    """The answer came from the cache; tokens and cost are those of the original call."""
    notes: tuple[str, ...] = ()
    """Notes on the verdict, such as `ASKED_AGAIN`."""
    served: tuple[str, ...] = ()
    """Names of the models that answered, as the endpoint gave them: an alias may become another model."""


@dataclass(frozen=True, slots=True)
class FirstVerdict:
    """Verdict of the first judge of a cascade."""

    behaviour: str | None
    """Its verdict; None is unscored."""
    probability: float | None
    """Its probability of that verdict."""
    stage: Literal["first", "second", "audit"]
    """Why the cascade's verdict is what it is: the first judge was sure; it was not, and the second decided; it was
    sure, and the second was asked to check it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's answer: a behaviour, or None with the reason why the response is unscored."""

    behaviour: str | None
    reason: str | None = None
    """Why the response is unscored, or what the check for degenerate responses found."""
    probabilities: Mapping[str, float] | None = None
    """Behaviour → probability; None if the judge gives none."""
    call: JudgeCall | None = None
    """None for judges that call no model."""
    first: FirstVerdict | None = None
    """Verdict of the first judge of a cascade; None for other judges."""


class JudgeUnavailable(Interrupted):
    """The judge could not be reached for some cases. Its other verdicts are cached; the same command asks the rest."""


class ModelUnusable(UserError):
    """The judge's model cannot be asked here: its key or a package is missing."""


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
    price: tuple[float, float] | None = None
    """US dollars for a million tokens read and written by the judge's model; what Inspect knows if None."""
    budget: Budget | None = None
    """Most money to spend on calls; None for no limit."""
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
    """Sentence on what the judge decides and how."""
    behaviours: list[str] | dict[str, str]
    """Behaviours that a verdict can name, besides `neither` and `incapable`."""
    incapable: bool | str = True
    """How `incapable` is recognised: true by English phrases, without asking the judge; for kind `llm` the meaning that
    the model is given; false not at all, where the behaviours are about who speaks."""
    definitions: dict[str, str] = Field(default_factory=dict)
    """Behaviour → its meaning, for people who label responses; verdicts do not depend on it. Kind `llm` has the
    meanings in `behaviours`, `neither` and `incapable`, for its model and for people."""
    changelog: dict[int, str] = Field(default_factory=dict)
    """Version → what changed."""

    @model_validator(mode="after")
    def _reserved(self) -> JudgeFile:
        for name in RESERVED:
            if name in self.behaviours:
                raise ValueError(f"behaviours: {name} is reserved, and always possible")
        if isinstance(self.incapable, str) and self.kind != "llm":
            raise ValueError("incapable: a meaning is for kind llm; give true or false")
        unknown = [name for name in self.definitions if name not in (*self.behaviours, *RESERVED)]
        if unknown:
            raise ValueError(f"definitions: {unknown[0]!r} is not among {[*self.behaviours, *RESERVED]}")
        return self

    def meanings(self) -> dict[str, str]:
        """Return the meaning of each behaviour that has one, `neither` and `incapable` included."""
        return dict(self.definitions)

    def deciding(self, exclude: Iterable[str] = ()) -> dict[str, JsonValue]:
        """Return the keys that decide verdicts, for the judge's identity, without those in `exclude`.

        `incapable` is among them only where it is not the default, so that it changes no other judge's identity.
        """
        default = {"incapable"} if self.incapable is True else set()
        return self.model_dump(mode="json", exclude={"definitions", *exclude, *default})

    def reserved(self, named: Iterable[str]) -> frozenset[str]:
        """Return the reserved behaviours that the judge decides on, given those that its verdicts can name."""
        known = {name for name in named if name in RESERVED}
        return frozenset(known if self.incapable is True else {*known, INCAPABLE})


class Judge(Protocol):
    """Returns one verdict per case, in order."""

    name: str
    version: int
    kind: str
    behaviours: tuple[str, ...]
    fields: frozenset[str]
    """Fields that every case must have."""
    reserved: frozenset[str]
    """Reserved behaviours that the judge decides on itself; its other verdicts say nothing about those it doesn't."""
    identity: str
    """SHA-256 of everything that decides a verdict; a judge with another identity is another judge."""
    details: Mapping[str, JsonValue]
    """Further facts for the manifest, such as the model that is asked. Holds no key."""

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        """Return the verdicts on responses, in order; call `count` with the number of verdicts that were added.

        `judge_cases` calls this, and leaves out degenerate responses.

        Raises:
            JudgeUnavailable: some verdicts could not be obtained; the next call finds the others in the cache.
            UserError: the judge cannot work as it is configured.
        """
        ...


@runtime_checkable
class JudgeWithSynonyms(Protocol):
    """A judge that knows several sets of names for what it distinguishes."""

    def renamed(self, behaviours: Collection[str]) -> Judge | None:
        """Return the same judge with verdicts in other names; None if it does not know them."""
        ...


def in_terms_of(judge: Judge, behaviours: Collection[str]) -> Judge:
    """Return the judge with verdicts in these behaviours, or as it is if it does not know them."""
    if set(behaviours) <= set(judge.behaviours) or not isinstance(judge, JudgeWithSynonyms):
        return judge
    return judge.renamed(behaviours) or judge


async def judge_in_chunks(
    verdicts_of: Callable[[Sequence[Case]], list[Verdict]],
    cases: Sequence[Case],
    size: int,
    count: Callable[[int], None],
) -> list[Verdict]:
    """Return the verdicts of a judge that computes, some at a time, in a thread.

    Args:
        verdicts_of: Compute the verdicts on some responses.
        cases: The responses.
        size: Number of responses to judge at once.
        count: Called with the number of new verdicts.
    """
    verdicts: list[Verdict] = []
    for start in range(0, len(cases), size):
        chunk = cases[start : start + size]
        verdicts += await asyncio.to_thread(verdicts_of, chunk)
        count(len(chunk))
    return verdicts


async def judge_cases(judge: Judge, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
    """Return the verdicts on responses: of the checks in `degenerate`, and of the judge where they find nothing.

    Raises:
        JudgeUnavailable: as `Judge.judge`.
        UserError: as `Judge.judge`.
    """
    checked = [verdict_of_checks(judge, case) for case in cases]
    rest = [case for case, verdict in zip(cases, checked, strict=True) if verdict is None]
    count(len(cases) - len(rest))
    judged = iter(await judge.judge(rest, count) if rest else ())
    return [next(judged) if verdict is None else verdict for verdict in checked]


def verdict_of_checks(judge: Judge, case: Case) -> Verdict | None:
    """Return the verdict that needs no judge; None if there is none."""
    reason = degenerate.degenerate(case.prompt, case.response, case.stop_reason)
    if reason is not None:
        return Verdict(NEITHER, reason)
    if INCAPABLE not in judge.reserved and says_incapable(case.response):
        return Verdict(INCAPABLE, INCAPABLE_REASON)
    return None


def ask(
    judge: Judge, cases: Sequence[Case], count: Callable[[int], None] | None = None, *, check: bool = True
) -> list[Verdict]:
    """Return the verdicts to a caller that is not asynchronous; works inside a running event loop (a notebook).

    With `check` they are those of `judge_cases`; without, the judge's own on every case. At the first signal to stop,
    the calls of a model that are in flight are finished, and their answers cached, at the second they are not.

    Raises:
        JudgeUnavailable: as `Judge.judge`.
        KeyboardInterrupt: a signal came.
        UserError: as `Judge.judge`.
    """

    counter = count or ignore_progress
    with finishing_first("judge calls"):
        return run_to_end(lambda: judge_cases(judge, cases, counter) if check else judge.judge(cases, counter))


def describe_judge(judge: Judge, source: str) -> JudgeRecord:
    """Return the record of a judge: enough to recognize it, and to load it again from `source` (a name or a path)."""
    return JudgeRecord(
        name=judge.name,
        version=judge.version,
        kind=judge.kind,
        sha256=judge.identity,
        source=source,
        response_check=degenerate.VERSION,
        details=dict(judge.details),
    )


def asked_models(judge: Judge) -> list[str]:
    """Return the language models that a judge asks, its members' included; empty for one that computes."""
    return _models(describe_judge(judge, "").as_json())


def _models(record: JsonValue) -> list[str]:
    if isinstance(record, list):
        return [name for part in record for name in _models(part)]
    if not isinstance(record, dict):
        return []
    details = record.get("details")
    if record.get("kind") == "llm" and isinstance(details, dict):
        return [str(details.get("model"))]
    return [name for part in record.values() for name in _models(part)]


def without_secrets(url: str | None) -> str | None:
    """Return the address of a judge's endpoint without user, password and query, which may hold a key.

    Raises:
        UserError: it is not an address.
    """
    if url is None:
        return None
    from cst_bench.checkpoint.endpoint import parse_address

    return parse_address(url, "--judge-base-url").plain


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
        served=dict(sorted(Counter(name for call in calls for name in call.served).items())),
    )


def sum_costs(calls: Sequence[JudgeCall]) -> float | None:
    """Return the cost of calls in US dollars; None if one has no known price."""
    costs = [call.cost_usd for call in calls if call.cost_usd is not None]
    return sum(costs) if len(costs) == len(calls) else None


def ignore_progress(steps: int) -> None:
    """Ignore progress: a `count` for callers that show none."""
