"""Judges of kind `llm`: a language model reads prompt and response, and ends its answer with a verdict line.

It never sees the system prompt or the configuration. Any Inspect model can be the judge, and any OpenAI-compatible
endpoint.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from weakref import WeakValueDictionary

from pydantic import Field, JsonValue, model_validator

from cst_bench.checkpoint.api import api_model
from cst_bench.errors import UserError
from cst_bench.files import digest, user_cache_folder
from cst_bench.interruption import end_call
from cst_bench.judging.cache import Answer, AnswerCache
from cst_bench.judging.fence import fill, make_marker, placeholders
from cst_bench.judging.judge import (
    ASKED_AGAIN,
    INCAPABLE,
    NEITHER,
    RESERVED,
    Case,
    JudgeCall,
    JudgeFile,
    JudgeOptions,
    JudgeUnavailable,
    ModelUnusable,
    Verdict,
    without_secrets,
)
from cst_bench.judging.model_calls import REJECTED, CallOptions, CaseRejected, ModelCalls, ModelUnreachable
from cst_bench.judging.question import (
    Question,
    json_question,
    number_form,
    second_question,
    text_question,
    word_form,
)
from cst_bench.judging.verdict import EMPTY_ANSWER, NO_VERDICT, UNKNOWN, fold, read_numbers, read_words, verdict_line

if TYPE_CHECKING:
    from inspect_ai.model import Model

_PASSING = frozenset({REJECTED, EMPTY_ANSWER, NO_VERDICT})
"""Reasons that may be a passing fault of the endpoint, such as a gateway that answers for the model."""
_FEW = 5
"""Fewer passing faults than these are taken as they are."""
_SHARE = 0.02
"""Share of faults up to which they are taken as they are: a score with more unscored responses is not ranked."""
_LOCAL = ("cst/", "hf/")
"""Providers that load weights: made once, when first asked."""
_PATIENCE = {"connections", "retries", "backoff", "attempt_timeout", "max_think_tokens"}
"""Keys of a judge file that decide whether there is an answer, and not its verdict."""


class LlmFile(JudgeFile):
    """Judge file of kind `llm`."""

    kind: Literal["llm"]
    """Asks a language model."""
    behaviours: dict[str, str] = Field(min_length=1)
    """Behaviour → its meaning, filled into the prompt at `{behaviours}`."""
    neither: str
    """Meaning of `neither`."""
    prompt: str
    """Prompt file, relative to the judge file: `{prompt}`, `{response}` and each field as fenced data; `{behaviours}`,
    `{verdict}` (the line to end with) and `{marker}` as trusted text."""
    model: str = "openai/gpt-4"
    """Inspect model name."""
    fields: list[str] = Field(default_factory=list)
    """Fields of the row that the model is shown as data."""
    verdict: Literal["words", "numbers"] = "words"
    """Form of the verdict: the name of a behaviour on a line with the marker, or a number such as `[[1]]`."""
    numbers: dict[int, str] = Field(default_factory=dict)
    """Number → behaviour, for the format `[[0]]`, `[[1]]`."""
    max_tokens: Annotated[int, Field(ge=16)] = 512
    """Most tokens of an answer, thoughts aside."""
    max_think_tokens: Annotated[int, Field(ge=0)] = 4096
    """Most tokens of a model's thoughts, in addition; `--judge-max-tokens` gives the sum of both."""
    connections: Annotated[int, Field(ge=1)] = 8
    """Concurrent calls."""
    retries: Annotated[int, Field(ge=0)] = 5
    """Retries of a call that failed for a passing reason: 429, 5xx, a timeout, a cut connection."""
    backoff: Annotated[float, Field(gt=0)] = 1.0
    """Seconds before the first retry; doubled each time, with jitter, 60 at most."""
    attempt_timeout: Annotated[int, Field(ge=1)] = 300
    """Seconds for one attempt."""

    @model_validator(mode="after")
    def _sound(self) -> LlmFile:
        folded = [fold(name) for name in self.behaviours]
        for name in RESERVED:
            if name in folded:
                raise ValueError(f"behaviours: {name} is reserved, and always possible")
        if not all(folded) or len(set(folded)) < len(folded):
            raise ValueError("behaviours: names must differ by more than case, hyphens and underscores")
        if not all(name.isprintable() for name in self.behaviours):
            raise ValueError("behaviours: a name is one line of printable text")
        if (self.verdict == "numbers") != bool(self.numbers):
            raise ValueError("numbers go with verdict: numbers, and only with it")
        for behaviour in self.numbers.values():
            if behaviour not in (*self.behaviours, *RESERVED):
                raise ValueError(f"numbers: behaviour {behaviour!r} is not among {list(self.behaviours)}")
        if self.definitions:
            raise ValueError("definitions: kind llm has the meanings in behaviours, neither and incapable")
        return self

    def meanings(self) -> dict[str, str]:
        """Return the meaning of each behaviour, as the model is given it."""
        incapable = {INCAPABLE: self.incapable} if isinstance(self.incapable, str) else {}
        return {**self.behaviours, NEITHER: self.neither, **incapable}


FILE_MODEL = LlmFile


def make(file: LlmFile, path: Path, options: JudgeOptions) -> LlmJudge:
    """Return the judge that a file defines.

    Raises:
        UserError: the prompt file is missing or has an unknown placeholder, or the model could not be created.
    """
    prompt = path.parent / file.prompt
    if not prompt.is_file():
        raise UserError(f"{path}: prompt file not found: {prompt}")
    template = prompt.read_text(encoding="utf-8")
    known = {"prompt", "response", "behaviours", "verdict", "marker", *file.fields}
    unknown = sorted(placeholders(template) - known)
    missing = sorted({"response", *(("verdict",) if file.verdict == "words" else ())} - placeholders(template))
    if unknown or missing:
        fault = f"has an unknown placeholder {{{unknown[0]}}}" if unknown else f"lacks {{{missing[0]}}}"
        raise UserError(f"{prompt}: {fault}: known: {', '.join(sorted(known))}")
    judge = LlmJudge(file, template, options)
    judge.check()
    return judge


class LlmJudge:
    """Judge that asks a language model."""

    kind = "llm"

    def __init__(self, file: LlmFile, template: str, options: JudgeOptions) -> None:
        """Create the judge from the content of its file and its prompt's text; `make` checks both."""
        name = options.model or file.model
        base_url = without_secrets(options.base_url)
        self.name = file.name
        self.version = file.version
        self.behaviours = tuple(file.behaviours)
        self.fields = frozenset(file.fields)
        self.model = name.removeprefix("openai/") if options.base_url else name
        chosen = {"max_tokens": options.max_tokens, "reasoning_effort": options.reasoning_effort}
        self.details: Mapping[str, JsonValue] = {
            "model": self.model,
            "base_url": base_url,
            **{name: value for name, value in chosen.items() if value is not None},
        }
        self._meanings = file.meanings()
        self.reserved = file.reserved(file.numbers.values() if file.verdict == "numbers" else self._meanings)
        deciding = file.deciding((*_PATIENCE, "changelog", "model"))
        effort = [] if options.reasoning_effort is None else [options.reasoning_effort]
        self.identity = digest([deciding, template, self.model, base_url, *effort])
        self._file = file
        self._template = template
        self._base_url = options.base_url
        self._connections = options.connections or file.connections
        self._call_options = CallOptions(
            options.max_tokens or file.max_tokens + file.max_think_tokens,
            min(file.max_tokens, options.max_tokens or file.max_tokens),
            file.retries,
            file.backoff,
            file.attempt_timeout,
            options.reasoning_effort,
            options.price,
            options.budget,
        )
        self._cache_folder = options.cache or user_cache_folder()
        self._local: Model | None = None
        self._memory: dict[str, str] = {}
        """Answers that could be kept nowhere else."""
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        """Event loop and case → lock, while one of its equal cases is being judged."""

    def check(self) -> None:
        """Create an API's model once, so that a missing key is reported before any model time.

        Raises:
            ModelUnusable: the model could not be created.
        """
        if self.model.startswith(_LOCAL):
            return
        try:
            self._make_model()
        except UserError as error:
            raise ModelUnusable(
                f"judge {self.name}: {error}; give the key in the environment, another model with --judge-model, an "
                "endpoint with --judge-base-url, or a judge without a model with --judge (`cst-bench judge list`)"
            ) from None

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        """Return the verdicts; the model is not asked where the cache has the answer.

        Raises:
            JudgeUnavailable: some verdicts could not be obtained, or many may be missing by a passing fault of the
                endpoint; the others are in the cache. What fails in the next call again is unscored.
            UserError: the endpoint doesn't accept the key, or has no such model.
        """
        cache = AnswerCache(self._cache_folder, self._memory)
        try:
            model = self._make_model()
            secret = cache.secret()
            calls = ModelCalls(f"judge {self.name}: {self.model}", model, self._call_options)
            try:
                verdicts = await self._judge_all(calls, cache, secret, cases, count)
            finally:
                if model is not self._local:
                    await model.api.aclose()
            self._require_few_faults(cache, secret, cases, verdicts)
            scored = [verdict for verdict in verdicts if verdict is not None]
            if len(scored) < len(verdicts):
                raise JudgeUnavailable(
                    f"judge {self.name} ({self.model}) gave no verdict on {len(verdicts) - len(scored)} of "
                    f"{len(verdicts)} responses ({calls.first_failure}); {cache.where_kept()}"
                )
        finally:
            cache.close()
        return scored

    def _require_few_faults(
        self, cache: AnswerCache, secret: bytes, cases: Sequence[Case], verdicts: Sequence[Verdict | None]
    ) -> None:
        """Interrupt if many responses would be unscored for what may pass, unless a call before this one met it, too.

        Raises:
            JudgeUnavailable: so it is.
        """
        if self.model.startswith(_LOCAL):
            return
        faults = {
            key: str(verdict.reason)
            for case, verdict in zip(cases, verdicts, strict=True)
            if verdict is not None
            and verdict.behaviour is None
            and verdict.reason in _PASSING
            and not cache.failed_before(key := self._key(self.prompt(case, secret)[0]))
        }
        # where it cannot be remembered, the next call would be interrupted just the same
        if len(faults) >= max(_FEW, _SHARE * len(cases)) and cache.put_failures(faults):
            reasons = ", ".join(f"{reason}: {count}" for reason, count in Counter(faults.values()).most_common())
            raise JudgeUnavailable(
                f"judge {self.name} ({self.model}) gave no verdict on {len(faults)} of {len(cases)} responses "
                f"({reasons}), which may pass; {cache.where_kept()}, and what fails in the next call again is unscored"
            )

    def _key(self, prompt: str) -> str:
        """Return the key under which an answer is cached."""
        return digest([self.identity, self.model, prompt, self._file.max_tokens])

    async def _judge_all(
        self,
        calls: ModelCalls,
        cache: AnswerCache,
        secret: bytes,
        cases: Sequence[Case],
        count: Callable[[int], None],
    ) -> list[Verdict | None]:
        """Return a verdict for each case, None where the model could not be reached."""
        limit = asyncio.Semaphore(self._connections)

        async def verdict_on(case: Case) -> Verdict | None:
            try:
                # equal cases one by one, so that all but the first find its answer in the cache, if it has got one
                async with self._lock(case), limit:
                    verdict = await self._verdict(calls, cache, secret, case)
            except ModelUnreachable:
                return None
            finally:
                end_call()
            count(1)
            return verdict

        tasks = [asyncio.ensure_future(verdict_on(case)) for case in cases]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def _lock(self, case: Case) -> asyncio.Lock:
        """Return the lock that a case shares with all cases that are shown to the model alike."""
        key = asyncio.get_running_loop(), *self._pieces(case).values()
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    async def _verdict(self, calls: ModelCalls, cache: AnswerCache, secret: bytes, case: Case) -> Verdict:
        """Return the verdict on a case. Only an answer with a verdict is kept, so that others are asked for again."""
        text, marker = self.prompt(case, secret)
        key = self._key(text)
        kept = cache.get(key)
        if kept is not None:
            verdict = self._verdict_in(kept, marker, cached=True)
            if verdict.behaviour is not None:
                return verdict
        question = self._question(text, marker)
        try:
            answer = await calls.answer(question)
        except CaseRejected as rejection:
            return Verdict(None, str(rejection))
        verdict = self._verdict_in(answer, marker)
        if verdict.reason in (NO_VERDICT, UNKNOWN):
            with suppress(CaseRejected):
                answer = await self._second_answer(calls, question, marker, answer)
                verdict = self._verdict_in(answer, marker)
        if verdict.behaviour is not None:
            cache.put(key, answer)
        return verdict

    def _question(self, prompt: str, marker: str) -> Question:
        if self._file.verdict == "numbers" or self.model.startswith(_LOCAL):
            return text_question(prompt)
        return json_question(prompt, marker, tuple(self._meanings))

    async def _second_answer(self, calls: ModelCalls, question: Question, marker: str, first: Answer) -> Answer:
        """Ask once more, for the verdict alone; the tokens of both calls count."""
        numbers = self._file.numbers
        form = number_form(list(numbers)) if numbers else word_form(marker, tuple(self._meanings))
        second = await calls.answer(second_question(question, first["answer"], form))
        costs = [cost for answer in (first, second) if (cost := answer["cost"]) is not None]
        return {
            **second,
            "input_tokens": first["input_tokens"] + second["input_tokens"],
            "output_tokens": first["output_tokens"] + second["output_tokens"],
            "cost": sum(costs) if len(costs) == 2 else None,
            "notes": sorted({*first.get("notes", []), *second.get("notes", []), ASKED_AGAIN}),
            "served": sorted({*first.get("served", []), *second.get("served", [])}),
        }

    def _verdict_in(self, answer: Answer, marker: str, *, cached: bool = False) -> Verdict:
        """Read an answer's verdict."""
        text, stop_reason = answer["answer"], answer["stop_reason"]
        if self._file.verdict == "numbers":
            verdict = read_numbers(text, self._file.numbers, stop_reason)
        else:
            verdict = read_words(text, marker, tuple(self._meanings), stop_reason)
        notes = tuple(answer.get("notes", []))
        served = tuple(answer.get("served", []))
        call = JudgeCall(answer["input_tokens"], answer["output_tokens"], answer["cost"], cached, notes, served)
        return replace(verdict, call=call)

    def prompt(self, case: Case, secret: bytes) -> tuple[str, str]:
        """Return the model's prompt for a case, and the case's marker, made with a secret key."""
        pieces = self._pieces(case)
        marker = make_marker(secret, self.identity, pieces)
        trusted = {
            "behaviours": "\n".join(f"- {name}: {meaning}" for name, meaning in self._meanings.items()),
            "verdict": verdict_line(marker, "WORD"),
            "marker": marker,
        }
        return fill(self._template, marker, pieces, trusted), marker

    def _pieces(self, case: Case) -> dict[str, str]:
        """Return what the model is shown of a case, by name."""
        return {
            "prompt": case.prompt,
            "response": case.response,
            **{name: case.fields[name] for name in self._file.fields},
        }

    def _make_model(self) -> Model:
        if self.model.startswith(_LOCAL):
            if self._local is None:
                self._local = api_model(self.model)
            return self._local
        if self._base_url is not None:
            from cst_bench.checkpoint.endpoint import parse_address

            # not Inspect's openai/…, which takes an unknown name for a new model without a temperature
            name = f"openai-api/endpoint/{self.model}"
            key = os.environ.get("OPENAI_API_KEY") or "none"  # local endpoints mostly need no key
            return api_model(name, address=parse_address(self._base_url, "--judge-base-url"), api_key=key)
        return api_model(self.model)
