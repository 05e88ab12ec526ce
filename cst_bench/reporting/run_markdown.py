"""The Markdown report of a run, from `reports/templates/run.md.j2`. Every value that is put in is escaped by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cst_bench.content import content_root
from cst_bench.escape import cell
from cst_bench.files import write_text
from cst_bench.reporting.examples import examples
from cst_bench.reporting.run_report import LETTERS, Figure, JudgeLine, make_report


class ReproducedCell(Protocol):
    """A cell of the paper's tables (`cst_bench.reproduce.paper_tables.Cell`)."""

    @property
    def score(self) -> float | None:
        """A share in 0 to 1."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 %."""

    @property
    def published(self) -> float | None:
        """As it was published: a share, or a percentage in a table of percentages."""

    @property
    def flags(self) -> tuple[str, ...]:
        """Footnotes."""


def write_report(
    folder: Path,
    scores: Mapping[str, Any],
    settings: Mapping[str, Any],
    logs: Mapping[str, Path],
    *,
    show_text: bool,
) -> Path:
    """Writes `report.md` into a run folder; `logs` are the judged logs by task, for the examples.

    The same run gives the same bytes: no time or path goes in.
    """
    template = markdown_environment(content_root() / "reports" / "templates").get_template("run.md.j2")
    text = template.render(
        report=make_report(scores),
        scores=scores,
        settings=settings,
        examples={task: examples(log, show_text=show_text) for task, log in logs.items()},
        show_text=show_text,
    )
    path = folder / "report.md"
    write_text(path, text)
    return path


def markdown_environment(folder: Path) -> Environment:
    """Templates of a folder, for Markdown: every value that is put in is escaped, unless a filter made it."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown, not HTML: `finalize` escapes every value for it
        finalize=cell,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(share=_share, percent=_percent, interval=_interval, flags=_marks, behaviours=_behaviours)
    environment.filters.update(letter=lambda flag: Markup(f"<sup>{LETTERS[flag]}</sup>"))
    environment.filters.update(copies=_copies, reproduced=_reproduced, has_published=_has_published)
    return environment


def _share(value: float | None) -> Markup:
    return Markup("–" if value is None else f"{value:.2f}")


def _percent(value: float | None) -> Markup:
    return Markup("–" if value is None else f"{100 * value:.1f}")


def _interval(figure: Figure | JudgeLine, scale: int = 1) -> Markup:
    if figure.interval is None:
        return Markup("–")
    digits = 2 if scale == 1 else 1
    low, high = (scale * end for end in figure.interval)
    return Markup(f"{low:.{digits}f} to {high:.{digits}f}")


def _marks(figure: Figure) -> Markup:
    """Footnote letters behind a number."""
    return Markup("".join(f"<sup>{LETTERS[flag]}</sup>" for flag in figure.flags))


def _copies(copies: float) -> str:
    return "each row once a pass" if copies == 1 else f"each row {copies:g} times a pass"


def _reproduced(cell: ReproducedCell, percent: bool) -> Markup:
    """Score, published value and interval of a cell of the paper's tables."""

    def number(value: float) -> str:
        return f"{100 * value:.1f}" if percent else f"{value:.2f}"

    text = "–" if cell.score is None else number(cell.score)
    if cell.published is not None:
        text += f" ({cell.published:.1f})" if percent else f" ({cell.published:.2f})"
    text += "".join(f"<sup>{LETTERS[flag]}</sup>" for flag in cell.flags)
    if cell.interval is not None:
        text += f"<br><sub>{number(cell.interval[0])} to {number(cell.interval[1])}</sub>"
    return Markup(text)


def _has_published(tables: Sequence[Any]) -> bool:
    return any(cell.published is not None for table in tables for row in table.rows for cell in row.cells)


def _behaviours(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
