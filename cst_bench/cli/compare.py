"""`cst-bench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import json_option, out_file_option

if TYPE_CHECKING:
    from pydantic import JsonValue

EPILOG = """\b
Examples:
  cst-bench compare runs/base runs/cst
  cst-bench compare runs/base runs/cst --fail-if "S0.high < 0" --fail-if "MMLU.high < 0" --junit compare.xml
  cst-bench compare runs/base runs/cst --fail-if "S0.low < -0.05" --out compare.md
  cst-bench compare runs/base runs/cst --fail-if '"joint truthy".score < 0.8'

\b
A GATE is NAME[.QUANTITY] OPERATOR NUMBER, or several of these joined by `and`. Quantities:
  difference  RUN minus BASELINE (the default)
  low, high   ends of the 95 % interval of the difference
  score       score of RUN
  p           p value of the difference

\b
What a gate shows:
  S0.high < 0      fails on a shown loss: between equal models in about 2.5 % of comparisons
  S0.low < -0.05   fails unless a loss of 0.05 is ruled out: passes one in about 2.5 %, but needs a large n
  S0 < -0.05       has no error rate: between equal models it fails often where n is small

All are shares: write 5 points of a capability as 0.05. The exit status is 1 if a gate holds; a condition on an
undefined score, or on one with too many unscored responses, counts as holding."""


@click.command(epilog=EPILOG)
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--fail-if", "gates", multiple=True, metavar="GATE", help="Exit with status 1 if GATE holds; repeatable.")
@click.option(
    "--junit", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="JUnit XML file to write, for CI."
)
@out_file_option("Markdown file to write, with every prompt whose result changed.")
@click.option("--allow-different", is_flag=True, help="Compare although prompts or judges differ, and list what does.")
@json_option("the comparison as JSON")
def command(
    *,
    baseline: Path,
    run: Path,
    gates: tuple[str, ...],
    junit: Path | None,
    out: Path | None,
    allow_different: bool,
    as_json: bool,
) -> int:
    """Compare RUN with BASELINE, paired by prompt and by document."""
    from cst_bench.cli.console import make_console
    from cst_bench.files import write_text
    from cst_bench.reporting import read_run
    from cst_bench.reporting.comparison import compare_runs, judge_gate, junit_xml, parse_gate
    from cst_bench.reporting.terminal import comparison_table

    parsed = [parse_gate(gate) for gate in gates]
    comparison = compare_runs(read_run(baseline), read_run(run), allow_different=allow_different)
    results = [judge_gate(gate, comparison) for gate in parsed]
    if out is not None:
        write_text(out, comparison.to_markdown([result.message for result in results]))
    if junit is not None:
        write_text(junit, junit_xml(comparison, results))
    if as_json:
        judged: list[dict[str, JsonValue]] = [
            {"gate": result.gate.text, "failed": result.failed, "message": result.message} for result in results
        ]
        click.echo(comparison.to_json(judged), nl=False)
    else:
        console = make_console()
        console.print(comparison_table(comparison))
        for result in results:
            console.print(result.message, style="red" if result.failed else "green", markup=False, soft_wrap=True)
    return int(any(result.failed for result in results))
