"""A calibration's folder (card, report, plots), and its table on the terminal and in a notebook."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Template
from markupsafe import Markup
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from cst_bench.calibration.agreement_table import agreement_markdown
from cst_bench.calibration.judge_comparison import BenchRow, JudgeBench
from cst_bench.calibration.labels import LabelSet
from cst_bench.calibration.robustness import AttackResult
from cst_bench.escape import cell
from cst_bench.files import write_text
from cst_bench.judging.card import CalibrationCard
from cst_bench.numbers import DASH, ends, number
from cst_bench.statistics.agreement import Agreement
from cst_bench.statistics.intervals import Estimate, Interval
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
        *([] if card.retest is None else [_retest_line(card.retest)]),
    )


def _retest_line(retest: Agreement) -> str:
    same, alpha = retest.raw, retest.krippendorff_alpha
    return (
        f"asked {len(retest.scored)} times: {_number(same.value)} ({_ends(same.interval)}) of pairs of verdicts are "
        f"the same, Krippendorff's alpha {_number(alpha.value)}"
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


MARKS = {"judged": "", "held out": "*", "released": "†", "people": "‡", "published": "§"}
"""Source of a row's verdicts → its mark in tables."""
MEANINGS = {
    "held out": "trained on the set: verdicts of trainings that had left out the prompt (and, on XSTest, the model)",
    "released": "verdicts that come with the labels",
    "people": "annotators against each other, every pair both ways: what a person reaches as the judge",
    "published": "as published, on the whole set",
}
"""Flag → its meaning."""


def write_bench(folder: Path, measured: JudgeBench) -> None:
    """Write `bench.json` and `report.md` of a comparison of judges."""
    write_text(folder / "report.md", bench_markdown(measured))
    measured.write(folder)


def bench_markdown(measured: JudgeBench) -> str:
    """Return a comparison of judges as Markdown."""
    return _template("bench.md.j2").render(bench=measured, marks=MARKS, meanings=MEANINGS)


def bench_table(measured: JudgeBench) -> RenderableType:
    """Return a comparison of judges as tables, 80 columns wide at most, and what their marks mean."""
    parts: list[RenderableType] = []
    for labels in measured.sets:
        table = Table(title=f"{escape(labels.title)} (n {labels.n})", title_justify="left")
        table.add_column("Judge", no_wrap=True)
        for column in (*(f"F1 {name}" for name in labels.behaviours), "macro F1", "95 %", "n"):
            table.add_column(column, justify="right", no_wrap=column == "95 %")
        for row in labels.rows:
            if row.n is not None:
                table.add_row(
                    escape(f"{row.judge} {MARKS[row.source]}".rstrip()),
                    *(_number(row.f1[name].value if name in row.f1 else None) for name in labels.behaviours),
                    _number(row.macro_f1.value),
                    _ends(row.macro_f1.interval),
                    str(row.n),
                )
        parts.append(table)
        parts += [f"{escape(row.judge)}: {escape(_remark(row))}" for row in labels.rows if row.n is None]
    used = {row.source for labels in measured.sets for row in labels.rows if row.n is not None}
    parts += [f"{MARKS[source]} {meaning}" for source, meaning in MEANINGS.items() if source in used]
    return Group(*parts)


def _remark(row: BenchRow) -> str:
    """Return what is known of a judge without verdicts: a published figure, or why it was not measured."""
    if row.source != "published":
        return str(row.note)
    metric, estimate = ("accuracy", row.accuracy) if row.macro_f1.value is None else ("macro F1", row.macro_f1)
    return f"{metric} {_number(estimate.value)} (published: {row.note})"


def _estimate(estimate: Estimate | None) -> Markup:
    if estimate is None or estimate.value is None:
        return Markup(DASH)
    interval = f" ({_ends(estimate.interval)})" if estimate.interval else ""
    return Markup(f"{_number(estimate.value)}{interval}")


def _template(name: str) -> Template:
    environment = markdown_environment(report_templates())
    environment.filters.update(
        fine=lambda value: Markup(_number(value)),
        fine_ends=lambda interval: Markup(_ends(interval)),
        estimate=_estimate,
        count=lambda value: Markup(DASH if value is None else f"{value:,}"),
        agreement_table=lambda panel: Markup(agreement_markdown(panel)),
    )
    return environment.get_template(name)


def _number(value: float | None) -> str:
    return number(value, 1, _DIGITS)


def _ends(interval: Interval | None) -> str:
    return ends(interval, 1, _DIGITS)
