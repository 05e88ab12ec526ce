"""Hooks of mkdocs: the notebook runs without progress bars, and pages load nothing from other hosts."""

from __future__ import annotations

import os
import re

_WIDGETS = re.compile(r"<script>\s*\(function\(\) \{\s*function addWidgetsRenderer\(\).*?</script>", re.DOTALL)
"""mkdocs-jupyter's script that loads the renderer of widgets from a CDN; the notebook's page shows none."""
_FOREIGN = re.compile(
    r"<(?:script|img|iframe|link[^>]+stylesheet)[^>]+(?:src|href)=[\"']https?://[^\"']+|https?://unpkg\.com\S+"
)


def on_startup(**_: object) -> None:
    """Set the environment of the notebook's kernel: as on the command line, libraries show no progress of their own."""
    os.environ.update(TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error")


def on_post_page(output: str, **_: object) -> str:
    """Return a page without the script for widgets.

    Raises:
        ValueError: the page loads something else from another host.
    """
    page = _WIDGETS.sub("", output)
    if foreign := _FOREIGN.search(page):
        raise ValueError(f"a page loads something from another host: {foreign[0]}")
    return page
