"""Fill a judge's prompt with untrusted text so that the text stays data.

Every piece is fenced by a marker that no piece contains. The marker is 128 bits of a keyed hash (HMAC-SHA256) of the
pieces and of the judge. The key is a random secret that is kept with the cache of answers, so whoever writes a response
can neither know the marker nor try until they hit it. It is not a random number for each call, so that the same case
gives the same prompt, and an answer that was paid for is found in the cache.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping

from cst_bench.files import canonical_json

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_SURROGATE = re.compile("[\ud800-\udfff]")


def make_marker(secret: bytes, identity: str, pieces: Mapping[str, str]) -> str:
    """Return 32 hex digits that are in none of the pieces, ignoring case.

    Args:
        secret: Key, as from `AnswerCache.secret`. The marker is the same for the same key, judge and pieces.
        identity: Identity of the judge.
        pieces: Name → untrusted text.
    """
    texts = [clean(text).casefold() for text in pieces.values()]
    counter = 0
    while True:
        text = canonical_json([identity, {name: clean(piece) for name, piece in pieces.items()}, counter])
        marker = hmac.digest(secret, text.encode(), "sha256").hex()[:32]
        if not any(marker in piece for piece in texts):
            return marker
        counter += 1


def fill(template: str, marker: str, pieces: Mapping[str, str], trusted: Mapping[str, str]) -> str:
    """Fill a template's placeholders in one pass, so that a placeholder inside a piece is never filled.

    Args:
        template: Text with `{name}` for each piece and each trusted text.
        marker: As from `make_marker`.
        pieces: Name → untrusted text, put between two lines that have the marker.
        trusted: Name → text of the judge file, put in as it is.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name in pieces:
            return f"[{name} {marker}]\n{clean(pieces[name])}\n[end of {name} {marker}]"
        return trusted[name]

    return _PLACEHOLDER.sub(value, template)


def placeholders(template: str) -> set[str]:
    """Return the names of a template's placeholders."""
    return set(_PLACEHOLDER.findall(template))


def clean(text: str) -> str:
    """Replace lone surrogates, which no request can carry, by the replacement character."""
    return _SURROGATE.sub("\ufffd", text)
