"""`cst-bench schema`."""

from __future__ import annotations

from pathlib import Path

import click

from cst_bench.cli.shared_options import out_file_option

EPILOG = """\b
Examples:
  cst-bench schema task --out task.schema.json
  cst-bench schema judge | jq '."$defs" | keys'
  cst-bench schema scores --out scores.schema.json          of scores.json in a run folder

\b
KIND is one of:
  task, capability, suite      tasks and suites for `cst-bench run`
  judge, attacks               judges, and attack suites for `cst-bench judge attack`
  critique, recipe             for `cst-bench data critique` and `cst-bench train`
  reproduction                 for `cst-bench reproduce`
  manifest, scores, outcomes   run.json, scores.json and outcomes.json of a run folder

\b
An editor with a YAML language server completes and checks a file that begins with the line
  # yaml-language-server: $schema=task.schema.json"""


@click.command(epilog=EPILOG)
@click.argument("kind")
@out_file_option("File to write instead of standard output.")
def command(*, kind: str, out: Path | None) -> None:
    """Print the JSON Schema of a KIND of file that cst-bench reads or writes."""
    from cst_bench.cli.console import print_line, quiet_libraries
    from cst_bench.files import json_text, write_text
    from cst_bench.schemas import json_schema

    quiet_libraries()
    text = json_text(json_schema(kind))
    if out is None:
        click.echo(text, nl=False)
    else:
        write_text(out, text)
        print_line(f"Schema: {out}")
