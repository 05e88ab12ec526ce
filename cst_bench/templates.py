"""Jinja environments of the project's templates: every value is escaped unless a filter made it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cst_bench.content import content_root
from cst_bench.escape import cell
from cst_bench.numbers import ends, number, p_value, signed, signed_ends


def report_templates() -> Path:
    """Return the folder of the report templates."""
    return content_root() / "reports" / "templates"


def training_templates() -> Path:
    """Return the folder of the training card templates."""
    return content_root() / "training"


def template_environment(folder: Path, finalize: Callable[[object], object], *, autoescape: bool = True) -> Environment:
    """Make a Jinja environment for the templates of a folder, with filters for numbers.

    Args:
        folder: Folder of the templates.
        finalize: Escapes a value for the format.
        autoescape: Let Jinja tell escaped text (`Markup`) from other text.
    """
    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        autoescape=autoescape,  # noqa: S701 - where it is off, `finalize` escapes every value
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, ends=ends, signed=signed, signed_ends=signed_ends, p_value=p_value)
    return environment


def markdown_environment(folder: Path) -> Environment:
    """Make a Jinja environment for the Markdown templates of a folder.

    Every value is escaped for Markdown. The number filters take the scale of `cst_bench.numbers`: 1 for shares, 100
    for percentages.
    """
    # Markdown, not HTML: `finalize` escapes every value for it
    environment = template_environment(folder, cell, autoescape=False)
    environment.filters.update(
        number=lambda value, scale=1, digits=None: Markup(number(value, scale, digits)),
        ends=lambda interval, scale=1: Markup(ends(interval, scale)),
        signed=lambda value, scale=1, digits=None: Markup(signed(value, scale, digits)),
        signed_ends=lambda interval, scale=1, digits=None: Markup(signed_ends(interval, scale, digits)),
        p_value=lambda value: Markup(p_value(value)),
    )
    return environment
