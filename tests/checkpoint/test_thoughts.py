"""Thoughts are split off whatever they hold, and an answer without thoughts is not touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cst_bench.checkpoint.thoughts import (
    DEFAULT_THINK_TOKENS,
    KNOWN_THINK_TOKENS,
    SplitText,
    ThinkTokens,
    as_think_tokens,
    split_thoughts,
)
from cst_bench.errors import UserError

THINK = DEFAULT_THINK_TOKENS


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("It is blue.\n", SplitText("It is blue.\n")),
        ("<think>Hm.</think>\n\nIt is blue.", SplitText("It is blue.", ("Hm.",))),
        ("<think>\n\n</think>\n\nIt is blue.", SplitText("It is blue.")),
        ("Hm.\n</think>\n\nIt is blue.", SplitText("It is blue.", ("Hm.",))),
        ("Well. <think>Hm.</think> It is blue.", SplitText("Well.\nIt is blue.", ("Hm.",))),
        ("<think>a</think>b<think>c</think>d", SplitText("b\nd", ("a", "c"))),
        ("<think>a<think>b</think>c", SplitText("c", ("ab",))),
        ("<think>a</think>b</think>c", SplitText("c", ("a", "b"))),
        ("<think>Hm.", SplitText("", ("Hm.",), unfinished=True)),
        ("Well. <think>Hm.", SplitText("", ("Hm.",), unfinished=True)),
        ("", SplitText("")),
    ],
)
def test_thoughts_are_split_from_the_answer(text: str, split: SplitText) -> None:
    assert split_thoughts(text, THINK) == split


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("Hm.\n</think>\n\nIt is blue.", SplitText("It is blue.", ("Hm.",))),
        ("<think>Hm.</think>It is blue.", SplitText("It is blue.", ("Hm.",))),
        ("It is bl", SplitText("", ("It is bl",), unfinished=True)),
        ("", SplitText("", (), unfinished=True)),
    ],
)
def test_a_thought_that_the_prompt_opened_needs_no_opening(text: str, split: SplitText) -> None:
    assert split_thoughts(text, THINK, opened=True) == split


markers = st.one_of(
    st.sampled_from(KNOWN_THINK_TOKENS),
    st.tuples(*[st.from_regex(r"[<\[(|*?+.a-c/]{1,6}", fullmatch=True)] * 2)
    .filter(lambda pair: pair[0] != pair[1])
    .map(lambda pair: ThinkTokens(*pair)),
)
texts = st.text(alphabet=st.sampled_from("ab<>/[]|*. \nthink"), max_size=30)


@given(texts, markers)
def test_a_text_without_markers_is_its_own_answer(text: str, tokens: ThinkTokens) -> None:
    if not any(marker in text for marker in tokens):
        assert split_thoughts(text, tokens) == SplitText(text)


@given(st.sampled_from(KNOWN_THINK_TOKENS), st.lists(st.tuples(st.booleans(), texts), max_size=6), st.booleans())
def test_an_answer_has_no_marker_and_is_split_no_further(
    tokens: ThinkTokens, parts: list[tuple[bool, str]], opened: bool
) -> None:
    text = "".join(f"{part}{tokens.open if opens else tokens.close}" for opens, part in parts)
    split = split_thoughts(text, tokens, opened=opened)
    assert not any(marker in split.answer for marker in tokens)
    assert split_thoughts(split.answer, tokens) == SplitText(split.answer)
    if split.unfinished:
        assert split.answer == ""


@given(st.sampled_from(KNOWN_THINK_TOKENS), texts, texts, st.booleans(), st.booleans())
def test_one_thought_and_its_answer_come_back(
    tokens: ThinkTokens, thought: str, answer: str, written: bool, opened: bool
) -> None:
    if any(marker in text for marker in tokens for text in (thought, answer)):
        return
    text = f"{tokens.open if written else ''}{thought}{tokens.close}{answer}"
    split = split_thoughts(text, tokens, opened=opened)
    assert split == SplitText(answer.strip(), (thought.strip(),) if thought.strip() else ())


@pytest.mark.parametrize("pair", [("", "</think>"), ("<think>", " "), ("x", "x")])
def test_markers_that_cannot_be_told_apart_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="must be two different texts"):
        as_think_tokens(pair)
