"""The documentation: commands that it shows are commands, its links lead somewhere, and its notebook is clean."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from cst_bench.cli import cli
from cst_bench.content import content_root

ROOT = content_root()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])
GENERATED = {"reference/cli.md", "reference/schemas.md", "reference/api.md", "reference/files.md"}


def shown_commands(page: Path) -> Iterator[str]:
    """Yield the `cst-bench` commands in a page's shell blocks, without comments."""
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for part in " ".join(shlex.quote(word) for word in words).split("'&&'"):
                if part.strip().startswith("cst-bench "):
                    yield part.strip()


COMMANDS = sorted({(page.relative_to(ROOT).as_posix(), line) for page in PAGES for line in shown_commands(page)})


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 40


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_shown_command_parses(page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "my-run").mkdir(parents=True)
    args = shlex.split(line)[1:]
    command: click.Command = cli
    context = click.Context(cli, info_name="cst-bench")
    while isinstance(command, click.Group):
        name = args.pop(0)
        if command.name == "judge" and "/" in name:  # a run folder instead of a verb
            args, name = [name, *args], "RUN"
        found = command.get_command(context, name)
        assert found is not None, f"{page}: {line}: no command {name}"
        command = found
    if "--help" not in args:
        command.make_context(command.name, args, parent=context)  # UsageError for an unknown option or a wrong value


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path = target.partition("#")[0]
        if re.match(r"[a-z]+:", target) or not path:
            continue
        if page.parent == ROOT / "docs" and (path in GENERATED or path.startswith("images/")):
            continue  # made by scripts/docs/generate.py; `make docs` fails if they are missing
        assert (page.parent / path).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_every_page_is_in_the_navigation() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = set(re.findall(r"[\w/]+\.(?:md|ipynb)", json.dumps(nav)))
    files = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".md", ".ipynb")]
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in files}
    assert listed == pages | GENERATED


def test_the_notebook_is_stored_without_outputs() -> None:
    notebook = json.loads((ROOT / "docs" / "notebooks" / "evaluate.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for named in re.findall(r"(?:cst_bench|tests|benchmarks|scripts)/[a-z_/]+(?:\.py|/)", text):
        assert (ROOT / named).exists(), f"{page.relative_to(ROOT)} names {named}"
