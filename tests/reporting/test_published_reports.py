"""What is published in reports/ is what `make reports` makes of what is stored there, byte for byte."""

from __future__ import annotations

import importlib.util
import json
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from cst_bench.content import content_root
from cst_bench.reporting.stored_run import read_runs

REPORTS = content_root() / "reports"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """Load the script."""
    spec = importlib.util.spec_from_file_location("publish_reports", ROOT / "scripts" / "publish.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_making_them_again_gives_the_same_bytes(make: ModuleType, tmp_path: Path) -> None:
    """Plots are the same bytes only by the matplotlib that drew them."""
    make.publish(tmp_path)
    same_plots = json.loads((REPORTS / "made_with.json").read_text()) == {"matplotlib": version("matplotlib")}
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert len(made) > 20
    for name in sorted(made):
        if name.suffix in (".svg", ".png", ".html") and not same_plots:
            assert (REPORTS / name).is_file()
            continue
        assert (REPORTS / name).read_bytes() == (tmp_path / name).read_bytes(), name
    for folder in ("tiny/leaderboard", "smollm2/leaderboard", "judges"):
        kept = {path.relative_to(REPORTS) for path in (REPORTS / folder).rglob("*") if path.is_file()}
        assert kept <= made  # nothing is left over from before


def test_the_readme_has_the_same_numbers(make: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text()
    assert make.with_tables(readme) == readme


@pytest.mark.parametrize("name", ["tiny", "smollm2"])
def test_stored_runs_tell_nothing_of_the_machine(name: str) -> None:
    runs, _ = read_runs([REPORTS / name / "runs"])
    assert {run.method for run in runs} == {None, "DPO", "CST"}
    for run in runs:
        assert run.manifest.environment is None
        for name in ("run.json", "scores.json", "outcomes.json"):
            text = (run.folder / name).read_text()
            assert not [word for word in ("/home/", "/root/", "/tmp/", "/work/", "Linux-") if word in text]
