"""`cst-bench compare`."""

from __future__ import annotations

from pathlib import Path

import click

EPILOG = """\b
Examples:
  cst-bench compare runs/base runs/cst
  cst-bench compare runs/base runs/cst --fail-if "S0 < -0.05" --fail-if "MMLU.high < 0" --junit compare.xml
  cst-bench compare runs/base runs/cst --fail-if '"joint truthy".score < 0.8' --out compare.md

Differences are RUN's score less REFERENCE's. A gate is NAME[.QUANTITY] OPERATOR NUMBER, several joined by `and`;
quantities are difference (the default), low and high (the ends of its 95 % interval), score (RUN's own) and p, all of
them shares: 5 points of a capability are 0.05. Exit status 1 if a gate holds, or asks for what can't be believed."""


@click.command(epilog=EPILOG)
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--fail-if", "gates", multiple=True, metavar="GATE", help="Exit status 1 if it holds; repeatable.")
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="JUnit XML, for CI.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Markdown, with all flips."
)
@click.option("--allow-different", is_flag=True, help="Compare even if prompts or judges differ, and say so.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON in place of the table.")
def command(
    reference: Path,
    run: Path,
    gates: tuple[str, ...],
    junit: Path | None,
    out: Path | None,
    allow_different: bool,
    as_json: bool,
) -> int:
    """Compare RUN with REFERENCE, paired by prompt and by document."""
    from cst_bench.cli.console import make_console
    from cst_bench.files import write_text
    from cst_bench.reporting.comparison.comparison import compare_json, compare_markdown, compare_runs
    from cst_bench.reporting.comparison.gates import judge_gate, parse_gate
    from cst_bench.reporting.comparison.junit import junit_xml
    from cst_bench.reporting.stored_run import read_run
    from cst_bench.reporting.terminal import comparison_table

    parsed = [parse_gate(gate) for gate in gates]
    found = compare_runs(read_run(reference), read_run(run), allow_different=allow_different)
    results = [judge_gate(gate, found) for gate in parsed]
    messages = [result.message for result in results]
    if out is not None:
        write_text(out, compare_markdown(found, messages))
    if junit is not None:
        write_text(junit, junit_xml(found, results))
    if as_json:
        judged = [{"gate": one.gate.text, "failed": one.failed, "message": one.message} for one in results]
        click.echo(compare_json(found, judged), nl=False)
    else:
        console = make_console()
        console.print(comparison_table(found))
        for result in results:
            console.print(result.message, style="red" if result.failed else "green", markup=False, soft_wrap=True)
    return int(any(result.failed for result in results))
