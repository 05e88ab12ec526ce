"""Plans and packs: every request once, nothing read twice, every token sees its own past and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.comparison import unique_tokens
from cst_bench.capabilities.likelihoods.planning import Group, common_prefix, make_plan, make_trie
from cst_bench.capabilities.likelihoods.prefix_packing import Cursor, PrefixPack, next_pack

_IDS = st.lists(st.integers(0, 2), min_size=1, max_size=40)
_REQUESTS = st.lists(
    st.tuples(st.integers(0, 60), _IDS, st.lists(st.integers(0, 2), min_size=1, max_size=6)), min_size=1, max_size=12
)


def expand(drawn: list[tuple[int, list[int], list[int]]]) -> list[tuple[list[int], list[int]]]:
    return [([0] * zeros + context, continuation) for zeros, context, continuation in drawn]


def packs(requests: list[tuple[list[int], list[int]]], max_length: int, budget: int) -> list[PrefixPack]:
    groups, cursor, result = make_plan(requests, max_length), Cursor(), []
    while cursor.group < len(groups):
        result.append(next_pack(groups, cursor, budget))
        cursor = result[-1].next
    return result


def planned_tokens(groups: list[Group]) -> int:
    """Count the tokens that the model reads for a plan when every group's prefix is read once."""
    return sum(group.prefix + sum(document.rows - group.prefix for document in group.documents) for group in groups)


@given(_REQUESTS, st.integers(6, 90), st.integers(1, 200))
def test_each_logit_is_read_behind_exactly_its_own_past(
    drawn: list[tuple[int, list[int], list[int]]], max_length: int, budget: int
) -> None:
    requests = expand(drawn)
    answered: dict[int, list[int]] = {}
    kept: list[int] = []
    for pack in packs(requests, max_length, budget):
        assert len(kept) == pack.kept
        tokens, positions = kept + pack.ids, [*range(pack.kept), *pack.positions]
        assert len(pack.ends) == len(tokens) == len(positions)
        for answer in pack.answers:
            continuation = list(answer.tokens)
            for index, logit in enumerate(answer.logits):
                row = pack.kept + pack.logit_rows[logit]
                past = [key for key in range(row + 1) if row < pack.ends[key]]
                seen = [tokens[key] for key in past]
                context, asked = requests[answer.request]
                whole = (context + asked)[-(max_length + 1) :]
                assert seen == whole[: len(whole) - len(asked) + index]
                assert [positions[key] for key in past] == list(range(len(past)))
            assert answer.request not in answered
            answered[answer.request] = continuation
        kept = tokens[slice(*pack.keep)]
    assert answered == {index: continuation for index, (_, continuation) in enumerate(requests)}


@given(_REQUESTS, st.integers(6, 90), st.integers(1, 200))
def test_segments_see_what_the_ends_say(
    drawn: list[tuple[int, list[int], list[int]]], max_length: int, budget: int
) -> None:
    for pack in packs(expand(drawn), max_length, budget):
        covered: list[int] = []
        for segment in pack.segments:
            covered += range(segment.start, segment.stop)
            keys = {*range(segment.prefix_start, segment.prefix_stop), *range(segment.start, segment.stop)}
            for row in range(segment.start, segment.stop):
                seen = {key for key in range(row + 1) if row < pack.ends[key]}
                assert seen <= keys
                if row < segment.trunk:
                    assert seen == {key for key in keys if key <= row}
        assert covered == list(range(pack.kept, pack.kept + len(pack.ids)))


@given(_REQUESTS, st.integers(6, 90))
def test_a_plan_reads_at_least_every_node_of_the_trie(
    drawn: list[tuple[int, list[int], list[int]]], max_length: int
) -> None:
    requests = expand(drawn)
    groups = make_plan(requests, max_length)
    total = sum(len(pack.ids) for pack in packs(requests, max_length, 50))
    assert unique_tokens(requests, max_length) <= planned_tokens(groups) == total


@given(st.lists(st.lists(st.integers(0, 2), max_size=6).map(tuple), max_size=8))
def test_a_trie_spells_every_branch_and_has_no_row_twice(branches: list[tuple[int, ...]]) -> None:
    trie = make_trie(branches)
    assert len(trie.tokens) == len({branch[: i + 1] for branch in branches for i in range(len(branch))})
    for branch in branches:
        rows = trie.rows[branch]
        assert tuple(trie.tokens[row] for row in rows) == branch
        assert [trie.depths[row] for row in rows] == list(range(len(branch)))
        for row in rows:
            assert [r for r in range(len(trie.tokens)) if r <= row < trie.ends[r]] == [r for r in rows if r <= row]


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_the_common_prefix_is_common_and_the_longest(a: list[int], b: list[int]) -> None:
    length = common_prefix(a, b)
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]


def test_a_subject_is_read_once() -> None:
    shots = list(range(100))
    requests = [([*shots, 200 + i], [choice]) for i in range(60) for choice in range(4)]
    groups = make_plan(requests, 512)
    assert [group.prefix for group in groups] == [100]
    assert planned_tokens(groups) == 160
    assert [len(pack.ids) for pack in packs(requests, 512, 120)] == [120, 40]


@pytest.mark.parametrize("request_", [([], [1]), ([1], []), ([1], [1] * 9)])
def test_what_cannot_be_scored_is_refused(request_: tuple[list[int], list[int]]) -> None:
    with pytest.raises(ValueError, match="request 1"):
        make_plan([([1], [2]), request_], 8)
