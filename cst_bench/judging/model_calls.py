"""Calls of a judge's model: the cache first, then the model with retries, and what its errors mean for a case."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cst_bench.errors import UserError
from cst_bench.judging.cache import Answer, AnswerCache
from cst_bench.judging.verdict import FILTERED

if TYPE_CHECKING:
    from inspect_ai.model import Model, ModelOutput

_REJECTED = {400, 413, 422}
"""Statuses that reject the request of one case."""
_SETUP = {401: "the key is not accepted", 403: "the key may not use it", 404: "there is no such model or address"}
"""Statuses that every other case would meet, too."""
REJECTED = "the judge's endpoint rejected the request"
_IN_A_ROW = 20
"""Failures without an answer between them after which the remaining cases are not tried."""


class CaseRejected(Exception):
    """The endpoint rejected the request of one case; the message is the reason why it is unscored."""


class ModelUnreachable(Exception):
    """The model gave no answer for now, after all retries."""


@dataclass(frozen=True)
class CallOptions:
    """Options of a call."""

    max_tokens: int
    retries: int
    backoff: float
    """Seconds before the first retry."""
    attempt_timeout: int
    """Seconds."""


class ModelCalls:
    """Answers of a model to a judge's prompts, each from the cache if it is there."""

    def __init__(self, label: str, model: Model, options: CallOptions, cache: AnswerCache) -> None:
        """Prepare calls; `label` names judge and model in messages."""
        self._label = label
        self._model = model
        self._options = options
        self._cache = cache
        self._failures_in_a_row = 0
        self.first_failure = ""
        """What the first failed call met."""

    async def answer(self, key: str, prompt: str) -> tuple[Answer, bool]:
        """Return the answer to a prompt, and whether it came from the cache (under `key`).

        Raises:
            CaseRejected: the endpoint rejected this prompt.
            ModelUnreachable: no answer after all retries, or too many other calls failed before.
            UserError: the endpoint accepts no prompt: wrong key, model or address.
        """
        if self._failures_in_a_row >= _IN_A_ROW:
            raise ModelUnreachable
        cached = self._cache.get(key)
        if cached is not None:
            return cached, True
        try:
            output = await self._generate(prompt)
        except Exception as error:  # noqa: BLE001 - every provider has its own; they are classified here
            raise self._classified(_cause(error)) from None
        self._failures_in_a_row = 0
        answer = _as_answer(output)
        self._cache.put(key, answer)
        return answer, False

    async def _generate(self, prompt: str) -> ModelOutput:
        from inspect_ai.model import GenerateConfig
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

        config = GenerateConfig(
            temperature=0.0,
            max_tokens=self._options.max_tokens,
            max_retries=0,
            attempt_timeout=self._options.attempt_timeout,
            max_connections=1000,  # the judge limits them
        )
        attempts = AsyncRetrying(
            retry=retry_if_exception(lambda error: _is_transient(self._model, _cause(error))),
            stop=stop_after_attempt(self._options.retries + 1),
            wait=wait_exponential_jitter(initial=self._options.backoff, max=60),
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                output = await self._model.generate(prompt, config=config)
        return output

    def _classified(self, error: BaseException) -> Exception:
        """Return what an error means: for this case, for every case, or for now."""
        status = getattr(error, "status_code", None)
        if status in _SETUP:
            return UserError(f"{self._label} could not be asked (status {status}): {_SETUP[status]}")
        if status in _REJECTED:
            return CaseRejected(FILTERED if "content" in str(error) and "filter" in str(error) else REJECTED)
        self._failures_in_a_row += 1
        self.first_failure = self.first_failure or (f"status {status}" if status else type(error).__name__)
        return ModelUnreachable()


def _is_transient(model: Model, error: BaseException) -> bool:
    """Return whether the same call may succeed later, by the provider's own rules and by those common to all."""
    status = getattr(error, "status_code", None)
    if status is not None:
        return status in (408, 409, 425, 429) or status >= 500
    if isinstance(error, (TimeoutError, ConnectionError, json.JSONDecodeError)):
        return True
    if "Timeout" in type(error).__name__ or "Connection" in type(error).__name__:
        return True
    decision = model.api.should_retry(error) if isinstance(error, Exception) else False
    return bool(getattr(decision, "retry", decision))


def _cause(error: BaseException) -> BaseException:
    """Return the error behind a retry that gave up."""
    last = getattr(error, "last_attempt", None)
    inner = last.exception() if last is not None else None
    return inner if isinstance(inner, BaseException) else error


def _as_answer(output: ModelOutput) -> Answer:
    usage = output.usage
    return {
        "answer": output.completion,
        "stop_reason": output.stop_reason,
        "input_tokens": usage.input_tokens if usage else 0,
        "output_tokens": usage.output_tokens if usage else 0,
        "cost": usage.total_cost if usage else None,
    }
