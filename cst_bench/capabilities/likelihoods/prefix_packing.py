"""Lay planned documents out in the rows of forward passes. Pure Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cst_bench.capabilities.likelihoods.planning import Group, PlannedDocument


@dataclass(frozen=True)
class Cursor:
    """Next document to lay out. If `document` is above 0, its group's prefix has been read, and is kept."""

    group: int = 0
    document: int = 0


@dataclass(frozen=True)
class Segment:
    """Rows that see each other and their group's prefix. `start`, `trunk` and `stop` count keys, as in `PrefixPack`.

    Keys `start` to `trunk` are a sequence; `trunk` to `stop` are a trie that continues it. All see the prefix, keys
    `prefix_start` to `prefix_stop`.
    """

    prefix_start: int
    prefix_stop: int
    start: int
    trunk: int
    stop: int


@dataclass(frozen=True)
class AnswerLocation:
    """Location of a request's answer: the logits that predict each of its tokens."""

    request: int
    logits: list[int]
    """Indices into the logits of `PrefixPack.logit_rows`."""
    tokens: Sequence[int]


@dataclass
class PrefixPack:
    """One forward pass. Its keys are those of `kept` tokens of an earlier pack, and then its own rows."""

    kept: int
    """Number of keys kept from the earlier pack: the prefix of the group that continues."""
    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    """Position of each row in its own sequence."""
    ends: list[int] = field(default_factory=list)
    """Key k is visible to keys k to ends[k] - 1, sliding windows aside."""
    segments: list[Segment] = field(default_factory=list)
    logit_rows: list[int] = field(default_factory=list)
    """Rows whose logits are needed."""
    answers: list[AnswerLocation] = field(default_factory=list)
    keep: tuple[int, int] = (0, 0)
    """Keys to keep for the next pack."""
    documents: int = 0
    next: Cursor = field(default_factory=Cursor)


def next_pack(groups: Sequence[Group], cursor: Cursor, budget: int) -> PrefixPack:
    """Lay out the documents from `cursor` on that fit in `budget` rows, at least one; `next` is where to continue."""
    pack = PrefixPack(groups[cursor.group].prefix if cursor.document else 0)
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


def fill(pack: PrefixPack, multiple: int) -> None:
    """Add rows that nothing reads, up to a multiple of this number and at least two of it.

    They are a sequence of their own at position 0, which every model has, of token 0.
    """
    rows = max(2, -(-len(pack.ids) // multiple)) * multiple - len(pack.ids)
    at = len(pack.positions)
    _add_prefix(pack, [0] * rows)
    pack.positions[at:] = [0] * rows


def _add_prefix(pack: PrefixPack, tokens: Sequence[int]) -> tuple[int, int]:
    """Lay out a group's prefix and return the range of its keys."""
    start = pack.kept + len(pack.ids)
    stop = start + len(tokens)
    if tokens:
        pack.ids += tokens
        pack.positions += range(len(tokens))
        pack.ends += [stop] * len(tokens)
        pack.segments.append(Segment(start, start, start, stop, stop))
    return start, stop


def _add_document(pack: PrefixPack, document: PlannedDocument, prefix: tuple[int, int]) -> None:
    """Lay out the rest of a document, after the prefix."""
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
        pack.answers.append(AnswerLocation(target.request, logits, target.tokens))
    pack.documents += 1
