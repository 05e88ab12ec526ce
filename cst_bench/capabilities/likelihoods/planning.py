"""Groups log-likelihood requests by what they share: each context once, its continuations as branches behind it.

Pure Python over token ids. A request is a pair (context, continuation); the model reads both less the last token, and
its logits at the last context token and behind it give the continuation's log-likelihood.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

Tokens = tuple[int, ...]

_WORTHWHILE = 32
"""Fewest tokens that a group of documents must have in common to be a group."""
_SHARE = 8
"""And they must be at least one in so many of their tokens: what has a prefix needs a mask, which is slower."""


@dataclass(frozen=True)
class Target:
    """What one request asks for: the likelihood of `tokens`, given the context and themselves."""

    request: int
    """Index into the requests."""
    tokens: Tokens

    @property
    def branch(self) -> Tokens:
        """What the model reads behind the context."""
        return self.tokens[:-1]


@dataclass(frozen=True)
class Trie:
    """Branches merged where they begin alike, row by row in depth-first order."""

    tokens: list[int]
    depths: list[int]
    """How many rows are above each row."""
    ends: list[int]
    """Row r is above (or is) exactly the rows r to ends[r] - 1."""
    rows: dict[Tokens, list[int]]
    """The rows that spell each branch."""


@dataclass
class Document:
    """A context, and what is asked about it."""

    context: Tokens
    targets: list[Target] = field(default_factory=list)

    @cached_property
    def trie(self) -> Trie:
        """The branches behind the context."""
        return make_trie(target.branch for target in self.targets)

    @property
    def rows(self) -> int:
        """Tokens that the model reads for it."""
        return len(self.context) + len(self.trie.tokens)

    def halves(self) -> list[Document]:
        """The same as two documents with half of the targets each; itself, if it has but one."""
        middle = (len(self.targets) + 1) // 2
        parts = [self.targets[:middle], self.targets[middle:]]
        return [Document(self.context, part) for part in parts if part]


@dataclass
class Group:
    """Documents whose contexts have their first `prefix` tokens in common; 0 for a document by itself."""

    prefix: int
    documents: list[Document]


def make_plan(requests: Sequence[tuple[Sequence[int], Sequence[int]]], max_length: int) -> list[Group]:
    """Groups requests on their token ids, after lm-eval's own truncation from the left to `max_length` + 1 tokens.

    Raises:
        ValueError: a context or continuation is empty, or a continuation is longer than `max_length`.
    """
    documents: dict[Tokens, Document] = {}
    for index, (context, continuation) in enumerate(requests):
        if not context or not continuation or len(continuation) > max_length:
            raise ValueError(
                f"request {index}: {len(context)} + {len(continuation)} tokens, with room for {max_length}"
            )
        kept = tuple(context[max(0, len(context) + len(continuation) - max_length - 1) :])
        documents.setdefault(kept, Document(kept)).targets.append(Target(index, tuple(continuation)))
    return _group(sorted(documents.values(), key=lambda document: document.context))


def make_trie(branches: Iterable[Tokens]) -> Trie:
    """Merges branches; equal ones, and those that begin another, cost nothing."""
    trie = Trie([], [], [], {})
    path: list[int] = []
    previous: Tokens = ()
    for branch in sorted(set(branches)):
        shared = common_prefix(previous, branch)
        _close(trie, path[shared:])
        path = path[:shared]
        for token in branch[shared:]:
            trie.depths.append(len(path))
            path.append(len(trie.tokens))
            trie.tokens.append(token)
            trie.ends.append(0)
        trie.rows[branch] = list(path)
        previous = branch
    _close(trie, path)
    return trie


def _close(trie: Trie, rows: list[int]) -> None:
    for row in rows:
        trie.ends[row] = len(trie.tokens)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two sequences have in common from the start."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if a[:middle] == b[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _group(documents: list[Document]) -> list[Group]:
    """Splits sorted documents where going on would share less in all."""
    groups: list[Group] = []
    start = 0
    while start < len(documents):
        prefix, stop = 0, start + 1
        while stop < len(documents):
            shared = _shared(documents[stop - 1], documents[stop])
            shared = shared if stop == start + 1 else min(prefix, shared)
            if shared < _WORTHWHILE or shared * _SHARE < len(documents[stop].context):
                break
            if shared * (stop - start) < prefix * (stop - start - 1):
                break
            prefix, stop = shared, stop + 1
        groups.append(Group(prefix, documents[start:stop]))
        start = stop
    return groups


def _shared(a: Document, b: Document) -> int:
    """Each keeps its last context token, whose logits it needs."""
    return min(common_prefix(a.context, b.context), len(a.context) - 1, len(b.context) - 1)


def planned_tokens(groups: Iterable[Group]) -> int:
    """Tokens that the model reads for a plan when every group's prefix is read once."""
    return sum(group.prefix + sum(document.rows - group.prefix for document in group.documents) for group in groups)


def unique_tokens(requests: Sequence[tuple[Sequence[int], Sequence[int]]], max_length: int) -> int:
    """The nodes of the trie of all inputs: no exact scorer can read fewer tokens."""
    inputs = sorted({(*context, *continuation)[-(max_length + 1) :][:-1] for context, continuation in requests})
    shared = sum(common_prefix(a, b) for a, b in pairwise(inputs))
    return sum(map(len, inputs)) - shared
