"""What a reader does not see of a text is removed, and all else stays."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from cst_bench.judging.visible_text import visible


@given(st.text(st.sampled_from("aé\u200b\u00ad\x07\n\t\r ｡\U0001f600")))
def test_only_control_and_format_characters_are_removed(text: str) -> None:
    kept = [c for c in text if c in "\n\t\r" or unicodedata.category(c) not in ("Cc", "Cf")]
    assert visible(text) == "".join(kept)


def test_terminal_escapes_are_removed_whole() -> None:
    assert visible("a \x1b[31mred\x1b[0m word") == "a red word"
