"""A calibration's folder: card, report, pictures; and its table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from cst_bench.calibration.labels import LabelSet
from cst_bench.content import content_root
from cst_bench.files import write_json, write_text
from cst_bench.reporting.run_markdown import markdown_environment
from cst_bench.statistics.judge_agreement import agreement_markdown

TITLES = {
    "macro_f1": "Macro F1",
    "balanced_accuracy": "Balanced accuracy",
    "mcc": "Matthews correlation",
    "kappa": "Cohen's kappa",
    "agreement": "Raw agreement",
}
ACCURACY = {**TITLES, "agreement": "Accuracy"}
"""Only people's labels make agreement with them accuracy."""


def write_calibration(folder: Path, card: Mapping[str, Any], labels: LabelSet | None, *, pictures: bool = True) -> None:
    """Writes `card.json`, `report.md` and the pictures; with labels, their texts where the judge disagrees, too."""
    from cst_bench.calibration.calibration_plots import draw

    if pictures:
        draw(card, folder)
    environment = markdown_environment(content_root() / "reports" / "templates")
    environment.filters.update(fine=_fine, ends=_ends, between=lambda panel: Markup(agreement_markdown(panel)))
    texts = {row.id: (row.case.prompt, row.case.response) for row in labels.rows} if labels else {}
    shown = {**card, "judge": {"model": None, **card["judge"]}, "measured": measured(card)}
    titles = ACCURACY if card["measures"] == "accuracy" else TITLES
    text = environment.get_template("calibration.md.j2").render(card=shown, titles=titles, texts=texts)
    write_text(folder / "report.md", text)
    write_json(folder / "card.json", dict(card))


def calibration_table(card: Mapping[str, Any]) -> RenderableType:
    """What a calibration ends with on the terminal, 80 columns wide at most."""
    table = Table()
    for column in ("", "F1", "95 %", "precision", "recall", "labelled"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for name, found in card["behaviours"].items():
        counts = found["counts"]
        table.add_row(
            escape(name),
            _number(found["f1"]["value"]),
            _range(found["f1"]["interval"]),
            _number(found["precision"]["value"]),
            _number(found["recall"]["value"]),
            str(counts["tp"] + counts["fn"]),
        )
    macro = card["macro_f1"]
    table.add_row("macro F1", _number(macro["value"]), _range(macro["interval"]), "", "", str(card["n"]), style="bold")
    rest = ", ".join(f"{TITLES[name]} {_number(card[name]['value'])}" for name in ("balanced_accuracy", "mcc", "kappa"))
    unscored = sum(card["unscored"].values())
    parts: list[RenderableType] = [
        f"[bold]{escape(card['judge']['name'])}[/bold] on {escape(card['labels']['name'])}: {measured(card)}",
        table,
        rest,
        f"{len(card['disagreements'])} disagreements, {unscored} unscored of {card['labels']['n']}",
    ]
    return Group(*parts)


def measured(card: Mapping[str, Any]) -> str:
    """What a card's figures are, in words: `agreement with gpt-4's labels`, or accuracy by people's."""
    return f"{card['measures']} {'by' if card['measures'] == 'accuracy' else 'with'} {card['agreement_with']}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _range(interval: Sequence[float] | None) -> str:
    return "–" if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}"


def _fine(value: float | None) -> Markup:
    return Markup(_number(value))


def _ends(interval: Sequence[float] | None) -> Markup:
    return Markup("–" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}")


def write_attack(folder: Path, found: Mapping[str, Any]) -> None:
    """Writes `attack.json` and `report.md`: what attacks did to a judge (`cst_bench.calibration.robustness`)."""
    environment = markdown_environment(content_root() / "reports" / "templates")
    environment.filters.update(fine=_fine, ends=_ends)
    write_text(folder / "report.md", environment.get_template("attack.md.j2").render(found=found))
    write_json(folder / "attack.json", dict(found))
