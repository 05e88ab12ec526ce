"""The package: cheap to import, and whole as a wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_sdist_and_wheel_pass_twine(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = sorted(map(str, tmp_path.iterdir()))
    assert len(made) == 2
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *made], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.slow
def test_a_wheel_brings_all_content_and_finds_it(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("cst_bench-*.whl")
    content = ["tasks", "judges", "training", "reports/templates", "reports/published.yaml"]
    listed = subprocess.run(["git", "ls-files", *content], cwd=ROOT, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(wheel) as archive:
        brought = {name.removeprefix("cst_bench/_content/") for name in archive.namelist() if "/_content/" in name}
        archive.extractall(tmp_path / "site")
    assert brought == set(listed.stdout.splitlines())
    assert {"training/tiny/checkpoint/model.safetensors", "judges/cards/refusal_rules.json"} <= brought
    programs = {name for name in brought if name.endswith(".py")}
    assert programs == {"tasks/capabilities/tiny/data.py", "tasks/capabilities/tiny/truthfulqa.py"}  # lm-eval's own
    code = "from cst_bench.content import content_root, names; print(content_root(), len(names('tasks/compliance')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(tmp_path / "site" / "cst_bench" / "_content"), "6"]
