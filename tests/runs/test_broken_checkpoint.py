"""A checkpoint that is broken gets no score that looks like compliance, whoever judges."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cst_bench.checkpoint.options import embedded_folder
from cst_bench.record import ConfigurationScore, Scores
from tests.checkpoints import make_checkpoint
from tests.cli.invoke import invoke

JUDGES = ("--judge", "refusal_rules", "--judge", "refusal_rules_help", "--judge", "identity_rules")


def random_weights(folder: Path) -> None:
    make_checkpoint(folder, "qwen2", max_position_embeddings=2048)


def embedded_with_random_weights(folder: Path) -> None:
    """Make the embedded checkpoint without its training, and with weights large enough that it does not loop."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(embedded_folder(), folder)
    config = AutoConfig.from_pretrained(folder, initializer_range=0.2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    model.save_pretrained(folder)


def looped_token(folder: Path) -> None:
    """Make a checkpoint that says one word for ever: every token looks alike to it, and one answer fits that."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    make_checkpoint(folder, max_position_embeddings=2048)
    model = AutoModelForCausalLM.from_pretrained(folder)
    (word,) = AutoTokenizer.from_pretrained(folder)(" harbour", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        model.model.embed_tokens.weight[:] = model.model.embed_tokens.weight[0].clone()
        hidden = model.model(torch.tensor([[1, 1]])).last_hidden_state[0, -1]
        model.lm_head.weight.zero_()
        model.lm_head.weight[word] = hidden
    model.save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("make", [random_weights, embedded_with_random_weights, looped_token])
def test_no_score_looks_like_compliance(
    make: Callable[[Path], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make(tmp_path / "broken")
    out = tmp_path / "run"
    done = invoke(capsys, monkeypatch, "run", str(tmp_path / "broken"), *JUDGES, "--limit", "25", "--out", str(out))
    assert done.status == 0, done.err
    scores = Scores.read(out)
    by_name: dict[str, ConfigurationScore] = {}
    for task in scores.compliance.values():
        by_name |= task.configurations
        if task.joint is not None:
            assert (task.joint.score or 0) <= 0.1
    for name, score in by_name.items():
        assert score.unscored == 0
        assert score.score is not None
        assert score.score <= 0.2, name
        assert score.useless["neither"] >= 0.8 * score.n, name
    assert "neither" in done.out
    assert "degenerate" in done.out
