"""lm-eval model `cst-hf`: stock `hf` with packed scoring, and stock `hf` itself where that would not be exact."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import _add_special_kwargs, has_bos_prefix
from tqdm import tqdm  # type: ignore[import-untyped]

from cst_bench.capabilities.likelihoods.eligibility import unsupported_model
from cst_bench.capabilities.likelihoods.kernels import KernelName, kernels_for
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


_FAULTS = (UnsupportedModelError, RuntimeError, TypeError, NotImplementedError, IndexError)
"""Faults of a kernel, or of a model with it: what it has not answered is scored in another way."""


def _failure(error: Exception) -> str:
    if isinstance(error, UnsupportedModelError):
        return str(error)
    return f"packed scoring fails on it: {' '.join(str(error).split())[:200]}"


@register_model("cst-hf")
class CstHFLM(HFLM):  # type: ignore[misc]
    """lm-eval's `hf`, several times faster on log-likelihoods that share contexts. Takes the same arguments.

    The first scoring call checks it against stock on a few of its documents. What it cannot score exactly is left to
    stock, and so is what remains when it fails later; `fallback_reason` says why. Unless `softmax_dtype` is set, the
    softmax of both is in fp32 or the model's wider dtype; that of `hf` is in the dtype of the logits.
    """

    NAME = "cst-hf"
    batch_size_per_gpu: int | str
    logits_cache: bool
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
        self._kernels: list[KernelName] | None = None
        """Kernels that have not failed, best first; None before the model has been looked at."""
        self._scorer: Scorer | None = None
        """Scorer with the first of them, checked."""
        self._refusals: dict[str, str] = {}
        """Kernel that has failed → how."""
        self._forwarded = 0
        self._encoded = EncodedTexts({})
        self._stock_batch: int | str | None = None

    @property
    def kernel(self) -> str | None:
        """Return how requests are scored now, and why not in a faster way; None before the first are."""
        if self.fallback_reason is not None:
            return f"stock: {self.fallback_reason}"
        if self._scorer is None:
            return None
        return "; ".join([self._scorer.kernel, *(f"{name}: {reason}" for name, reason in self._refusals.items())])

    @property
    def forwarded_tokens(self) -> int:
        """Return the number of tokens that packed scoring has forwarded."""
        return self._forwarded + (self._scorer.tokens if self._scorer is not None else 0)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Scored]:
        """Score as lm-eval does, with each distinct text encoded once."""
        with self._encoding(request.args for request in requests):
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm)  # type: ignore[no-any-return]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Score as lm-eval does, with the windows of all requests scored together."""
        if not self._remaining_kernels():
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
        if not requests or not self._remaining_kernels() or not self._all_exact(requests):
            return self._stock(requests, disable_tqdm, override_bs)
        answers: dict[int, Scored] = {}
        progress = tqdm(
            total=len(requests), disable=disable_tqdm or self.rank != 0, desc="Running loglikelihood requests"
        )

        def report(index: int, answer: Scored) -> None:
            answers[index] = answer
            if requests[index][0] is not None:
                self.cache_hook.add_partial("loglikelihood", requests[index][0], answer)
            progress.update(1)

        with progress:
            while (rest := [index for index in range(len(requests)) if index not in answers]) and self._score_packed(
                [requests[index][1:] for index in rest], lambda number, answer: report(rest[number], answer)
            ):
                pass
        if rest:
            scored = self._stock([requests[index] for index in rest], disable_tqdm, override_bs)
            answers.update(zip(rest, scored, strict=True))
        return [answers[index] for index in range(len(requests))]

    def _score_packed(self, requests: Requests, report: Callable[[int, Scored], None]) -> bool:
        """Score requests with the best kernel that passes the check, until it fails; return False if none is left."""
        scorer = self._ready(requests)
        if scorer is None:
            return False
        try:
            scorer.score(requests, report)
        except _FAULTS as error:
            self._refuse(_failure(error))
        return True

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

    def _remaining_kernels(self) -> list[KernelName]:
        """Return the kernels that have not failed, best first; none if the model is left to stock."""
        if self._kernels is None:
            reason = unsupported_model(self.model) if self.backend == "causal" else "it is an encoder-decoder model"
            self._kernels = kernels_for(self.device) if reason is None else []
            if reason is not None:
                self._fall_back(reason)
        return self._kernels

    def _ready(self, requests: Requests) -> Scorer | None:
        """Return the scorer, checked on some of these requests if it is new; None if no kernel is left."""
        while self._scorer is None and (scorer := self.unchecked_scorer()) is not None:
            try:
                reason = disagreement(scorer, requests, self.stock_pairs)
            except _FAULTS as error:
                reason = _failure(error)
            if reason is not None:
                self._refuse(reason)
                continue
            scorer.tokens = 0
            self._scorer = scorer
        return self._scorer

    def unchecked_scorer(self) -> Scorer | None:
        """Make a scorer with the best kernel that has not failed; None if the model is left to stock."""
        kernels = self._remaining_kernels()
        if not kernels:
            return None
        return Scorer(
            self.model,
            self.max_length,
            self._token_budget,
            kernels[0],
            self.device,
            self.softmax_dtype,
            self.mixed_precision_dtype,
        )

    def stock_pairs(self, requests: Requests, batch_size: int) -> list[Scored]:
        """Score requests without texts by stock, in batches of this size."""
        tokens: list[TokenRequest] = [(None, list(context), list(continuation)) for context, continuation in requests]
        before = self.batch_size_per_gpu, self._stock_batch, self.logits_cache
        # stock's cache confuses requests that split the same tokens into context and continuation elsewhere
        self.batch_size_per_gpu, self._stock_batch, self.logits_cache = batch_size, None, False
        try:
            return self._stock(tokens, True, None)
        finally:
            self.batch_size_per_gpu, self._stock_batch, self.logits_cache = before

    def _refuse(self, reason: str) -> None:
        """Use the kernel in turn no more; the next one takes over, or else stock."""
        kernels = self._remaining_kernels()
        kernel = kernels.pop(0)
        self._refusals[kernel] = reason
        if self._scorer is not None:
            self._forwarded += self._scorer.tokens
            self._scorer = None
        if kernels:
            _log.warning("scoring with the kernel %r instead of %r: %s", kernels[0], kernel, reason)
        else:
            self._fall_back(reason)

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
