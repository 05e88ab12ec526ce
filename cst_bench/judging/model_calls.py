"""Calls of a judge's model: retries, what an endpoint does not take, and what errors mean for a case."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cst_bench.checkpoint.call_errors import (
    SETUP,
    asked_to_wait,
    cause_of,
    endpoint_message,
    is_transient,
    reason_of,
    redirected_to,
    status_of,
)
from cst_bench.checkpoint.thoughts import KNOWN_THINK_TOKENS, split_thoughts
from cst_bench.errors import UserError
from cst_bench.interruption import begin_call, end_call
from cst_bench.judging.budget import Budget, BudgetSpent
from cst_bench.judging.cache import Answer
from cst_bench.judging.question import Question
from cst_bench.judging.verdict import FILTERED

if TYPE_CHECKING:
    from inspect_ai.model import GenerateConfig, Model, ModelOutput

_REJECTED = {400, 413, 422}
"""Statuses that reject the request of one case."""
REJECTED = "the judge's endpoint rejected the request"
_THINK_TAG = re.compile(r"<\s{0,9}(/?)\s{0,9}(think|thinking|thought|reasoning)\s{0,9}>", re.IGNORECASE)
_IN_A_ROW = 20
"""Failures without an answer between them after which the remaining cases are not tried."""
_LONGEST_WAIT = 900.0
"""Most seconds to wait because the endpoint asks for it, in all for one case; what asks for more is interrupted."""
_MOST_WAITS = 60
"""Most times that one case waits because the endpoint asks for it."""
_LONGEST_BACKOFF = 60.0
"""Most seconds before a retry, where the endpoint does not ask for more."""

TEMPERATURE = "temperature 0 not taken by the model"
SCHEMA = "response schema not taken by the endpoint: answer as text"
BUDGET = "no room for thoughts in the context: max_tokens of the answer alone"
_OPTIONAL: Mapping[str, tuple[str, ...]] = {
    TEMPERATURE: ("temperature",),
    BUDGET: ("context", "max_tokens", "max_completion_tokens", "too long"),
    SCHEMA: ("",),
}
"""Note on a dispensable part of a request → words of an endpoint's message that refuses that part."""


class CaseRejected(Exception):
    """The endpoint rejected the request of one case; the message is the reason why it is unscored."""


class NoChoices(ConnectionError):
    """The endpoint's reply has no answer in it."""


class WaitTooLong(Exception):
    """The endpoint asks to wait for longer than is worth it; the message is the reason."""


class ModelUnreachable(Exception):
    """The model gave no answer for now, after all retries."""


@dataclass(frozen=True)
class CallOptions:
    """Options of a call."""

    max_tokens: int
    """Most tokens of an answer, thoughts included."""
    answer_tokens: int
    """Most tokens of an answer in a context that has no room for thoughts."""
    retries: int
    backoff: float
    """Seconds before the first retry."""
    attempt_timeout: int
    """Seconds."""
    reasoning_effort: str | None = None
    price: tuple[float, float] | None = None
    """US dollars for a million tokens read and written."""
    budget: Budget | None = None


class ModelCalls:
    """Answers of a model to a judge's questions."""

    def __init__(self, label: str, model: Model, options: CallOptions) -> None:
        """Prepare calls; `label` names judge and model in messages."""
        self._label = label
        self._model = model
        self._options = options
        self._not_taken: frozenset[str] = frozenset()
        """Parts of a request that the endpoint refuses, whatever the case."""
        self._failures_in_a_row = 0
        self._has_answered = False
        self._wait_until = 0.0
        """Monotonic time before which the endpoint wants to be asked nothing, by any call."""
        self.first_failure = ""
        """Error of the first failed call."""

    async def answer(self, question: Question) -> Answer:
        """Return the answer to a question. What the endpoint rejects of a request is left out of it, and noted.

        The call stays in flight (`end_call` ends it), so that the answer can be stored before a signal stops the rest.

        Raises:
            CaseRejected: the endpoint rejected this question.
            ModelUnreachable: no answer after all retries, or too many other calls failed before.
            UserError: the endpoint accepts no question: wrong key, model, address or reasoning effort.
        """
        if self._failures_in_a_row >= _IN_A_ROW:
            raise ModelUnreachable
        budget = self._options.budget
        if budget is None:
            return await self._answer(question)
        try:
            reserved = await budget.reserve()
        except BudgetSpent:
            self.first_failure = f"--max-cost {budget.limit:g} USD would be exceeded, {budget.spent:.4f} USD are spent"
            raise ModelUnreachable from None
        cost = None
        try:
            answer = await self._answer(question)
            cost = answer["cost"]
        finally:
            budget.settle(reserved, cost)
        if cost is None:
            raise UserError(
                f"{self._label}: what a call costs is not known, so --max-cost cannot hold: give the price of the "
                "model with --judge-price"
            )
        return answer

    async def _answer(self, question: Question) -> Answer:
        without = self._not_taken
        while True:
            try:
                output, request = await self._generate(question, without)
            except ModelUnreachable:
                raise
            except Exception as error:  # noqa: BLE001 - every provider has its own; they are classified here
                cause = cause_of(error)
                blamed = self._blamed(cause, question, without)
                if blamed is None:
                    raise self._classified(cause) from None
                without |= {blamed}
                continue
            if output.stop_reason != "model_length" or output.usage is not None or BUDGET in without:
                break
            without |= {BUDGET}  # this output is Inspect's form of a request that is too long for the context
        self._failures_in_a_row = 0
        self._has_answered = True
        self._not_taken |= without - {BUDGET}
        if request is not None and not _has_key(request, "temperature"):
            without |= {TEMPERATURE}  # left out by the provider itself
        return self._as_answer(output, sorted(without))

    async def _generate(self, question: Question, without: frozenset[str]) -> tuple[ModelOutput, object]:
        """Return the model's output, and the request that was sent; None if the provider does not show it."""
        from inspect_ai.log import transcript

        messages = question.messages if SCHEMA in without or question.as_json is None else question.as_json
        events = transcript().events  # of this asyncio task, unless an evaluation is running
        retries = waits = 0
        waited = 0.0
        while True:
            await self._wait()
            await begin_call()
            try:
                output = await self._model.generate(list(messages), config=self._config(question, without))
                if not output.choices:
                    raise NoChoices
                break
            except Exception as error:
                end_call()
                cause = cause_of(error)
                seconds = asked_to_wait(cause)
                if not is_transient(cause, self._model):
                    raise
                if seconds is None:
                    if retries == self._options.retries:
                        raise
                    backoff = min(_LONGEST_BACKOFF, self._options.backoff * 2**retries)
                    retries += 1
                    await asyncio.sleep(backoff * random.uniform(1, 1.5))
                    continue
                waits += 1
                waited += seconds
                if waited > _LONGEST_WAIT or waits > _MOST_WAITS:
                    raise WaitTooLong(
                        f"{reason_of(cause)}, and the endpoint asks to wait {_duration(seconds)}"
                    ) from None
                self._wait_until = max(self._wait_until, time.monotonic() + seconds)
        last = next((event for event in reversed(events) if event.event == "model"), None)
        return output, None if last is None or last.call is None else last.call.request

    async def _wait(self) -> None:
        """Wait for as long as the endpoint has asked any call to.

        Raises:
            ModelUnreachable: other calls gave up in the meantime.
        """
        while (seconds := self._wait_until - time.monotonic()) > 0:
            await asyncio.sleep(seconds)
        if self._failures_in_a_row >= _IN_A_ROW:
            raise ModelUnreachable

    def _config(self, question: Question, without: frozenset[str]) -> GenerateConfig:
        from inspect_ai.model import GenerateConfig

        options = self._options
        return GenerateConfig.model_validate(
            {
                "temperature": None if TEMPERATURE in without else 0.0,
                "max_tokens": options.answer_tokens if BUDGET in without else options.max_tokens,
                "response_schema": None if SCHEMA in without else question.schema,
                "reasoning_effort": options.reasoning_effort,
                "max_retries": 0,
                "attempt_timeout": options.attempt_timeout,
                "max_connections": 1000,  # the judge limits them
            }
        )

    def _blamed(self, error: BaseException, question: Question, without: frozenset[str]) -> str | None:
        """Return what to leave out of a rejected request; None if the fault must be another one."""
        if status_of(error) not in _REJECTED or _is_filter(error) or self._blames_effort(error):
            return None
        message = _message(error)
        for part, words in _OPTIONAL.items():
            if part not in without and any(word in message for word in words):
                return part if part != SCHEMA or question.schema is not None else None
        return None

    def _blames_effort(self, error: BaseException) -> bool:
        return self._options.reasoning_effort is not None and "effort" in _message(error)

    def _as_answer(self, output: ModelOutput, notes: list[str]) -> Answer:
        usage, price = output.usage, self._options.price
        cost = usage.total_cost if usage else None
        if usage is not None and price is not None:
            read = usage.input_tokens + (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0)
            cost = (price[0] * read + price[1] * usage.output_tokens) / 1e6
        return {
            "answer": _without_thoughts(output.completion),
            "stop_reason": output.stop_reason,
            "input_tokens": usage.input_tokens if usage else 0,
            "output_tokens": usage.output_tokens if usage else 0,
            "cost": cost,
            "notes": notes,
            "served": [output.model] if output.model else [],
        }

    def _classified(self, error: BaseException) -> Exception:
        """Return what an error means: for this case, for every case, or for now."""
        status = status_of(error)
        target = redirected_to(error)
        if target is not None:
            return UserError(
                f"{self._label} was not asked: its endpoint redirects to {target}, where neither the key nor the "
                "prompts are sent; if you trust that address, give it as the endpoint's (--judge-base-url)"
            )
        if status in SETUP and self._has_answered and status != 401:
            return CaseRejected(REJECTED)
        if status in SETUP:
            return UserError(f"{self._label} could not be asked (status {status}): {SETUP[status]}")
        if status in _REJECTED:
            if self._blames_effort(error):
                effort = self._options.reasoning_effort
                return UserError(f"{self._label} does not take --judge-reasoning-effort {effort} (status {status})")
            return CaseRejected(FILTERED if _is_filter(error) else REJECTED)
        if isinstance(error, WaitTooLong):
            self._failures_in_a_row = _IN_A_ROW
            self.first_failure = str(error)
        self._failures_in_a_row += 1
        self.first_failure = self.first_failure or reason_of(error, self._options.attempt_timeout)
        return ModelUnreachable()


def _message(error: BaseException) -> str:
    """Return what the endpoint said, in lower case."""
    return endpoint_message(error).casefold()


def _without_thoughts(text: str) -> str:
    """Return an answer without the thoughts that are still in it, whatever their markers; nothing if one never ends."""
    text = _THINK_TAG.sub(lambda tag: f"<{tag[1]}{tag[2].lower()}>", text)
    for markers in KNOWN_THINK_TOKENS:
        text = split_thoughts(text, markers).answer
    return text


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} minutes"


def _is_filter(error: BaseException) -> bool:
    message = _message(error)
    return "content" in message and "filter" in message


def _has_key(value: object, name: str) -> bool:
    """Return whether a request names a parameter, at any depth."""
    if isinstance(value, dict):
        return name in value or any(_has_key(part, name) for part in value.values())
    return isinstance(value, list) and any(_has_key(part, name) for part in value)
