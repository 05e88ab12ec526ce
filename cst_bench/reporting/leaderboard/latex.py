"""The LaTeX report of several runs, from `reports/templates/leaderboard.tex.j2`: booktabs tables, for pdflatex.

Every value is escaped. Characters that pdflatex's fonts may lack are shown by their number, as U+4E2D.
"""

from __future__ import annotations

import re

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cst_bench.numbers import DASH, ends, number, p_value, signed, signed_ends
from cst_bench.reporting.flags import LETTERS
from cst_bench.reporting.leaderboard.board import Leaderboard
from cst_bench.reporting.leaderboard.markdown import column_groups, corrected_cells
from cst_bench.templates import report_templates

_COMMANDS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "$": r"\$",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "|": r"\textbar{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    # would be curly, or part of a ligature
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    # what follows a row's end or a rule could be taken as its option
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "‘": r"\textquoteleft{}",
    "’": r"\textquoteright{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "…": r"\textellipsis{}",
    "−": "$-$",
}
_LIGATURE = re.compile(r"([-,])(?=\1)")
_LONG, _LONGEST = 8, 12
"""Number of characters of a word that may be broken, and of its longest part without a break."""
_PIECE = re.compile(rf"[^/_:-]{{1,{_LONGEST}}}[/_:-]?|[/_:-]")


def latex_report(board: Leaderboard) -> str:
    """Return the whole document."""
    environment = Environment(
        loader=FileSystemLoader(report_templates()),
        undefined=StrictUndefined,
        autoescape=True,  # so that what a macro made counts as safe; `finalize` escapes, and for LaTeX
        finalize=tex,
        # TeX's own braces and percent signs are left alone
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        number=number,
        ends=ends,
        signed=signed,
        signed_ends=signed_ends,
        p_value=p_value,
        column_groups=column_groups,
        corrected_cells=corrected_cells,
    )
    return environment.get_template("leaderboard.tex.j2").render(board=board, letters=LETTERS)


def tex(value: object) -> Markup:
    """Escape text for a LaTeX cell or heading, on one line. `Markup` is already safe; None is a dash."""
    if isinstance(value, Markup):
        return value
    return Markup(" ".join(map(_word, str(DASH if value is None else value).split())))


def _word(word: str) -> str:
    """Allow breaks in a long word: after punctuation, and where there is none for too long."""
    pieces = _PIECE.findall(word) if len(word) > _LONG else [word]
    safe = r"\allowbreak{}".join("".join(map(_character, piece)) for piece in pieces)
    return _LIGATURE.sub(r"\1{}", safe)


def _character(character: str) -> str:
    if character in _COMMANDS:
        return _COMMANDS[character]
    # of Latin-1, T1's and the text companion's fonts have everything but the soft hyphen, which is invisible
    if " " <= character <= "~" or ("\u00a1" <= character <= "\u00ff" and character != "\u00ad"):
        return character
    return rf"\texttt{{U+{ord(character):04X}}}"
