"""Token ids of texts that are partly a guard's own format and partly data, where data never becomes a control token.

A prompt or a response may spell `<|eot_id|>` or `[/INST]`. A tokenizer turns such text into the token that ends a turn,
and the response would go on in the guard's own voice. Here control tokens are recognised in the format's text only;
text without such spellings gets exactly the ids that the tokenizer itself gives it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from cst_bench.errors import UserError

GAP = " […] "
"""Stands where the middle of a response was left out."""
_LEAST = 8
"""Fewest tokens of a response to be left; with fewer there is nothing to judge."""


class Part(NamedTuple):
    """A piece of an input."""

    text: str
    is_data: bool = False


class Encoded(NamedTuple):
    """A whole input."""

    ids: list[int]
    type_ids: list[int]
    """Which of the two texts of a pair a token is of."""
    left_out: int = 0
    """Tokens of the response that are missing, so that it fits."""


class ForgedTokensError(ValueError):
    """A text that the tokenizer takes for control tokens whatever is done."""


class DataTokenizer:
    """A copy of a tokenizer in which each control token answers to a random name, which no data can spell."""

    def __init__(self, tokenizer: Any, format_text: str) -> None:
        """From a `transformers` tokenizer.

        Args:
            tokenizer: Its special tokens are control tokens.
            format_text: Of the guard's template: added tokens that it spells are control tokens, too.

        Raises:
            UserError: it has no tokenizer.json behind it.
        """
        from tokenizers import AddedToken, Tokenizer

        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UserError(f"{tokenizer.name_or_path}: a guard needs a fast tokenizer, one with a tokenizer.json")
        controls = {
            index: token
            for index, token in tokenizer.added_tokens_decoder.items()
            if token.special or token.content in tokenizer.all_special_tokens or token.content in format_text
        }
        content = json.loads(backend.to_str())
        for token in content["added_tokens"]:
            token["special"] = token["id"] in controls  # the special ones are those that can be left unrecognised
        copy = Tokenizer.from_str(json.dumps(content))
        copy.no_padding()
        copy.no_truncation()
        copy.encode_special_tokens = True
        self._names = {token.content: f"name{secrets.token_hex(16)}" for token in controls.values()}
        copy.add_tokens(
            [
                AddedToken(
                    self._names[token.content],
                    special=False,
                    normalized=token.normalized,
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                )
                for token in controls.values()
            ]
        )
        self._originals = {copy.token_to_id(self._names[token.content]): index for index, token in controls.items()}
        # an unknown character is no forgery
        self._controls = frozenset(controls) - {tokenizer.unk_token_id}
        self._spelled = any_of(self._names)
        self._breakable = any_of([name for name in self._names if is_marker(name)])
        self._copy = copy

    def encode(self, parts: Iterable[Part]) -> list[int]:
        """The ids of the parts as one text, nothing put around it.

        Raises:
            ForgedTokensError: the data can't be kept from becoming control tokens.
        """
        together = [
            Part("".join(part.text for part in group), is_data)
            for is_data, group in groupby(parts, key=lambda part: part.is_data)
        ]
        ids = self._ids(together)
        if self._controls.isdisjoint(ids):
            return [self._originals.get(index, index) for index in ids]
        # some models of subwords hold control tokens as words of their own, which any text can spell
        apart = [Part(break_up(part.text, self._breakable), True) if part.is_data else part for part in together]
        return [self._originals.get(index, index) for index in self._checked(self._ids(apart))]

    def encode_data(self, text: str, second: str | None = None) -> Encoded:
        """A text, or a pair, with what the tokenizer puts around it; all of it data.

        Raises:
            ForgedTokensError: it can't be kept from becoming control tokens.
        """
        texts = [self._harmless(one) for one in (text, second) if one is not None]
        encoding = self._copy.encode(texts[0], texts[1] if len(texts) > 1 else None)
        return Encoded(encoding.ids, encoding.type_ids)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token of a text begins and ends in it."""
        offsets: list[tuple[int, int]] = self._copy.encode(text, add_special_tokens=False).offsets
        return offsets

    def _harmless(self, text: str) -> str:
        if self._controls.isdisjoint(self._ids([Part(text, True)])):
            return text
        text = break_up(text, self._breakable)
        self._checked(self._ids([Part(text, True)]))
        return text

    def _ids(self, parts: Sequence[Part]) -> list[int]:
        text = "".join(part.text if part.is_data else self._renamed(part.text) for part in parts)
        ids: list[int] = self._copy.encode(text, add_special_tokens=False).ids
        return ids

    def _renamed(self, text: str) -> str:
        return self._spelled.sub(lambda match: self._names[match[0]], text)

    def _checked(self, ids: list[int]) -> list[int]:
        if not self._controls.isdisjoint(ids):
            raise ForgedTokensError("text that the tokenizer takes for control tokens")
        return ids


def is_marker(text: str) -> bool:
    """Whether a text can be broken up: two characters or more, no space among them."""
    return len(text) > 1 and not any(map(str.isspace, text))


def break_up(text: str, markers: re.Pattern[str]) -> str:
    """A text in which no marker is spelled any more: a space behind the first character of each."""
    while (broken := markers.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)) != text:
        text = broken
    return text


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds any of these, the longest first."""
    found = sorted(filter(None, texts), key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, found)) if found else r"(?!)")


def shorten(response: str, spans: Sequence[tuple[int, int]], length: Callable[[str], int], room: int) -> str | None:
    """A response without its middle, so that an input with it has at most `room` tokens; None if too little is left.

    Args:
        response: Too long as it is.
        spans: Of its tokens.
        length: How many tokens the input has with a response.
        room: The most that it may have.
    """
    keep = len(spans) - (length(response) - room)
    while keep >= _LEAST:
        head, tail = (keep + 1) // 2, keep // 2
        short = response[: spans[head - 1][1]] + GAP + response[spans[-tail][0] :]
        excess = length(short) - room
        if excess <= 0:
            return short
        keep -= excess
    return None
