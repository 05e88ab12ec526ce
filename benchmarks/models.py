"""Checkpoints that the benchmarks run on when none is named: Llamas with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lm_eval_data import Writer, stock_tasks
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from cst_bench.checkpoint.options import embedded_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "num_attention_heads": 8,
             "num_key_value_heads": 4, "vocab_size": 4096},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256},
}  # fmt: skip
"""Shapes of random Llamas."""
_DTYPES = {"tiny": "float32", "1b": "bfloat16", "8b": "bfloat16"}
"""Their dtypes, unless another is asked for."""


def random_llama(folder: Path, *, hidden: int = 256, layers: int = 6, head: int = 32) -> Path:
    """Write a Llama that never prefers its end token, so that the benchmark sets the lengths of responses."""
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 8 * 8,
        num_hidden_layers=layers,
        num_attention_heads=hidden // head,
        max_position_embeddings=4096,
        initializer_range=0.06,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = 0
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def random_model(
    shape: str, writer: Writer, device: str, dtype: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Make a random Llama and a tokenizer for made-up text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    prompt = (stock_tasks() / "truthfulqa" / "truthfulqa_mc1.yaml").read_text()  # its shots are real English
    letters = " A B C D\nA. B. C. D.\nAnswer: A\n"  # one token each, as in any real vocabulary
    texts = (writer.text(100) for _ in range(1000))
    tokenizer.train_from_iterator([*texts, *[prompt, letters * 5] * 50], trainer)
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(getattr(torch, _DTYPES[shape]))
        model = LlamaForCausalLM(LlamaConfig(**SHAPES[shape], max_position_embeddings=4096)).eval()
        torch.set_default_dtype(torch.float32)
    for parameter in model.parameters():  # the same numbers in all dtypes; those of the rope stay in float32
        parameter.data = parameter.data.to(getattr(torch, dtype or _DTYPES[shape]))
    return model, PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="<s>")


def loaded_model(path: str, device: str, dtype: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a checkpoint and its tokenizer; by default in float32 on a CPU and in its own dtype elsewhere."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype or ("float32" if device == "cpu" else "auto"))
    return model.to(device).eval(), AutoTokenizer.from_pretrained(path)
