"""Tokenization of text that is partly a format, such as a chat template's, and partly data.

A prompt or a response may contain `<|eot_id|>` or `[/INST]`. A tokenizer turns such text into the token that ends a
turn, and the rest would be read as another's turn. Here control tokens are recognised in the format's text only; text
without such strings gets exactly the ids that the tokenizer itself gives it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from cst_bench.errors import UserError

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerBase

_BRACKETED = re.compile(r"[<\[{|｜].*[>\]}|｜]", re.DOTALL)
_HTML_TAG = re.compile(r"</?[a-z]+[1-6]?>")
"""Gemma has these as added tokens: they are ordinary text."""


class InputPart(NamedTuple):
    """Piece of a text: of the format, or data."""

    text: str
    is_data: bool = False


class ForgedTokensError(ValueError):
    """Data that the tokenizer takes for control tokens, even after they are broken up."""


class DataTokenizer:
    """Copy of a tokenizer in which every control token has a random name that no data can contain."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, format_text: str) -> None:
        """Copy a tokenizer.

        Args:
            tokenizer: Tokenizer to copy.
            format_text: Text of the format, as for `control_tokens`.

        Raises:
            UserError: the tokenizer is not a fast one.
        """
        from tokenizers import AddedToken, Tokenizer

        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise UserError(f"{tokenizer.name_or_path}: this needs a fast tokenizer, one with a tokenizer.json")
        controls = control_tokens(tokenizer, format_text)
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
        self._controls = frozenset(controls) - unknown_ids(tokenizer)
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

    def encode_data(self, text: str, second: str | None = None) -> tuple[list[int], list[int]]:
        """Tokenize a text, or a pair of texts, all of it data, with the tokens that the tokenizer puts around it.

        Returns:
            The ids, and for each which of the two texts it belongs to, 0 or 1.

        Raises:
            ForgedTokensError: the data would become control tokens.
        """
        pair = None if second is None else self._harmless(second)
        encoding = self._copy.encode(self._harmless(text), pair)
        return encoding.ids, encoding.type_ids

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


def control_tokens(tokenizer: PreTrainedTokenizerBase, format_text: str) -> dict[int, AddedToken]:
    """Return a tokenizer's control tokens by id: its added tokens that data must not become.

    These are special tokens, those that the format writes, and those that look like markers (`<tool_call>`, `[IMG]`).
    Other added tokens, such as runs of spaces, HTML tags and words, are ordinary text.

    Args:
        tokenizer: The tokenizer.
        format_text: Text of the format, such as a chat template.
    """
    special = set(tokenizer.all_special_tokens)

    def is_control(token: AddedToken) -> bool:
        text = token.content
        if token.special or text in special:
            return True
        if not is_marker(text) or text.isalnum():
            return False
        return text in format_text or (_BRACKETED.fullmatch(text) is not None and not _HTML_TAG.fullmatch(text))

    return {index: token for index, token in tokenizer.added_tokens_decoder.items() if is_control(token)}


def unknown_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids that an unknown character gets, which is not a forgery."""
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    names = {tokenizer.unk_token, getattr(model, "unk_token", None)} - {None}
    return frozenset(tokenizer.convert_tokens_to_ids(sorted(names)))


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
