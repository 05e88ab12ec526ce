"""What all tests share: no reaching out to a hub, one thread, and checkpoints made once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Before anything imports a Hugging Face library, which reads these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["INSPECT_LOG_LEVEL"] = "error"
# Models of a few thousand weights gain nothing from a second thread, and lose much on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"

from tests.checkpoints import make_checkpoint

# No test depends on the machine's speed: the first example of a property may import a large library.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a ChatML template."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "llama", max_position_embeddings=2048)
