"""lm-eval model `cst-hf`: stock `hf` with packed scoring, and stock `hf` itself where that would not be exact."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import _add_special_kwargs, has_bos_prefix
from tqdm import tqdm  # type: ignore[import-untyped]

from cst_bench.capabilities.likelihoods.budget import token_budget
from cst_bench.capabilities.likelihoods.eligibility import unsupported_model
from cst_bench.capabilities.likelihoods.kernels import kernels_for
from cst_bench.capabilities.likelihoods.preparation import EncodedTexts, encode_all, texts_of
from cst_bench.capabilities.likelihoods.scorer import Requests, Scored, Scorer, UnsupportedModelError
from cst_bench.capabilities.likelihoods.selfcheck import disagreement
from cst_bench.checkpoint.inspection import base_model, batch_invariant_length

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)

TokenRequest = tuple[tuple[str, str] | None, list[int], list[int]]
"""lm-eval's request: its texts (None for a part of a rolling one), context ids, continuation ids."""


@register_model("cst-hf")
class CstHFLM(HFLM):  # type: ignore[misc]
    """lm-eval's `hf`, several times faster on log-likelihoods that share contexts. Takes the same arguments.

    The first scoring call checks it against stock on a few requests. Whatever it cannot score exactly is left to
    stock, and `fallback_reason` says why. Unless `softmax_dtype` is set, the softmax of both is in fp32 or the model's
    wider dtype; that of `hf` is in the dtype of the logits.
    """

    batch_size_per_gpu: int | str
    softmax_dtype: torch.dtype

    def __init__(
        self, pretrained: str | PreTrainedModel, *args: object, token_budget: int | None = None, **kwargs: object
    ) -> None:
        """Load the model unless it is loaded already.

        Args:
            pretrained: As for `hf`: a name, a folder or a loaded model.
            args: As for `hf`.
            token_budget: Tokens of one forward pass; by default, as many as fit in memory.
            kwargs: As for `hf`.
        """
        super().__init__(pretrained, *args, **kwargs)
        self.softmax_dtype = self.softmax_dtype or torch.promote_types(self.model.dtype, torch.float32)
        self.fallback_reason: str | None = None
        """Reason why requests were left to stock; None if none were."""
        self._token_budget = token_budget
        self._scorer: Scorer | None = None
        self._checked = False
        self._encoded = EncodedTexts({})
        self._stock_batch: int | str | None = None

    @property
    def forwarded_tokens(self) -> int:
        """Return the number of tokens that packed scoring has forwarded."""
        return self._scorer.tokens if self._scorer is not None else 0

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Scored]:
        """Score as lm-eval does, with each distinct text encoded once."""
        with self._encoding(request.args for request in requests):
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)  # type: ignore[no-any-return]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Score as lm-eval does, with the windows of all requests scored together."""
        if self._ready() is None:
            return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)  # type: ignore[no-any-return]
        self._stock_batch = self.batch_size_per_gpu
        self.batch_size_per_gpu = 2**31
        try:
            return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)  # type: ignore[no-any-return]
        finally:
            self.batch_size_per_gpu, self._stock_batch = self._stock_batch, None

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **rest: object) -> list[int]:
        """Encode as lm-eval does, or return the ids of a text that is encoded already."""
        ids = self._encoded.get(string) if add_special_tokens is None and not rest else None
        if ids is not None:
            return ids
        return super().tok_encode(string, add_special_tokens=add_special_tokens, **rest)  # type: ignore[no-any-return]

    def _loglikelihood_tokens(
        self, requests: Sequence[TokenRequest], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Scored]:
        scorer = self._ready() if requests else None
        if scorer is None or not self._all_exact(requests):
            return self._stock(requests, disable_tqdm, override_bs)
        progress = tqdm(
            total=len(requests), disable=disable_tqdm or self.rank != 0, desc="Running loglikelihood requests"
        )

        def report(index: int, answer: Scored) -> None:
            if requests[index][0] is not None:
                self.cache_hook.add_partial("loglikelihood", requests[index][0], answer)
            progress.update(1)

        with progress:
            return scorer.score([(context, continuation) for _, context, continuation in requests], report)

    def _stock(self, requests: Sequence[TokenRequest], disable_tqdm: bool, override_bs: int | None) -> list[Scored]:
        size = self.batch_size_per_gpu
        if self._stock_batch is not None:
            self.batch_size_per_gpu, override_bs = self._stock_batch, None
        try:
            return super()._loglikelihood_tokens(  # type: ignore[no-any-return]
                requests, disable_tqdm=disable_tqdm, override_bs=override_bs
            )
        finally:
            self.batch_size_per_gpu = size

    def _all_exact(self, requests: Sequence[TokenRequest]) -> bool:
        """Return whether packed scoring gives stock's results on these requests; stock reports invalid ones itself."""
        longest = max(
            min(len(context) + len(continuation) - 1, self.max_length) for _, context, continuation in requests
        )
        limit = batch_invariant_length(base_model(self.model).config.get_text_config())
        if limit is not None and longest > limit:
            self._fall_back(f"its rope depends on the batch beyond {limit} tokens")
            return False
        return all(context and 0 < len(continuation) <= self.max_length for _, context, continuation in requests)

    def _ready(self) -> Scorer | None:
        """Return the scorer, checked once; None if the model is left to stock."""
        if not self._checked:
            self._checked = True
            self._scorer = self._checked_scorer()
        return self._scorer

    def _checked_scorer(self) -> Scorer | None:
        reason = unsupported_model(self.model) if self.backend == "causal" else "it is an encoder-decoder model"
        if reason is None:
            budget = self._token_budget or token_budget(self.model, self.device)
            for kernel in kernels_for(self.device):
                scorer = Scorer(
                    self.model, self.max_length, budget, kernel, self.softmax_dtype, self.mixed_precision_dtype
                )
                reason = self._disagreement(scorer)
                if reason is None:
                    scorer.tokens = 0
                    return scorer
        assert reason is not None
        self._fall_back(reason)
        return None

    def _disagreement(self, scorer: Scorer) -> str | None:
        def stock(requests: Requests) -> list[Scored]:
            tokens: list[TokenRequest] = [
                (None, list(context), list(continuation)) for context, continuation in requests
            ]
            size, self.batch_size_per_gpu = self.batch_size_per_gpu, 4
            try:
                return self._stock(tokens, True, None)
            finally:
                self.batch_size_per_gpu = size

        try:
            vocabulary = min(self.tokenizer.vocab_size, self.model.config.get_text_config().vocab_size)
            return disagreement(scorer, stock, vocabulary)
        except UnsupportedModelError as error:
            return str(error)
        except (RuntimeError, TypeError, NotImplementedError, IndexError) as error:
            return f"packed scoring fails on it: {' '.join(str(error).split())[:200]}"

    def _fall_back(self, reason: str) -> None:
        if self.fallback_reason is None:
            _log.warning("scoring with lm-eval's stock method, which is slower: %s", reason)
            self.fallback_reason = reason

    @contextmanager
    def _encoding(self, pairs: Iterable[tuple[str, str]]) -> Iterator[None]:
        """Encode the texts of these pairs, and keep the ids while active."""
        by_special: dict[bool, list[str]] = {True: [], False: []}
        if self.backend == "causal":
            prefix = self.tokenizer.decode(self.prefix_token_id)
            for text in texts_of(pairs):
                by_special[bool(has_bos_prefix(text, prefix))].append(text)
        special = _add_special_kwargs(None, self.add_bos_token)
        ids = encode_all(self.tokenizer, by_special[False], **special)
        ids |= encode_all(self.tokenizer, by_special[True], **{**special, "add_special_tokens": False})
        self._encoded = EncodedTexts(ids)
        try:
            yield
        finally:
            self._encoded = EncodedTexts({})
