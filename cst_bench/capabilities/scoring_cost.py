"""Estimate what a capability task costs: its tokens from a sample of its documents, its time from a few passes."""

from __future__ import annotations

import copy
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from cst_bench.capabilities.capability_task import CapabilityTask
from cst_bench.capabilities.evaluation import Documents, draw_documents, evaluate_documents, model_arguments
from cst_bench.checkpoint import Checkpoint

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task

    from cst_bench.capabilities.likelihoods import CstHFLM
    from cst_bench.capabilities.likelihoods.cst_hf import TokenRequest
    from cst_bench.capabilities.likelihoods.scorer import Requests, Scored

_DOCUMENTS = 64
"""Documents whose requests are made, over all subtasks; two of each subtask at least, to see what they share."""
_SHORTEST = 64
"""Tokens of a small pass."""
_LARGER = 4
"""How much larger the other pass is at least."""


@dataclass(frozen=True)
class ScoringCost:
    """Estimated cost of a capability task."""

    documents: int
    tokens: int
    """Tokens that the model reads."""
    pass_bytes: int
    """Bytes of the largest pass beside the weights."""
    seconds: float
    """Time of everything: to load the data, make the requests, check the scorer and score."""


@dataclass
class _Sample:
    """Requests of some documents of each subtask."""

    loaded: float = 0.0
    """Monotonic time at which the data was loaded."""
    documents: dict[str, int] = field(default_factory=dict)
    """Subtask → its documents."""
    sampled: dict[str, int] = field(default_factory=dict)
    """Subtask → those whose requests are made."""
    requests: dict[str, list[tuple[list[int], list[int]]]] = field(default_factory=lambda: defaultdict(list))
    """Subtask → token ids of contexts and continuations."""

    @property
    def all_requests(self) -> list[tuple[list[int], list[int]]]:
        return [request for requests in self.requests.values() for request in requests]

    def weight(self, subtask: str) -> float:
        """Return the documents that one of the sample stands for."""
        return self.documents[subtask] / self.sampled[subtask]


def estimate_scoring(
    checkpoint: Checkpoint,
    task: CapabilityTask,
    path: Path,
    *,
    data: Path | None,
    limit: int | None,
    documents: int | None,
    trust_code: bool,
    seconds: float,
) -> ScoringCost:
    """Estimate the cost of `evaluate_capability` with these arguments.

    Time is taken to be proportional to the documents for all but the model, and to the tokens for the model.

    Args:
        checkpoint: Model to score with, which is left as it was.
        task: Task to estimate.
        path: The task file.
        data: As for `evaluate_capability`.
        limit: As for `evaluate_capability`.
        documents: As for `evaluate_capability`.
        trust_code: As for `evaluate_capability`.
        seconds: Time to spend in the model. A slow one takes longer, since two passes are always made.

    Raises:
        UserError: as `evaluate_capability`.
    """
    sample = _Sample()
    started = time.monotonic()

    def draw(parts: Mapping[str, Task]) -> Documents:
        sample.loaded = time.monotonic()
        count = max(2, _DOCUMENTS // len(parts))
        drawn = {}
        for name, part in parts.items():
            known: Sequence[int] = range(len(part.eval_docs))
            known = draw_documents(known, documents) if documents is not None else known[:limit]
            drawn[name] = draw_documents(known, count)
            sample.documents[name], sample.sampled[name] = len(known), len(drawn[name])
        return drawn

    model = _recorder(checkpoint, sample)
    evaluate_documents(model, task, path, data=data, limit=limit, documents=documents, draw=draw, trust_code=trust_code)
    prepared = time.monotonic()
    total, drawn = sum(sample.documents.values()), sum(sample.sampled.values())
    overhead = sample.loaded - started + (prepared - sample.loaded) * total / drawn
    return _cost(model, sample, overhead, seconds)


def _recorder(checkpoint: Checkpoint, sample: _Sample) -> CstHFLM:
    """Make a model that keeps the requests that it is given, and answers them without being run."""
    from cst_bench.capabilities.likelihoods import CstHFLM

    class Recorder(CstHFLM):
        def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Scored]:
            self._subtasks = [str(request.task_name) for request in requests]
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(
            self, requests: Sequence[TokenRequest], disable_tqdm: bool = False, override_bs: int | None = None
        ) -> list[Scored]:
            for subtask, (_, context, continuation) in zip(self._subtasks, requests, strict=True):
                sample.requests[subtask].append((context, continuation))
            return [(0.0, False)] * len(requests)

    tokenizer = copy.deepcopy(checkpoint.tokenizer)  # lm-eval gives it a padding token, which prompts could then show
    return Recorder(**{**model_arguments(checkpoint), "tokenizer": tokenizer})


def _cost(model: CstHFLM, sample: _Sample, overhead: float, seconds: float) -> ScoringCost:
    """Return the cost, given the time of everything but the model."""
    from cst_bench.capabilities.likelihoods.budget import pass_bytes, scored_share, token_budget
    from cst_bench.capabilities.likelihoods.planning import make_plan
    from cst_bench.capabilities.likelihoods.selfcheck import check_work

    requests = sample.all_requests
    total = sum(sample.documents.values())
    scorer = model.unchecked_scorer()
    if scorer is None:
        tokens = sum(
            sample.weight(subtask) * sum(map(_stock_tokens, requests)) for subtask, requests in sample.requests.items()
        )
        batch = int(model.batch_size_per_gpu)

        def stock(part: Requests) -> int:
            model.stock_pairs(part, batch)
            return sum(map(_stock_tokens, part))

        most = batch * max(map(_stock_tokens, requests))
        times = _measure_passes(stock, [[request] for request in requests], most, seconds)
        size = pass_bytes(model.model, most, 1.0)
        return ScoringCost(total, round(tokens), size, overhead + times.seconds(tokens, most))
    groups = make_plan(requests, model.max_length)
    tokens = sum(
        packed_tokens(requests, model.max_length, sample.weight(subtask))
        for subtask, requests in sample.requests.items()
    )
    share = scored_share(groups)
    budget = token_budget(model.model, scorer.device or model.model.device, scorer.kernel, share)

    def packed(part: Requests) -> int:
        before = scorer.tokens
        scorer.score(part)
        return scorer.tokens - before

    pieces = [
        [(document.context, target.tokens) for target in document.targets]
        for group in groups
        for document in group.documents
    ]
    times = _measure_passes(packed, pieces, budget, seconds)
    check = check_work(requests, model.max_length)
    size = max(
        pass_bytes(model.model, min(budget, round(tokens)), share), pass_bytes(model.model, check.largest_pass, 1.0)
    )
    return ScoringCost(total, round(tokens), size, overhead + times.seconds(tokens + check.tokens, budget))


def packed_tokens(requests: Requests, max_length: int, weight: float) -> float:
    """Estimate the tokens that packed passes read for all documents of a subtask, from those of a sample.

    A prefix of more than half of the sample, such as shots that are the same for all documents, is read once; others
    are as frequent in the rest.

    Args:
        requests: Token ids of contexts and continuations of the sample.
        max_length: As for `make_plan`.
        weight: Documents that one of the sample stands for.
    """
    from cst_bench.capabilities.likelihoods.planning import make_plan

    groups = make_plan(requests, max_length)
    sampled = sum(len(group.documents) for group in groups)
    return sum(
        group.prefix * (1 if 2 * len(group.documents) > sampled else weight)
        + weight * sum(document.rows - group.prefix for document in group.documents)
        for group in groups
    )


def _stock_tokens(request: tuple[Sequence[int], Sequence[int]]) -> int:
    """Return the tokens that lm-eval's stock method reads for a request."""
    context, continuation = request
    return len(context) + len(continuation) - 1


_Document = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Requests that share their context."""


@dataclass(frozen=True)
class PassTimes:
    """Seconds that passes of scoring take."""

    each: float
    """Each pass, such as to read the weights."""
    token: float
    """Each token of a pass."""

    @classmethod
    def of(cls, small: tuple[int, float], large: tuple[int, float]) -> PassTimes:
        """Return the line through the tokens and seconds of two passes, with no negative part."""
        (few, seconds), (many, more) = small, large
        if many <= few:
            return cls(0.0, seconds / few)
        token = min(max(0.0, (more - seconds) / (many - few)), more / many)
        return cls(more - token * many, token)

    def seconds(self, tokens: float, budget: int) -> float:
        """Return the time of this many tokens, in passes of a budget."""
        return ceil(tokens / budget) * self.each + tokens * self.token


def _measure_passes(
    score: Callable[[Requests], int], documents: Sequence[_Document], most: int, seconds: float
) -> PassTimes:
    """Measure a small pass, and one of as many tokens as there is time for.

    Args:
        score: Score requests and return the tokens read.
        documents: Documents to score; their contexts are cut from the left where there is no time for them.
        most: Most tokens of a pass.
        seconds: Time to spend.
    """
    documents = random.Random(0).sample(documents, len(documents))
    size = min(_SHORTEST, most)
    score(_cut(documents, size))  # the first pass of a process is slow
    deadline = time.monotonic() + seconds
    small = _timed(score, _cut(documents, size))
    large = small
    while True:
        rate = large[0] / large[1]
        size = min(most, max(_LARGER * small[0], int((deadline - time.monotonic()) * rate)))
        part = _cut(documents, size)
        before, large = large, _timed(score, part)
        if time.monotonic() + large[1] > deadline or large[0] >= most or large[0] <= before[0]:
            return PassTimes.of(small, large)


def _timed(score: Callable[[Requests], int], requests: Requests) -> tuple[int, float]:
    """Return the tokens and seconds of scoring requests."""
    started = time.monotonic()
    tokens = score(requests)
    return tokens, time.monotonic() - started


def _cut(documents: Sequence[_Document], tokens: int) -> Requests:
    """Return the requests of documents of about this many tokens, the last context cut from the left."""
    taken: list[tuple[Sequence[int], Sequence[int]]] = []
    left = tokens
    for document in documents:
        context = document[0][0]
        branches = sum(len(continuation) - 1 for _, continuation in document)
        kept = context[-max(1, min(len(context), left - branches)) :]
        taken += [(kept, continuation) for _, continuation in document]
        left -= len(kept) + branches
        if left <= 0:
            break
    return taken
