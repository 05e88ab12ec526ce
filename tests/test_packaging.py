"""The package: cheap to import, and whole as a wheel."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from cst_bench.content import names as content_names

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "inspect_ai", "lm_eval", "trl", "datasets", "numpy")


@pytest.mark.parametrize(
    "code",
    [
        "import cst_bench",
        "from click.testing import CliRunner as R\nfrom cst_bench.cli import cli\nprint(R().invoke(cli, ['--help']))",
    ],
)
def test_importing_and_help_load_nothing_heavy(code: str) -> None:
    check = f"{code}\nimport sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


CONTENT = ("tasks", "judges", "training", "reports/templates", "reports/published.yaml")
"""What the engine reads. Published reports and the programs of `scripts/` stay in the repository."""
LM_EVAL_FUNCTIONS = {"tasks/capabilities/tiny/data.py", "tasks/capabilities/tiny/truthfulqa.py"}
"""The only programs among the content: lm-eval's YAML calls them (`!function`)."""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel, as `python -m build` makes them."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def tracked(*paths: str) -> set[str]:
    listed = subprocess.run(["git", "ls-files", *paths], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.splitlines())


@pytest.mark.slow
def test_sdist_and_wheel_pass_twine(distributions: Path) -> None:
    files = sorted(map(str, distributions.iterdir()))
    assert len(files) == 2
    check = [sys.executable, "-m", "twine", "check", "--strict", *files]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_wheel_holds_the_engine_and_its_content_and_nothing_else(distributions: Path, tmp_path: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extractall(tmp_path / "site")
    content = {name.removeprefix("cst_bench/_content/") for name in names if name.startswith("cst_bench/_content/")}
    assert content == tracked(*CONTENT)
    assert names - {f"cst_bench/_content/{name}" for name in content} == tracked("cst_bench")
    assert {
        "tasks/compliance/harmful_behaviors.yaml",
        "judges/harmlessness.md",
        "judges/labels/english_refusals.jsonl",
        "judges/cards/refusal_rules.json",
        "training/recipes/tiny.yaml",
        "training/tiny/checkpoint/model.safetensors",
        "reports/published.yaml",
        "reports/templates/run.md.j2",
    } <= content
    assert {name for name in content if name.endswith(".py")} == LM_EVAL_FUNCTIONS
    published = tuple(f"reports/{name}/" for name in ("tiny", "smollm2", "judges", "benchmarks"))
    assert not any(name.startswith(published) for name in content)
    code = "from cst_bench.content import content_root, names; print(content_root(), len(names('tasks/compliance')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [
        str(tmp_path / "site" / "cst_bench" / "_content"),
        str(len(content_names("tasks/compliance"))),
    ]


@pytest.mark.slow
def test_an_sdist_also_holds_tests_and_documentation(distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    documents = (
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs",
        "mkdocs.yml",
        "tests",
    )
    built = {"PKG-INFO", "pyproject.toml", ".gitignore"}  # hatchling adds the last two
    assert names == tracked("cst_bench", *CONTENT, *documents) | built
