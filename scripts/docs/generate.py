"""Write the generated pages of the documentation; `make docs` runs it within mkdocs.

The command line's reference follows from the click commands, the schemas and file formats from the pydantic models,
the Python API from `cst_bench.__all__`. Pictures are those of the published leaderboard.
"""

from __future__ import annotations

import inspect
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import click
import mkdocs_gen_files
from rich.console import Console

import cst_bench
from cst_bench.cli import cli
from cst_bench.content import content_root
from cst_bench.files import json_text
from cst_bench.reporting import summary_table
from cst_bench.schemas import KINDS, json_schema

PUBLISHED = content_root() / "reports" / "tiny"
WIDTH = 88
"""Characters of a line of help that fit into a page."""
RECORDS = {
    "manifest": "run.json",
    "scores": "scores.json",
    "outcomes": "outcomes.json",
    "receipt": "receipt.json",
}
RUN_FOLDER = """A run folder holds:

| File | Holds |
|---|---|
| `run.json` | what was run: checkpoint and hash of its weights, tasks, hashes of data, judges, versions, seeds, state |
| `scores.json` | scores, for reports and other programs |
| `outcomes.json` | the outcome of every response and document, without text: what runs are compared by |
| `report.md` | tables, and how the run was made |
| `receipt.json` | SHA-256 of these files, chained: what [`cst-bench verify`](../evaluate.md#verify-a-run) checks |
| `receipt.json.sig` | signature of the receipt by an SSH key (`cst-bench verify --sign`) |
| `labels.jsonl`, `label_strata.json` | labels by people, and how the responses were drawn (`cst-bench judge label`) |
| `compliance/` | Inspect logs, for `cst-bench view` or `inspect view` |
| `capabilities/` | lm-eval's results and samples |
| `divergence/` | KL divergence from the base of each response, without text (`--kl-base`) |

A folder that holds a run made with other settings is refused, never mixed. Files are written to a temporary name and
renamed. A file of an older schema version is refused with a message that says how to make it again.
"""


def write(path: str, text: str) -> None:
    """Write a page of the site."""
    with mkdocs_gen_files.open(path, "w") as page:
        page.write(text)


def commands(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """Yield each command's name and its help text, depth first."""
    settings = {**command.context_settings, "max_content_width": WIDTH, "terminal_width": WIDTH}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is None:
                raise ValueError(f"{context.command_path} lists {child}, which it does not have")
            yield from commands(found, child, context)


def cli_page() -> str:
    """Return the reference of the command line: the help text of every command."""
    parts = ["# Command line", "Every text below is what `--help` prints."]
    parts += [f"## {name}\n\n```text\n{text}\n```" for name, text in commands(cli, "cst-bench")]
    return "\n\n".join(parts) + "\n"


def type_of(schema: Mapping[str, Any]) -> str:
    """Return a short name of a schema's type, for a table."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(type_of(part) for part in schema[union])
    if "enum" in schema:
        return ", ".join(json.dumps(value) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if schema.get("type") == "array":
        return f"array of {type_of(schema['items'])}" if schema.get("items") else "array"
    values = schema.get("additionalProperties")
    if schema.get("type") == "object" and isinstance(values, Mapping):
        return f"object of {type_of(values)}"
    return str(schema.get("type", "any"))


def cell(text: str) -> str:
    """Return text on one line, for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def properties(schema: Mapping[str, Any]) -> str:
    """Return a table of an object's keys: type, whether it is required, its default and its description."""
    required = schema.get("required", [])
    rows = ["| Key | Type | Default | Description |", "|---|---|---|---|"]
    for key, value in schema.get("properties", {}).items():
        default = "required" if key in required else f"`{json.dumps(value['default'])}`" if "default" in value else ""
        rows.append(f"| `{key}` | {cell(type_of(value))} | {cell(default)} | {cell(value.get('description', ''))} |")
    return "\n".join(rows)


def schema_section(kind: str, title: str) -> str:
    """Return the section of one kind of file, and write its JSON Schema beside the page."""
    schema = json_schema(kind)
    write(f"reference/{kind}.schema.json", json_text(schema))
    objects: list[tuple[str, Mapping[str, Any]]] = []
    if "properties" in schema:
        objects.append(("", schema))
    definitions = schema.get("$defs")
    if isinstance(definitions, Mapping):
        objects += [
            (str(name), of) for name, of in definitions.items() if isinstance(of, Mapping) and "properties" in of
        ]
    parts = [f"## {title}", f"JSON Schema: [{kind}.schema.json]({kind}.schema.json)"]
    for name, of in objects:
        text = "\n\n".join(str(of.get("description", "")).split("\n\n"))
        parts += [
            *([f"### {name} {{#{kind}-{name.lower()}}}"] if name else []),
            text.replace("<", "&lt;"),
            properties(of),
        ]
    return "\n\n".join(parts)


def schemas_page() -> str:
    """Return the reference of the YAML files."""
    parts = [
        "# YAML schemas",
        "Made from the pydantic models that read the files. `cst-bench schema KIND` prints a JSON Schema; an editor"
        " with a YAML language server completes and checks a file that begins with",
        "```yaml\n# yaml-language-server: $schema=task.schema.json\n```",
        "Unknown keys are refused. `cst-bench init task|judge|recipe NAME` writes a starter file with comments.",
    ]
    parts += [schema_section(kind, kind) for kind in KINDS if kind not in RECORDS and kind != "recipe"]
    recipe = json_schema("recipe")
    write("reference/recipe.schema.json", json_text(recipe))
    parts.append(
        "## recipe\n\nJSON Schema: [recipe.schema.json](recipe.schema.json). The keys under `trl`, `lora` and"
        " `quantization` are those of TRL's `DPOConfig`, PEFT's `LoraConfig` and transformers' `BitsAndBytesConfig`;"
        " see their documentation.\n\n" + properties(recipe)
    )
    return "\n\n".join(parts) + "\n"


def files_page() -> str:
    """Return the reference of the files in a run folder."""
    parts = ["# File formats", RUN_FOLDER, *(schema_section(kind, f"`{name}`") for kind, name in RECORDS.items())]
    return "\n\n".join(parts) + "\n"


def api_page() -> str:
    """Return the reference of the Python API.

    Raises:
        ValueError: a public name has no docstring, or a public method of it has none.
    """
    functions: list[str] = []
    classes: list[str] = []
    errors: list[str] = []
    for name in sorted(set(cst_bench.__all__) - {"__version__"}):
        value = getattr(cst_bench, name)
        check_documented(name, value)
        home = f"::: {value.__module__}.{value.__qualname__}\n    options:\n      heading: cst_bench.{name}"
        kind = functions if inspect.isfunction(value) else errors if issubclass(value, Exception) else classes
        kind.append(f"{home}\n      toc_label: {name}")
    intro = (
        "# Python API\n\n"
        "`import cst_bench` is cheap: a name is imported when it is first used. The functions are the verbs of the"
        " command line; each returns a typed result, which shows itself as a table in a notebook and has `to_frame()`"
        " where it holds scores. Bad input raises `cst_bench.UserError`."
    )
    sections = [("Functions", functions), ("Options and results", classes), ("Errors", errors)]
    return "\n\n".join([intro, *(f"## {title}\n\n" + "\n\n".join(parts) for title, parts in sections)]) + "\n"


def check_documented(name: str, value: object) -> None:
    """Raise ValueError if a public name, or a public method of its own, has no docstring."""
    if not value.__doc__:
        raise ValueError(f"cst_bench.{name} has no docstring")
    if inspect.isclass(value) and value.__module__.startswith("cst_bench"):
        for member, of in vars(value).items():
            if not member.startswith("_") and inspect.isfunction(of) and not of.__doc__:
                raise ValueError(f"cst_bench.{name}.{member} has no docstring")


def pictures() -> None:
    """Copy the published leaderboard's plots into the site, and draw what `cst-bench run` prints."""
    console = Console(record=True, file=io.StringIO(), width=84)
    console.print(summary_table(cst_bench.load_run(PUBLISHED / "runs" / "multi-base")))
    write("images/run.svg", console.export_svg(title="cst-bench run"))
    for path in sorted((PUBLISHED / "leaderboard" / "plots").glob("*.png")):
        with mkdocs_gen_files.open(f"images/{path.name}", "wb") as target, path.open("rb") as source:
            shutil.copyfileobj(source, target)


write("reference/cli.md", cli_page())
write("reference/schemas.md", schemas_page())
write("reference/files.md", files_page())
write("reference/api.md", api_page())
pictures()
