"""Lays planned documents out in rows, as many as one forward pass may have. Pure Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cst_bench.capabilities.likelihoods.planning import Document, Group


@dataclass(frozen=True)
class Cursor:
    """The next document to lay out. With `document` above 0 its group's prefix has been read, and is kept."""

    group: int = 0
    document: int = 0


@dataclass(frozen=True)
class Segment:
    """Rows that see one another and their group's prefix. `start`, `trunk` and `stop` count keys, as in `Pack`.

    Keys `start` to `trunk` follow on each other; `trunk` to `stop` are a trie behind them. Every one sees the
    prefix, keys `prefix_start` to `prefix_stop`.
    """

    prefix_start: int
    prefix_stop: int
    start: int
    trunk: int
    stop: int


@dataclass(frozen=True)
class Answer:
    """Where a request's answer stands: the logits that predict each of its tokens."""

    request: int
    logits: list[int]
    """Indices into the logits of `Pack.logit_rows`."""
    tokens: Sequence[int]


@dataclass
class Pack:
    """One forward pass. Its keys are those of `kept` tokens of an earlier pack, and then its own rows."""

    kept: int
    """Keys that the earlier pack left: the prefix of the group that goes on."""
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    """Of every row in its own sequence."""
    ends: list[int] = field(default_factory=list)
    """Of every key: key k is seen by keys k to ends[k] - 1, a sliding window aside."""
    segments: list[Segment] = field(default_factory=list)
    logit_rows: list[int] = field(default_factory=list)
    """Rows whose logits are needed."""
    answers: list[Answer] = field(default_factory=list)
    keep: tuple[int, int] = (0, 0)
    """Keys to keep for the next pack."""
    documents: int = 0
    next: Cursor = field(default_factory=Cursor)


def next_pack(groups: Sequence[Group], cursor: Cursor, budget: int) -> Pack:
    """The documents from `cursor` on that fit in `budget` rows, but at least one; `Pack.next` tells where to go on."""
    pack = Pack(groups[cursor.group].prefix if cursor.document else 0)
    pack.ends = [0] * pack.kept
    at = cursor
    while at.group < len(groups):
        group = groups[at.group]
        document = group.documents[at.document]
        rows = document.rows - (group.prefix if at.document else 0)
        if pack.documents and len(pack.ids) + rows > budget:
            break
        if at.document == 0:
            prefix = _add_prefix(pack, document.context[: group.prefix])
        elif at == cursor:
            prefix = (0, pack.kept)
        _add_document(pack, document, prefix)
        last = at.document + 1 == len(group.documents)
        at = Cursor(at.group + 1) if last else Cursor(at.group, at.document + 1)
    if at.document:
        pack.keep = prefix
    pack.next = at
    return pack


def _add_prefix(pack: Pack, tokens: Sequence[int]) -> tuple[int, int]:
    """Lays out a group's prefix and returns its keys."""
    start = pack.kept + len(pack.ids)
    stop = start + len(tokens)
    if tokens:
        pack.ids += tokens
        pack.positions += range(len(tokens))
        pack.ends += [stop] * len(tokens)
        pack.segments.append(Segment(start, start, start, stop, stop))
    return start, stop


def _add_document(pack: Pack, document: Document, prefix: tuple[int, int]) -> None:
    """Lays out what comes behind the prefix."""
    length, trie = len(document.context), document.trie
    rest = document.context[prefix[1] - prefix[0] :]
    start = pack.kept + len(pack.ids)
    trunk, stop = start + len(rest), start + len(rest) + len(trie.tokens)
    pack.ids += rest
    pack.ids += trie.tokens
    pack.positions += range(length - len(rest), length)
    pack.positions += [length + depth for depth in trie.depths]
    pack.ends[prefix[0] : prefix[1]] = [stop] * (prefix[1] - prefix[0])
    pack.ends += [stop] * len(rest)
    pack.ends += [trunk + end for end in trie.ends]
    pack.segments.append(Segment(*prefix, start, trunk, stop))
    first = len(pack.logit_rows)
    pack.logit_rows += range(trunk - 1 - pack.kept, stop - pack.kept)
    for target in document.targets:
        logits = [first, *(first + 1 + row for row in trie.rows[target.branch])]
        pack.answers.append(Answer(target.request, logits, target.tokens))
    pack.documents += 1
