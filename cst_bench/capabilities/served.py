"""Log-likelihoods from a server: lm-eval's `local-completions`, asked through the guarded client of a run's engine.

Requests, and how replies are read, are lm-eval's own (`echo` with `logprobs`). Texts are tokenized as lm-eval's `hf`
does, so that documents have the tokens that `cst-hf` scores; `local-completions` itself never writes a BOS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.models.utils import _add_special_kwargs, has_bos_prefix

from cst_bench.checkpoint.call_errors import reason_of
from cst_bench.checkpoint.server_engine import ServerEngine
from cst_bench.errors import Interrupted, UserError

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from cst_bench.capabilities.likelihoods.cst_hf import TokenRequest
    from cst_bench.capabilities.likelihoods.scorer import Scored

_TOGETHER = 128
"""Requests that are sent together."""


class ServedLM(LocalCompletionsAPI):  # type: ignore[misc]
    """lm-eval model of a checkpoint on a server. It gives log-likelihoods of continuations, and nothing else."""

    NAME = "local-completions"
    kernel: str | None = None
    """The server's own, which is not known."""
    fallback_reason: str | None = None

    def __init__(self, engine: ServerEngine, progress: Callable[[int, int], None] | None = None) -> None:
        """Score on the server of a connected engine; `progress` gets the number of finished requests and the total."""
        super().__init__(model=engine.model, tokenizer_backend="None", max_length=engine.context_length)
        self.tokenizer = engine.chat.tokenizer
        self.tokenizer_backend = "huggingface"
        self.tokenized_requests = True
        self._engine = engine
        self._progress = progress

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """Encode a text as lm-eval's `hf` does."""
        special = _add_special_kwargs(add_special_tokens, None)
        if add_special_tokens is None and has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
            special["add_special_tokens"] = False
        ids: list[int] = self.tokenizer.encode(string, **special)
        return ids

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Scored]:
        """Return the log-likelihood of each continuation, and whether it is greedy, without lm-eval's own bars."""
        scored: list[Scored] = super().loglikelihood(requests, disable_tqdm=True)
        return scored

    def _loglikelihood_tokens(self, requests: Sequence[TokenRequest], **_: object) -> list[Scored]:
        inputs, context_lengths, _keys = self.batch_loglikelihood_requests([list(requests)])
        scored: list[Scored] = []
        for start in range(0, len(inputs), _TOGETHER):
            part = inputs[start : start + _TOGETHER]
            lengths = context_lengths[start : start + _TOGETHER]
            for ids, length, reply in zip(part, lengths, self._ask(part), strict=True):
                self._require_likelihoods(reply, ids)
                scored += self.parse_logprobs([reply], ctxlens=[length])
            if self._progress is not None:
                self._progress(len(scored), len(inputs))
        return scored

    def _ask(self, inputs: Sequence[list[int]]) -> list[Any]:
        try:
            return self._engine.post_all([self._create_payload([ids], generate=False) for ids in inputs])
        except Exception as error:
            raise Interrupted(
                f"the server at {self._engine.client.address} did not score ({reason_of(error)}); what is finished is "
                "kept: run the same command to continue"
            ) from error

    def _require_likelihoods(self, reply: Any, ids: Sequence[int]) -> None:
        """Check that a reply has the log-likelihood of each token of the input but the first."""
        found = reply["choices"][0].get("logprobs")
        values = found.get("token_logprobs") if isinstance(found, dict) else None
        tops = found.get("top_logprobs") if isinstance(found, dict) else None
        if (
            not isinstance(values, list)
            or not isinstance(tops, list)
            or len(values) != len(ids) + 1  # one token is generated
            or len(tops) != len(values)
            or not all(isinstance(value, (int, float)) for value in values[1:])
            or not all(isinstance(top, dict) and top for top in tops[1:])
        ):
            raise UserError(
                f"the server at {self._engine.client.address} gives no log-likelihoods of prompts (echo with "
                "logprobs): score the capabilities in process, without --capabilities-on-server"
            )

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Refuse: no capability of this project needs it."""
        raise UserError("--capabilities-on-server: only tasks with given answers can be scored there")

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Refuse: lm-eval's own client would ask, which nothing guards."""
        raise UserError("--capabilities-on-server: only tasks with given answers can be scored there")
