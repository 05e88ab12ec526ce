"""Fill a judge's prompt with untrusted text so that the text stays data.

Every piece is fenced by a marker that no piece contains. The marker is a hash of the pieces and of the judge, so it
cannot be known while a response is written: the response would have to contain a hash of itself. It is not a random
number, so that the same case gives the same prompt, and an answer that was paid for is found in the cache.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from cst_bench.files import canonical_json

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_SURROGATE = re.compile("[\ud800-\udfff]")


def make_marker(identity: str, pieces: Mapping[str, str]) -> str:
    """Return 16 hex digits that are in none of the pieces, ignoring case; the same for the same judge and pieces."""
    texts = [clean(text).casefold() for text in pieces.values()]
    counter = 0
    while True:
        text = canonical_json([identity, {name: clean(piece) for name, piece in pieces.items()}, counter])
        marker = hashlib.sha256(text.encode()).hexdigest()[:16]
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
