"""Tokenization of a guard's input, which is partly its own format and partly data that never becomes a control token.

A prompt or a response may contain `<|eot_id|>` or `[/INST]`. A tokenizer turns such text into the token that ends a
turn, and the response would continue in the guard's own voice. Here control tokens are recognised in the format's text
only; text without such strings gets exactly the ids that the tokenizer itself gives it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from cst_bench.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

GAP = " […] "
"""Replaces the omitted middle of a response."""
_LEAST = 8
"""Fewest tokens to keep of a response; with fewer there is nothing to judge."""


class InputPart(NamedTuple):
    """Piece of an input: text of the format, or data."""

    text: str
    is_data: bool = False


class GuardInput(NamedTuple):
    """Tokenized input of a guard."""

    ids: list[int]
    type_ids: list[int]
    """Which of a pair's two texts each token belongs to: 0 or 1."""
    left_out: int = 0
    """Tokens omitted from the response to make it fit."""


class ForgedTokensError(ValueError):
    """Data that the tokenizer takes for control tokens, even after they are broken up."""


class DataTokenizer:
    """Copy of a tokenizer in which every control token has a random name that no data can contain."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, format_text: str) -> None:
        """Copy a tokenizer.

        Args:
            tokenizer: Its special tokens are control tokens.
            format_text: Text of the guard's template: added tokens that it contains are control tokens, too.

        Raises:
            UserError: the tokenizer is not a fast one.
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
            token["special"] = token["id"] in controls  # special tokens are those that can be left unrecognised
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
        # an unknown character is not a forgery
        self._controls = frozenset(controls) - {tokenizer.unk_token_id}
        self._control_texts = match_any(self._names)
        self._breakable = match_any([name for name in self._names if is_marker(name)])
        self._copy = copy

    def encode(self, parts: Iterable[InputPart]) -> list[int]:
        """Return the ids of the parts as one text, without the tokens that the tokenizer puts around a text.

        Raises:
            ForgedTokensError: the data would become control tokens.
        """
        merged = [
            InputPart("".join(part.text for part in group), is_data)
            for is_data, group in groupby(parts, key=lambda part: part.is_data)
        ]
        ids = self._ids(merged)
        if self._controls.isdisjoint(ids):
            return self._restored(ids)
        # some subword models hold control tokens as ordinary words, which any text can contain
        broken_up = [InputPart(break_up(part.text, self._breakable), True) if part.is_data else part for part in merged]
        return self._restored(self._checked(self._ids(broken_up)))

    def encode_data(self, text: str, second: str | None = None) -> GuardInput:
        """Tokenize a text, or a pair of texts, all of it data, with the tokens that the tokenizer puts around it.

        Raises:
            ForgedTokensError: the data would become control tokens.
        """
        pair = None if second is None else self._harmless(second)
        encoding = self._copy.encode(self._harmless(text), pair)
        return GuardInput(encoding.ids, encoding.type_ids)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the start and end of each token in a text, in characters."""
        offsets: list[tuple[int, int]] = self._copy.encode(text, add_special_tokens=False).offsets
        return offsets

    def _harmless(self, text: str) -> str:
        """Return a text in which no control token is recognised."""
        if self._controls.isdisjoint(self._ids([InputPart(text, True)])):
            return text
        text = break_up(text, self._breakable)
        self._checked(self._ids([InputPart(text, True)]))
        return text

    def _ids(self, parts: Sequence[InputPart]) -> list[int]:
        text = "".join(part.text if part.is_data else self._renamed(part.text) for part in parts)
        ids: list[int] = self._copy.encode(text, add_special_tokens=False).ids
        return ids

    def _renamed(self, text: str) -> str:
        return self._control_texts.sub(lambda match: self._names[match[0]], text)

    def _restored(self, ids: list[int]) -> list[int]:
        return [self._originals.get(index, index) for index in ids]

    def _checked(self, ids: list[int]) -> list[int]:
        if not self._controls.isdisjoint(ids):
            raise ForgedTokensError("text that the tokenizer takes for control tokens")
        return ids


def is_marker(text: str) -> bool:
    """Return whether a text can be broken up: it has two characters or more, none of them a space."""
    return len(text) > 1 and not any(map(str.isspace, text))


def break_up(text: str, markers: re.Pattern[str]) -> str:
    """Insert a space after the first character of every marker in a text, until it contains none."""
    while (broken := markers.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)) != text:
        text = broken
    return text


def match_any(texts: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that matches any of these texts, the longest first."""
    ordered = sorted(filter(None, texts), key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, ordered)) if ordered else r"(?!)")


def shorten(response: str, spans: Sequence[tuple[int, int]], length: Callable[[str], int], room: int) -> str | None:
    """Omit the middle of a response so that an input with it fits; return None if too little would be left.

    Args:
        response: Response that is too long.
        spans: Start and end of each of its tokens, in characters.
        length: Function that returns the number of tokens of the input with a given response.
        room: Most tokens that the input may have.
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
