"""Makes any text safe in a Markdown table cell: it can't end the cell, start markup, or bring HTML or links."""

from __future__ import annotations

import html
import re
import unicodedata

from markupsafe import Markup
from rich.markup import escape as rich_escape

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_ESCAPED = re.compile(r"\\([\\`*_\[\]|~$])")
_AUTOLINK = re.compile(r"(?i)(https?|ftp|mailto|xmpp)(:)|(www)(\.)")


def cell(value: object) -> str:
    """Text for one Markdown cell. `Markup` is taken as already safe, None is a dash."""
    if isinstance(value, Markup):
        return str(value)
    if value is None:
        return "–"
    text = html.escape("".join(visible(character) for character in str(value)), quote=False)
    text = _SPECIAL.sub(r"\\\1", text)
    text = _AUTOLINK.sub(lambda match: match[0][:-1] + f"&#{ord(match[0][-1])};", text)
    text = text.replace("@", "@<!-- -->")  # GitHub looks for addresses of mail after entities are read
    return "<br>".join(map(str.strip, text.strip().split("\n")))


def text_of(made: str) -> str:
    """The text that `cell` made a Markdown cell of, but for spaces around lines and what is invisible."""
    text = made.replace("<br>", "\n").replace("@<!-- -->", "@")
    return html.unescape(_ESCAPED.sub(r"\1", text))


def html_text(value: str) -> Markup:
    """Text for an element of HTML, where Markdown isn't read: on one line, and it brings no markup."""
    return Markup(html.escape(" ".join("".join(map(visible, value)).split())))


def plain(value: object) -> str:
    """Text for rich: its markup and control characters do nothing."""
    return rich_escape("".join(map(visible, str(value))))


def visible(character: str) -> str:
    """Control and direction-changing characters by their number, so that they show and do nothing."""
    if character in "\n\t":
        return character
    if character == "\r":
        return ""
    return (
        f"\\u{ord(character):04x}" if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else character
    )
