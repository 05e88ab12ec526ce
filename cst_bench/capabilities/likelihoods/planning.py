"""Group log-likelihood requests by what they share: each context once, followed by its continuations as branches.

Pure Python over token ids. A request is a pair (context, continuation); the model reads both without the last token,
and its logits from the last context token on give the continuation's log-likelihood.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

Tokens = tuple[int, ...]

_WORTHWHILE = 32
"""Fewest tokens that the documents of a group have in common."""
_SHARE = 8
"""Smallest shared fraction, as 1 / 8 of a document's tokens: prefix groups need a mask, which is slower."""


@dataclass(frozen=True)
class Target:
    """One request: the likelihood of `tokens` after the context."""

    request: int
    """Index of the request."""
    tokens: Tokens

    @property
    def branch(self) -> Tokens:
        """Return the tokens that the model reads after the context."""
        return self.tokens[:-1]


@dataclass(frozen=True)
class Trie:
    """Branches merged by their common prefixes, one row a token, in depth-first order."""

    tokens: list[int]
    depths: list[int]
    """Number of ancestors of each row."""
    ends: list[int]
    """Row r and its descendants are exactly the rows r to ends[r] - 1."""
    rows: dict[Tokens, list[int]]
    """Branch → the rows that spell it."""


@dataclass
class PlannedDocument:
    """A context and its requests."""

    context: Tokens
    targets: list[Target] = field(default_factory=list)

    @cached_property
    def trie(self) -> Trie:
        """Return the branches after the context."""
        return make_trie(target.branch for target in self.targets)

    @property
    def rows(self) -> int:
        """Return the number of tokens that the model reads for it."""
        return len(self.context) + len(self.trie.tokens)

    def halves(self) -> list[PlannedDocument]:
        """Split it into two documents with half of the targets each; into itself if it has only one."""
        middle = (len(self.targets) + 1) // 2
        parts = [self.targets[:middle], self.targets[middle:]]
        return [PlannedDocument(self.context, part) for part in parts if part]


@dataclass
class Group:
    """Documents whose contexts have their first `prefix` tokens in common; 0 for a single document."""

    prefix: int
    documents: list[PlannedDocument]


def make_plan(requests: Sequence[tuple[Sequence[int], Sequence[int]]], max_length: int) -> list[Group]:
    """Group requests by their token ids, after lm-eval's own truncation from the left to `max_length` + 1 tokens.

    Raises:
        ValueError: a context or continuation is empty, or a continuation is longer than `max_length`.
    """
    documents: dict[Tokens, PlannedDocument] = {}
    for index, (context, continuation) in enumerate(requests):
        if not context or not continuation or len(continuation) > max_length:
            raise ValueError(
                f"request {index}: {len(context)} + {len(continuation)} tokens, with room for {max_length}"
            )
        kept = tuple(context[max(0, len(context) + len(continuation) - max_length - 1) :])
        documents.setdefault(kept, PlannedDocument(kept)).targets.append(Target(index, tuple(continuation)))
    return _group(sorted(documents.values(), key=lambda document: document.context))


def plan_tokens(groups: Iterable[Group]) -> int:
    """Return the number of tokens that the model reads for planned documents, each group's prefix once."""
    return sum(group.prefix + sum(document.rows - group.prefix for document in group.documents) for group in groups)


def make_trie(branches: Iterable[Tokens]) -> Trie:
    """Merge branches; equal ones, and prefixes of others, add no rows."""
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
    """Return the length of the common prefix of two sequences."""
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


def _group(documents: list[PlannedDocument]) -> list[Group]:
    """Split sorted documents into groups, where one more document would reduce the tokens shared in total."""
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


def _shared(a: PlannedDocument, b: PlannedDocument) -> int:
    """Return the shared tokens, without each context's last one, whose logits it needs."""
    return min(common_prefix(a.context, b.context), len(a.context) - 1, len(b.context) - 1)
