"""A calibration's folder (card, report, plots), and its table on the terminal and in a notebook."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Template
from markupsafe import Markup
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from cst_bench.calibration.agreement_table import agreement_markdown
from cst_bench.calibration.labels import LabelSet
from cst_bench.calibration.robustness import AttackResult
from cst_bench.escape import cell
from cst_bench.files import write_text
from cst_bench.judging.card import CalibrationCard
from cst_bench.numbers import ends, number
from cst_bench.statistics.intervals import Interval
from cst_bench.templates import markdown_environment, report_templates

TITLES = {
    "macro_f1": "Macro F1",
    "balanced_accuracy": "Balanced accuracy",
    "mcc": "Matthews correlation",
    "kappa": "Cohen's kappa",
    "agreement": "Raw agreement",
}
ACCURACY = {**TITLES, "agreement": "Accuracy"}
"""Agreement is accuracy only with people's labels."""
_DIGITS = 3


def write_calibration(folder: Path, card: CalibrationCard, labels: LabelSet | None, *, plots: bool = True) -> None:
    """Write `card.json`, `report.md` and the plots; with labels, the report shows texts where the judge disagrees."""
    from cst_bench.calibration.calibration_plots import draw

    if plots:
        draw(card, folder)
    texts = {row.id: (row.case.prompt, row.case.response) for row in labels.rows} if labels else {}
    text = _template("calibration.md.j2").render(
        card=card,
        measured=measured(card),
        titles=ACCURACY if card.measures == "accuracy" else TITLES,
        texts=texts,
    )
    write_text(folder / "report.md", text)
    card.write(folder)


def calibration_table(card: CalibrationCard) -> RenderableType:
    """Return a card as a table, 80 columns wide at most."""
    table = Table()
    for column in ("", "F1", "95 %", "precision", "recall", "labelled"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    *behaviours, macro = _rows(card)
    for name, *values in behaviours:
        table.add_row(escape(name), *values)
    table.add_row(*macro, style="bold")
    others = {"balanced_accuracy": card.balanced_accuracy, "mcc": card.mcc, "kappa": card.kappa}
    return Group(
        f"[bold]{escape(card.judge.name)}[/bold] on {escape(card.labels.name)}: {escape(measured(card))}",
        table,
        ", ".join(f"{TITLES[name]} {_number(estimate.value)}" for name, estimate in others.items()),
        f"{len(card.disagreements)} disagreements, {sum(card.unscored.values())} unscored of {card.labels.n}",
    )


def calibration_markdown(card: CalibrationCard) -> str:
    """Return a card as a small Markdown table."""
    lines = [
        f"**{cell(card.judge.name)}** on {cell(card.labels.name)}: {cell(measured(card))}\n",
        "| Behaviour | F1 | 95 % interval | Precision | Recall | Labelled |",
        "|---|---:|---:|---:|---:|---:|",
        *(f"| {cell(name)} | {' | '.join(values)} |" for name, *values in _rows(card)),
    ]
    return "\n".join(lines) + "\n"


def _rows(card: CalibrationCard) -> list[tuple[str, str, str, str, str, str]]:
    """Return F1, interval, precision, recall and number of labels of each behaviour, and of macro F1."""
    rows = [
        (
            name,
            _number(metrics.f1.value),
            _ends(metrics.f1.interval),
            _number(metrics.precision.value),
            _number(metrics.recall.value),
            str(metrics.counts.tp + metrics.counts.fn),
        )
        for name, metrics in card.behaviours.items()
    ]
    return [*rows, ("macro F1", _number(card.macro_f1.value), _ends(card.macro_f1.interval), "", "", str(card.n))]


def measured(card: CalibrationCard) -> str:
    """Return what the metrics of a card are: `agreement with gpt-4's labels`, or accuracy by people's."""
    return f"{card.measures} {'by' if card.measures == 'accuracy' else 'with'} {card.agreement_with}"


def write_attack(folder: Path, result: AttackResult) -> None:
    """Write `attack.json` and `report.md` of an attack on a judge."""
    write_text(folder / "report.md", _template("attack.md.j2").render(attack=result))
    result.write(folder)


def _template(name: str) -> Template:
    environment = markdown_environment(report_templates())
    environment.filters.update(
        fine=lambda value: Markup(_number(value)),
        fine_ends=lambda interval: Markup(_ends(interval)),
        agreement_table=lambda panel: Markup(agreement_markdown(panel)),
    )
    return environment.get_template(name)


def _number(value: float | None) -> str:
    return number(value, 1, _DIGITS)


def _ends(interval: Interval | None) -> str:
    return ends(interval, 1, _DIGITS)
