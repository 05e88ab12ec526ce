"""Each architecture's checkpoint, and an adapter, made once for all tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cst_bench.checkpoint import Checkpoint, CheckpointOptions, load_checkpoint
from tests.checkpoints import FAMILIES, make_adapter, make_checkpoint


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make a folder for each architecture, and `adapter`, a LoRA on the Llama."""
    root = tmp_path_factory.mktemp("architectures")
    made = {architecture: make_checkpoint(root / architecture, architecture) for architecture in FAMILIES}
    return {**made, "adapter": make_adapter(root / "adapter", made["llama"])}


@pytest.fixture(scope="session")
def loaded(folders: dict[str, Path]) -> dict[str, Checkpoint]:
    """Load them; Gemma with the system prompt put before the user's text."""
    return {
        name: load_checkpoint(
            CheckpointOptions(name=str(folder), system_as="user-prefix" if name == "gemma" else "system")
        )
        for name, folder in folders.items()
    }


@pytest.fixture
def copy_of(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a checkpoint into the test's own folder, to be broken there."""
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / name))
