"""The text that a reader sees: without invisible characters and control sequences."""

from __future__ import annotations

import re
import unicodedata

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


def visible(text: str) -> str:
    """Return a text without terminal escapes, control characters and zero-width characters.

    Judges that compare characters read this, so that invisible characters cannot hide a word from them.
    """
    shown = _ESCAPES.sub("", text)
    hidden = {ord(letter) for letter in set(shown) - set("\n\t\r") if unicodedata.category(letter) in ("Cc", "Cf")}
    return shown.translate(dict.fromkeys(hidden)) if hidden else shown
