"""Hub ids, from a local hub cache laid out as the hub client lays it out; the download itself is the client's."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from cst_bench.checkpoint import CheckpointOptions, find_checkpoint, load_checkpoint
from cst_bench.errors import UserError
from tests.checkpoints import make_adapter, make_checkpoint

MAIN, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Path) -> Path:
    """A cache that holds `village/llama` in two revisions and an adapter for it."""
    cache = tmp_path / "hub"
    model = cache / "models--village--llama"
    shutil.copytree(llama, model / "snapshots" / MAIN)
    make_checkpoint(model / "snapshots" / OTHER, seed=7)
    adapter = cache / "models--village--adapter"
    make_adapter(adapter / "snapshots" / MAIN, llama, base_name="village/llama")
    for repo, refs in ((model, {"main": MAIN, "older": OTHER}), (adapter, {"main": MAIN})):
        (repo / "refs").mkdir()
        for name, commit in refs.items():
            (repo / "refs" / name).write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


def test_a_hub_id_loads_at_the_commit_that_its_revision_means(hub: Path) -> None:
    main = find_checkpoint(CheckpointOptions(name="village/llama"))
    older = find_checkpoint(CheckpointOptions(name="hf/village/llama", revision="older"))
    assert (main.identity.revision, older.identity.revision) == (MAIN, OTHER)
    assert main.identity.weights_sha256 != older.identity.weights_sha256
    assert load_checkpoint(CheckpointOptions(name="village/llama")).label == "village/llama"


def test_an_adapter_id_finds_its_base_on_the_hub(hub: Path) -> None:
    found = find_checkpoint(CheckpointOptions(name="village/adapter"))
    assert found.identity.kind == "adapter"
    assert found.identity.base == "village/llama"


def test_an_unknown_revision_is_named(hub: Path) -> None:
    with pytest.raises(UserError, match="'village/llama' at revision 'newest'"):
        find_checkpoint(CheckpointOptions(name="village/llama", revision="newest"))
