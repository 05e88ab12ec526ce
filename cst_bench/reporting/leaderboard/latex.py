"""The LaTeX report of several runs, from `reports/templates/leaderboard.tex.j2`: booktabs tables, for pdflatex.

Every value is escaped. Characters that pdflatex's fonts may lack are shown by their number, as U+4E2D.
"""

from __future__ import annotations

import re

from markupsafe import Markup

from cst_bench.numbers import DASH
from cst_bench.reporting.flags import LETTERS
from cst_bench.reporting.leaderboard.board import Leaderboard
from cst_bench.reporting.leaderboard.markdown import column_groups, corrected_cells, seed_rows, uncorrected_scores
from cst_bench.reporting.score_cells import counts_in_words
from cst_bench.templates import report_templates, template_environment

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
    # `Markup`, as macros return it, counts as safe; `tex` escapes other values, and for LaTeX
    environment = template_environment(report_templates(), tex).overlay(
        # TeX's own braces and percent signs are left alone
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
    environment.filters.update(
        column_groups=column_groups,
        corrected_cells=corrected_cells,
        counts_in_words=counts_in_words,
        seed_rows=seed_rows,
        uncorrected_scores=uncorrected_scores,
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
