"""Score with a tensor-parallel model, in a process that `torch.distributed.run` starts: `test_devices.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist
from transformers import AutoModelForCausalLM

from benchmarks.comparison import compare
from cst_bench.capabilities.likelihoods import CstHFLM
from tests.capabilities.likelihoods.models import make_requests, stock, tiny
from tests.checkpoints import family_tokenizer


def main(folder: Path) -> None:
    """Write this rank's kernel, and whether its answers are those of the whole model."""
    dist.init_process_group("gloo")
    model = AutoModelForCausalLM.from_pretrained(folder, tp_plan="auto").eval()
    lm = CstHFLM(model, tokenizer=family_tokenizer("llama"), max_length=100, batch_size=4)
    requests = make_requests(seed=1)
    answers = lm._loglikelihood_tokens(requests, disable_tqdm=True)
    agrees = compare(answers, stock(tiny("llama"), requests)).max_abs_diff < 1e-4
    (folder / f"rank{dist.get_rank()}").write_text(f"{lm.kernel}, {'agrees' if agrees else 'differs'}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
