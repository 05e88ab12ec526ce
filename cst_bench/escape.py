"""Escape untrusted text for Markdown cells, HTML and the terminal, so that it cannot add markup, HTML or links."""

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
    """Return a value as one Markdown table cell: `Markup` is already safe, None becomes a dash."""
    if isinstance(value, Markup):
        return str(value)
    if value is None:
        return "–"
    text = html.escape("".join(visible(character) for character in str(value)), quote=False)
    text = _SPECIAL.sub(r"\\\1", text)
    text = _AUTOLINK.sub(lambda match: match[0][:-1] + f"&#{ord(match[0][-1])};", text)
    text = text.replace("@", "@<!-- -->")  # GitHub links mail addresses after it has decoded entities
    return "<br>".join(map(str.strip, text.strip().split("\n")))


def text_of(markdown: str) -> str:
    """Return the text that `cell` was given, except for spaces around lines and invisible characters."""
    text = markdown.replace("<br>", "\n").replace("@<!-- -->", "@")
    return html.unescape(_ESCAPED.sub(r"\1", text))


def html_text(value: str) -> Markup:
    """Return text for an HTML element, on one line and without markup."""
    return Markup(html.escape(" ".join("".join(map(visible, value)).split())))


def plain(value: object) -> str:
    """Return text for rich, with its markup and control characters disabled."""
    return rich_escape("".join(map(visible, str(value))))


def visible(character: str) -> str:
    """Return a character, or its code point (`\\u202e`) if it is a control or direction-changing character."""
    if character in "\n\t":
        return character
    if character == "\r":
        return ""
    return (
        f"\\u{ord(character):04x}" if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else character
    )
