"""Write the published reports; `make reports` calls it after `cst-bench reproduce tiny`.

    python scripts/publish.py [--reproduction runs/reproduce-tiny]

With a reproduction, its runs of all seeds and its report are stored in reports/NAME/ first, without prompts and
responses. Everything else follows from what is stored: the leaderboards of each reproduction's base, DPO and CST, the
cards of the judges that come with the project, and the tables of benchmarks. The README's tables are taken from these.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from cst_bench.calibration.calibration_report import write_bench, write_calibration
from cst_bench.calibration.judge_comparison import JudgeBench
from cst_bench.content import content_root
from cst_bench.files import write_json, write_text
from cst_bench.judging.card import read_card
from cst_bench.numbers import ends, number
from cst_bench.reporting.formats import FORMATS
from cst_bench.reporting.leaderboard.write import write_reports
from cst_bench.reporting.stored_run import read_run
from cst_bench.statistics.two_way import MIN_SEEDS

ROOT = content_root()
REPRODUCTIONS = ("tiny", "smollm2")
"""Those that are published, each of one model of the same name; the first is in the README."""
CARDS = ROOT / "judges" / "cards"
PEOPLE = ROOT / "reports" / "judges" / "people"
BENCHMARKS = ROOT / "reports" / "benchmarks"
SET = "multi"
ERROR_RATES = {
    "reports": "Reports of equal models with a bold cell, and with a capability that is lost or gained",
    "gates": "Gates that fail between equal models: `S0 < -0.05` (point), `S0.high < 0` (shown loss), `S0.low < -0.05` "
    "(not ruled out); and comparisons in which `S0.low < -0.05` passes a true loss of 0.05 (loss passed)",
    "mcnemar": "Largest probability that McNemar's test at 0.05 rejects equal models",
    "seeds": "Coverage of the 95 % interval of a mean over seeds, and of the range of the seeds",
    "samples": "Coverage of intervals where prompts have one or several responses, under two configurations that are "
    "easy for the same prompts (together) or for opposite ones (apart); the difference is of two equal models",
    "labelled": "Coverage of the difference of two runs by people's labels of a part, and by the verdicts of a judge "
    "with sensitivity 0.95 and specificity 0.9 in one run, 0.75 and 0.95 in the other",
    "seed_tests": "Tests at 0.05 of a method against an equal method or base that reject, and coverage of the "
    "difference's interval",
}
"""Table of `benchmarks/error_rates.json` → what it shows."""


def folder_of(name: str) -> Path:
    """Return the folder of a published reproduction."""
    return ROOT / "reports" / name


def store(reproduction: Path) -> None:
    """Store what reports read of a reproduction's runs, without environment and without receipts, which are of all."""
    name = json.loads((reproduction / "reproduce.json").read_text(encoding="utf-8"))["settings"]["reproduction"]["name"]
    shutil.rmtree(folder_of(name), ignore_errors=True)
    for run in sorted((reproduction / "runs" / name).glob(f"{SET}-*")):
        stored = read_run(run)
        to = folder_of(name) / "runs" / run.name
        stored.manifest.model_copy(update={"environment": None, "has_receipt": False}).write(to)
        stored.scores.write(to, compact=True)
        stored.outcomes.write(to)
    for file in ("report.md", "tables.json"):
        write_text(folder_of(name) / "reproduction" / file, (reproduction / file).read_text(encoding="utf-8"))


def publish(out: Path) -> None:
    """Write everything that follows from the stored runs, into a folder laid out as reports/."""
    steps = f"{SET}-dpo_steps is DPO with as many optimizer steps as CST, which has twice the rows."
    for name in REPRODUCTIONS:
        write_reports([folder_of(name) / "runs"], out / name / "leaderboard", list(FORMATS), notes=[steps])
    for path in sorted(CARDS.rglob("*.json")):
        write_calibration(out / "judges" / path.stem, read_card(path), None)
    write_bench(out / "judges" / "people", JudgeBench.read(PEOPLE))
    write_json(out / "made_with.json", {"matplotlib": version("matplotlib")})
    tables = (benchmark_table(), scale_table(), large_runs_table(), torture_table(), error_rate_tables())
    write_text(out / "benchmarks" / "README.md", "# Benchmarks\n\n" + "\n".join(tables))


def benchmark_table() -> str:
    """Return the benchmarks' ratios and agreement of outputs, from `benchmarks/*.json` by `benchmarks/table.yaml`."""
    lines = ["| Ours against | Ratio | Outputs | Command |", "|---|---:|---|---|"]
    for row in yaml.safe_load((BENCHMARKS / "table.yaml").read_text(encoding="utf-8")):
        figures = json.loads((BENCHMARKS / row["file"]).read_text(encoding="utf-8"))
        filled = {key: _fill(row[key], row["figures"], figures) for key in ("against", "ratio", "outputs")}
        lines.append(f"| {filled['against']} | {filled['ratio']} | {filled['outputs']} | `{row['command']}` |")
    return "\n".join(lines) + "\n"


def scale_table() -> str:
    """Return the table of `benchmarks/run_scale.py`, from its figures."""
    figures = json.loads((BENCHMARKS / "run_scale.json").read_text(encoding="utf-8"))
    parts = list(figures["sizes"][0]["shares"])
    lines = [
        "## A run's cost by its number of samples",
        "",
        "`python benchmarks/run_scale.py`; processor time of the whole run, and the shares of its parts.",
        "",
        f"| samples | s | peak memory, MB | log, MB | {' | '.join(f'{part}, %' for part in parts)} |",
        f"|{'---:|' * (4 + len(parts))}",
    ]
    for size in figures["sizes"]:
        scaled = (size["seconds"], size["peak_memory_bytes"] / 1e6)
        cells = [str(size["samples"]), *(f"{value:.0f}" for value in scaled), f"{size['log_bytes'] / 1e6:.2f}"]
        cells += [f"{100 * size['shares'][part]:.0f}" for part in parts]
        lines.append(f"| {' | '.join(cells)} |")
    ratios = [f"{name.replace('_', ' ')}: {value:.2f}" for name, value in figures.items() if name != "sizes"]
    lines += ["", f"{'; '.join(ratios)}."]
    return "\n".join(lines) + "\n"


def large_runs_table() -> str:
    """Return the tables of `benchmarks/large_runs.py`, from its figures."""
    figures = json.loads((BENCHMARKS / "large_runs.json").read_text(encoding="utf-8"))
    by_samples = figures["samples"]
    lines = [
        "## Scoring and reporting many responses",
        "",
        "`python benchmarks/large_runs.py`; processor time and peak memory, by the number of samples of each of two "
        "runs (`score`: of one).",
        "",
        f"| command | {' | '.join(by_samples)} | memory ratio |",
        f"|---|{'---:|' * (len(by_samples) + 1)}",
    ]
    for verb in next(iter(by_samples.values())):
        costs = [verbs[verb] for verbs in by_samples.values()]
        memory = [cost["peak_memory_bytes"] for cost in costs]
        cells = [f"{cost['seconds']:.1f} s, {cost['peak_memory_bytes'] / 1e6:.0f} MB" for cost in costs]
        lines.append(f"| {verb} | {' | '.join(cells)} | {memory[-1] / memory[0]:.2f} |")
    for runs, cost in figures["runs"].items():
        sizes = ", ".join(f"{suffix} {size / 1e6:.2f} MB" for suffix, size in cost["bytes"].items())
        memory = cost["peak_memory_bytes"] / 1e6
        lines += ["", f"Report of {runs} runs in all formats: {cost['seconds']:.0f} s, {memory:.0f} MB; {sizes}."]
    return "\n".join(lines) + "\n"


def torture_table() -> str:
    """Return the table of `scripts/torture.py`, from its figures."""
    figures = json.loads((BENCHMARKS / "torture.json").read_text(encoding="utf-8"))
    lines = [
        "## Kills, and an endpoint that fails",
        "",
        "`make torture`: SIGKILL at random moments, continued by the same command; files of the end that differ from "
        "those of an undisturbed call, half-written files that remain, and calls that failed.",
        "",
        "| verb | kills | folders | different or left | failed |",
        "|---|---:|---:|---:|---:|",
    ]
    for verb, result in figures["verbs"].items():
        counts = [result["kills"], result["folders"], len(result["different"]), len(result["failures"])]
        lines.append(f"| {verb} | {' | '.join(map(str, counts))} |")
    asked = figures["endpoint"]
    if asked is None:
        return "\n".join(lines) + "\n"
    lines += [
        "",
        f"Endpoint: {asked['calls']} verdicts at {asked['fault_percent']} % faults in {asked['requests']} requests and "
        f"{asked['commands']} commands, {asked['seconds']:.0f} s, {asked['peak_memory_bytes'] / 1e6:.0f} MB; "
        f"different, missing or paid for twice: {len(asked['different'])}, failed: {len(asked['failures'])}.",
    ]
    return "\n".join(lines) + "\n"


def error_rate_tables() -> str:
    """Return the tables of `benchmarks/error_rates.py`, from its figures."""
    figures = json.loads((BENCHMARKS / "error_rates.json").read_text(encoding="utf-8"))
    lines = [
        "## Error rates",
        "",
        "`python benchmarks/error_rates.py`; shares of the replications.",
        "",
    ]
    for name, title in ERROR_RATES.items():
        rows = figures[name]
        lines += [
            f"{title}:",
            "",
            f"| {' | '.join(key.replace('_', ' ') for key in rows[0])} |",
            f"|{'---|' * len(rows[0])}",
        ]
        lines += [f"| {' | '.join(_figure(value) for value in row.values())} |" for row in rows]
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def _figure(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _fill(text: str, names: Mapping[str, Sequence[str]], figures: Mapping[str, Any]) -> str:
    def value(path: Sequence[str]) -> Any:
        number: Any = figures
        for key in path:
            number = number[key]
        return ("no", "yes")[number] if isinstance(number, bool) else number

    return text.format(**{name: value(path) for name, path in names.items()})


def reproduction_table(name: str) -> str:
    """Return a reproduction's Tables II and III in one, and its ordinary requests: means over seeds."""
    tables = json.loads((folder_of(name) / "reproduction" / "tables.json").read_text(encoding="utf-8"))["tables"]
    shown = [tables[1], tables[3], {**tables[2], "columns": ["Capabilities, %"]}]
    titles = [title for table in shown for title in table["columns"]]
    lines = [f"| Model | Runs | {' | '.join(titles)} |", f"|---|---:|{'---:|' * len(titles)}"]
    for rows in zip(*(table["rows"] for table in shown), strict=True):
        cells = [cell(row, at) for row in rows[:2] for at in range(len(row["scores"]))]
        cells.append(cell(rows[2], -1, percent=True))
        lines.append(f"| {rows[0]['title']} | {rows[0]['runs']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", spread_note(tables)]) + "\n"


def spread_note(tables: Sequence[Mapping[str, Any]]) -> str:
    """Say what stands below a mean over seeds."""
    row = max((row for table in tables for row in table["rows"]), key=lambda row: int(row["runs"]))
    runs = row["runs"]
    if "ranges" not in row:  # made before tables had every seed
        return f"Below a mean of {runs} runs: Student's t interval over the seeds."
    if runs == 1:
        return "Below each score: its 95 % interval over prompts."
    if runs < MIN_SEEDS:
        return f"Below a mean of {runs} runs: the range of {runs} seeds, lowest to highest, which is no interval."
    return f"Below a mean of {runs} runs: its 95 % interval over seeds and prompts."


def cell(row: Mapping[str, Any], at: int, *, percent: bool = False) -> str:
    """Return a score above its interval, or the range of its seeds."""
    scale = 100 if percent else 1
    low_high = row["intervals"][at] or row["ranges"][at]
    return f"{number(row['scores'][at], scale)}<br><sub>{ends(low_high and tuple(low_high), scale)}</sub>"


def with_tables(readme: str) -> str:
    """Return the README with its tables between their markers.

    Raises:
        ValueError: a marker is missing.
    """
    reproduction = REPRODUCTIONS[0]
    tables = {"benchmarks": benchmark_table(), f"reproduce {reproduction}": reproduction_table(reproduction)}
    for name, table in tables.items():
        begin, end = f"<!-- {name}: made by scripts/publish.py -->", f"<!-- end of {name} -->"
        before, begun, rest = readme.partition(begin)
        _, ended, after = rest.partition(end)
        if not begun or not ended:
            raise ValueError(f"README.md lacks the markers {begin} and {end}")
        readme = f"{before}{begin}\n{table}{end}{after}"
    return readme


def main() -> None:
    """Write all published reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reproduction", type=Path, help="a finished `cst-bench reproduce tiny`, to be stored")
    options = parser.parse_args()
    if options.reproduction is not None:
        store(options.reproduction)
    publish(ROOT / "reports")
    readme = ROOT / "README.md"
    write_text(readme, with_tables(readme.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
