"""What a GPU, several of them or several processes change about packed scoring, as far as a CPU shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.comparison import compare
from cst_bench.capabilities.likelihoods import CstHFLM
from cst_bench.capabilities.likelihoods.budget import scored_share, token_budget
from cst_bench.capabilities.likelihoods.kernels import Flex, KernelName, LayerSettings, kernels_for, make_kernel
from cst_bench.capabilities.likelihoods.planning import make_plan
from cst_bench.capabilities.likelihoods.prefix_packing import Cursor, fill, next_pack
from cst_bench.capabilities.likelihoods.scorer import Scorer
from tests.capabilities.likelihoods.models import make_requests, stock, tiny
from tests.checkpoints import family_tokenizer

ARGUMENTS: dict[str, Any] = {"max_length": 100, "batch_size": 4}


@pytest.mark.parametrize(
    ("device", "kernels"),
    [
        ("cpu", ["documents"]),
        ("cuda:1", ["flex", "documents", "masked"]),
        ("mps", ["documents", "masked"]),
    ],
)
def test_kernels_are_in_the_order_of_their_speed(device: str, kernels: list[KernelName]) -> None:
    assert kernels_for(torch.device(device)) == kernels


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2"])
def test_flex_is_compiled_once_for_all_packs_and_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one seam: FlexAttention is compiled on a CPU, too."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr(Flex, "compiled", staticmethod(lambda device: True))
    monkeypatch.setattr("cst_bench.capabilities.likelihoods.cst_hf.kernels_for", lambda device: ["flex"])
    torch._dynamo.reset()
    counters.clear()
    model = tiny(name)
    for documents in (1, 40, 8):
        requests = make_requests(seed=documents, documents=documents)
        lm = CstHFLM(model, tokenizer=family_tokenizer("llama"), token_budget=1000, **ARGUMENTS)
        answers = lm._loglikelihood_tokens(requests, disable_tqdm=True)
        assert lm.kernel == "flex"
        assert compare(answers, stock(model, requests)).max_abs_diff < 1e-4
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_flex_that_cannot_be_compiled_is_replaced_and_the_reason_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one seam: FlexAttention is compiled on a CPU, for which Inductor has no sums for attention sinks."""
    monkeypatch.setattr(Flex, "compiled", staticmethod(lambda device: True))
    monkeypatch.setattr(
        "cst_bench.capabilities.likelihoods.cst_hf.kernels_for", lambda device: ["flex", "documents", "masked"]
    )
    model, requests = tiny("gpt-oss"), make_requests(seed=1)
    lm = CstHFLM(model, tokenizer=family_tokenizer("llama"), **ARGUMENTS)
    answers = lm._loglikelihood_tokens(requests, disable_tqdm=True)
    assert str(lm.kernel).startswith("documents; flex: packed scoring fails on it: LoweringException")
    assert lm.fallback_reason is None
    assert compare(answers, stock(model, requests)).max_abs_diff < 1e-4


@pytest.mark.parametrize("kernel", ["documents", "masked", "flex"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # FlexAttention warns that it isn't compiled
def test_rows_that_fill_a_pack_change_no_other(kernel: KernelName) -> None:
    requests = [(context, continuation) for _, context, continuation in make_requests(seed=3)]
    plain, filled = (next_pack(make_plan(requests, 100), Cursor(), 200) for _ in range(2))
    rows = len(plain.ids)
    fill(filled, 128)
    assert len(filled.ids) == len(filled.positions) == len(filled.ends) == 256
    assert (filled.ids[:rows], filled.logit_rows, filled.answers) == (plain.ids, plain.logit_rows, plain.answers)
    query, key, value = torch.randn(1, 4, 256, 16), torch.randn(1, 2, 256, 16), torch.randn(1, 2, 256, 16)
    for settings in (LayerSettings(), LayerSettings(window=8)):
        part = [states[:, :, :rows] for states in (query, key, value)]
        alone = make_kernel("documents", plain, query.device)(part[0], part[1], part[2], settings)
        ours = make_kernel(kernel, filled, query.device)(query, key, value, settings)
        assert bool(ours.isfinite().all())
        torch.testing.assert_close(ours[:, :, :rows], alone)


@pytest.mark.parametrize("kernel", ["documents", "masked"])
def test_layers_on_several_devices_have_masks_of_their_own(kernel: KernelName) -> None:
    """Layers of a model that is spread over devices call one kernel; the second device is PyTorch's `meta`."""
    requests = [(context, continuation) for _, context, continuation in make_requests(seed=3)]
    pack = next_pack(make_plan(requests, 100), Cursor(), 200)
    attention = make_kernel(kernel, pack, torch.device("cpu"))
    rows = len(pack.ids)
    for device in ("cpu", "meta", "cpu"):
        query, key, value = (torch.ones(1, 2, rows, 16, device=device) for _ in range(3))
        assert attention(query, key, value, LayerSettings()).device.type == device
    assert {mask.device.type for mask in vars(attention)["_masks"].values()} == {"cpu", "meta"}


def test_rows_to_keep_do_not_have_the_device_of_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index on the CPU takes rows of any device, as the last layer's may be another than the first's."""
    model = tiny("llama")
    forward, kept = model.forward, []

    def observed(**inputs: Any) -> Any:
        kept.append(inputs["logits_to_keep"])
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", observed)
    scorer = Scorer(model, 100, None, "documents", torch.device("cpu"))
    scorer.score([([1, 2, 3], [4])])
    assert [index.device.type for index in kept] == ["cpu"]
    assert torch.zeros(1, 9, 4, device="meta")[:, kept[0]].shape == (1, 1, 4)


def test_a_model_that_accelerate_has_spread_is_scored_packed(tmp_path: Path) -> None:
    model, requests = tiny("llama"), make_requests(seed=1)
    model.save_pretrained(tmp_path)
    family_tokenizer("llama").save_pretrained(tmp_path)
    lm = CstHFLM(
        str(tmp_path), parallelize=True, device="cpu", max_cpu_memory="20KB", offload_folder=str(tmp_path / "offload"),
        dtype="float32", **ARGUMENTS,
    )  # fmt: skip
    assert lm.model.device.type == "meta"
    answers = lm._loglikelihood_tokens(requests, disable_tqdm=True)
    assert lm.kernel == "documents"
    assert compare(answers, stock(model, requests)).max_abs_diff < 1e-4


@pytest.mark.slow
def test_weights_that_are_sharded_over_processes_are_left_to_stock_by_all_of_them(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "tests.capabilities.likelihoods.sharded", str(tmp_path)]  # fmt: skip
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    subprocess.run(command, check=True, env=environment, cwd=root, timeout=300, capture_output=True)
    written = sorted(path.read_text() for path in tmp_path.glob("rank*"))
    assert written == ["stock: its weights are sharded over processes, agrees"] * 2


def test_the_share_of_scored_rows_is_that_of_the_packs() -> None:
    requests = [(context, continuation) for _, context, continuation in make_requests(seed=5, documents=30)]
    pack = next_pack(make_plan(requests, 100), Cursor(), 10**6)
    assert scored_share(make_plan(requests, 100)) == pytest.approx(len(pack.logit_rows) / len(pack.ids))


def test_budgets_shrink_with_memory_with_the_share_of_logits_and_for_one_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama", vocab_size=50_000)
    room = 2 * 512 * 12 * 50_000
    monkeypatch.setattr("cst_bench.capabilities.likelihoods.budget.free_memory", lambda device: room + 10**9)

    def budget(share: float, kernel: KernelName = "documents", device: str = "cuda") -> int:
        return token_budget(model, torch.device(device), kernel, share)

    assert budget(0.0) == 16_384
    assert 128 < budget(1.0) < budget(0.5) < 16_384
    assert budget(0.0, "masked") == 4096
    assert budget(1.0, "flex") < budget(1.0)
    assert budget(0.0, device="cpu") == 2048
    monkeypatch.setattr("cst_bench.capabilities.likelihoods.budget.free_memory", lambda device: room)
    assert budget(0.0) == 128
