"""The HTML report of several runs, from `reports/templates/leaderboard.html.j2`: one file, no network.

Every value is escaped. The page's content security policy allows its own style, its own script and embedded plots, each
by its hash or kind, and nothing else: text that got in as markup could neither run nor load anything.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Sequence

from markupsafe import Markup

from cst_bench.escape import visible
from cst_bench.numbers import DASH
from cst_bench.reporting.flags import LETTERS
from cst_bench.reporting.leaderboard.board import Leaderboard
from cst_bench.reporting.leaderboard.markdown import column_groups, corrected_cells, seed_rows, uncorrected_scores
from cst_bench.reporting.plots.draw import Plot
from cst_bench.reporting.score_cells import counts_in_words
from cst_bench.statistics.labelled_pairs import PPI
from cst_bench.templates import report_templates, template_environment

_WIDE = 400
"""In points."""
_WIDTH = re.compile(r'<svg\b[^>]*?\swidth="([0-9.]+)pt"')
_PIECE = re.compile(r"[^/_:]+[/_:]*|[/_:]+")


def html_report(board: Leaderboard, plots: Sequence[Plot] = ()) -> str:
    """Return the whole page. Plots are embedded as images, in which a browser runs nothing and follows no link."""
    folder = report_templates()
    environment = template_environment(folder, _shown)
    environment.filters.update(
        column_groups=column_groups,
        corrected_cells=corrected_cells,
        counts_in_words=counts_in_words,
        seed_rows=seed_rows,
        uncorrected_scores=uncorrected_scores,
        breakable=_breakable,
        data_uri=_data_uri,
        wide=_wide,
    )
    style, script = ((folder / f"leaderboard.{suffix}").read_text(encoding="utf-8").strip() for suffix in ("css", "js"))
    return environment.get_template("leaderboard.html.j2").render(
        board=board,
        ppi=PPI,
        plots=plots,
        letters=LETTERS,
        style=Markup(style),
        script=Markup(script),
        policy="; ".join(
            [
                "default-src 'none'",
                f"style-src '{_source(style)}'",
                f"script-src '{_source(script)}'",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
            ]
        ),
    )


def _shown(value: object) -> object:
    """Return text with invisible characters made visible; leave what the template made as it is."""
    if isinstance(value, Markup):
        return value
    return DASH if value is None else "".join(map(visible, str(value)))


def _breakable(text: str | None) -> Markup:
    """Return a name that may be broken after its punctuation."""
    return Markup("<wbr>").join(_PIECE.findall(str(_shown(text))))


def _source(text: str) -> str:
    """Return the hash by which a content security policy allows inline text."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"


def _wide(svg: str) -> bool:
    """Return whether a plot is too wide to be legible on the screen of a phone."""
    width = _WIDTH.search(svg)
    return width is None or float(width[1]) > _WIDE
