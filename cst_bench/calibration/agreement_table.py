"""Inter-rater agreement as a Markdown table."""

from __future__ import annotations

from cst_bench.escape import cell
from cst_bench.statistics.agreement import Agreement
from cst_bench.statistics.intervals import Estimate

_HEADER = ("Raters", "n", "Raw agreement", "Kappa or alpha")


def agreement_markdown(result: Agreement) -> str:
    """Return a Markdown table: raters, n, raw agreement, and the chance-corrected coefficient."""
    rows = [
        (" and ".join(pair.raters), str(pair.n), _shown(pair.raw), f"Cohen's kappa {_shown(pair.kappa)}")
        for pair in result.pairs
    ]
    if len(result.scored) > 2:
        fleiss = f"Fleiss' kappa {_shown(result.fleiss_kappa)}"
        rows.append(("all, on rows that all scored", str(result.n_complete), "", fleiss))
    alpha = f"Krippendorff's alpha {_shown(result.krippendorff_alpha)}"
    rows.append(("all", str(result.n), _shown(result.raw), alpha))
    lines = [_HEADER, ("---", "---:", "---:", "---"), *(tuple(map(cell, row)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _shown(estimate: Estimate) -> str:
    if estimate.value is None:
        return "undefined"
    if estimate.interval is None:
        return f"{estimate.value:.2f}"
    low, high = estimate.interval
    return f"{estimate.value:.2f} [{low:.2f}, {high:.2f}]"
