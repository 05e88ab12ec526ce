"""Tiny random checkpoints on disk, for all tests: real architectures, tokenizers and chat templates in small.

    folder = make_checkpoint(tmp_path / "model", "gemma")
    adapter = make_adapter(tmp_path / "adapter", folder)

The weights are random but large, so that greedy responses vary from prompt to prompt and some end by themselves.
The same arguments make the same files, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from peft import LoraConfig, PeftConfig

TokenizerKind = Literal["bytes", "pieces"]
"""`bytes`: byte-level BPE, as Llama 3 and Qwen have it. `pieces`: BPE over "▁"-words, as Llama 2 and Gemma."""

VOCABULARY = 400
"""Rows of the embedding; the tokenizers have a few fewer."""
PROMPTS = (
    "What colour is the harbour?",
    "Name a bird.",
    "Please tell me in a few words how the old miller bakes his bread in the morning, and who buys it.",
    "Where does the ferry go when the wind comes from the north and the water is high?",
    "Hello!",
    "Who rings the bell?",
    "How many boats are in the harbour today, and which of them is the largest of all?",
    "Tell me a story about the sea.",
)
"""Prompts of mixed lengths."""

CHATML = """\
{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}\
{% for message in messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}\
{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}\
{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\\n'}}{% endif %}"""

INST = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\\n\\n' %}\
{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}\
{% for message in turns %}{% if message['role'] == 'user' %}\
{{ '[INST] ' + (system if loop.first else '') + message['content'] + '[/INST]' }}\
{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"""

PLAIN = """\
{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}\
{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}

{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"""

_CORPUS = (
    *PROMPTS,
    "The harbour is blue in the morning and grey in the evening.",
    "The miller bakes bread, the baker sells it, and the children eat it on the way to school.",
    "A gull, a heron and a swan live by the water; the ferry goes north when the wind is fair.",
    "You are a helpful assistant who answers in a few words. You answer in the manner of an old sailor.",
    "system user assistant model System: User: Assistant:",
)


@dataclass(frozen=True)
class Family:
    """What is particular to an architecture: its config, its special tokens and its chat template."""

    template: str
    specials: tuple[str, ...]
    eos: str
    bos: str | None = None
    pad: str | None = None
    kind: TokenizerKind = "bytes"
    plain_text_bos: bool = False
    """Whether the tokenizer puts a BOS before plain text."""
    stops: tuple[str, ...] = ()
    """Tokens of generation_config.json's eos_token_id, the tokenizer's own EOS aside."""
    config: dict[str, Any] = field(default_factory=dict)


FAMILIES: dict[str, Family] = {
    "llama": Family(
        CHATML,
        ("<|begin|>", "<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        "<|begin|>",
        config={"num_key_value_heads": 2},
    ),
    "mistral": Family(
        INST,
        ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
        "</s>",
        "<s>",
        kind="pieces",
        plain_text_bos=True,
        config={"num_key_value_heads": 2, "sliding_window": 8},
    ),
    "qwen2": Family(
        CHATML,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        pad="<|endoftext|>",
        stops=("<|endoftext|>",),
        config={"num_key_value_heads": 2, "tie_word_embeddings": True},
    ),
    "gemma": Family(
        GEMMA,
        ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
        "<eos>",
        "<bos>",
        pad="<pad>",
        kind="pieces",
        plain_text_bos=True,
        stops=("<end_of_turn>",),
        config={"num_key_value_heads": 1, "head_dim": 16, "tie_word_embeddings": False},
    ),
    "gpt_neox": Family(PLAIN, ("<|endoftext|>", "<|padding|>"), "<|endoftext|>", "<|endoftext|>", pad="<|padding|>"),
    "mamba": Family(
        CHATML,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        config={"state_size": 4, "tie_word_embeddings": False},
    ),
}
"""The architectures that `make_checkpoint` knows."""


def make_tokenizer(
    specials: Sequence[str],
    *,
    template: str | None,
    eos: str | None,
    bos: str | None = None,
    pad: str | None = None,
    kind: TokenizerKind = "bytes",
    plain_text_bos: bool = False,
    not_special: Sequence[str] = (),
) -> Any:
    """A `transformers` tokenizer with about 390 tokens, `specials` first.

    Tokens in `not_special` are whole tokens too, but `skip_special_tokens` leaves them in, like Qwen's `<think>`.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    alphabet = pre_tokenizers.ByteLevel.alphabet() if kind == "bytes" else [chr(i) for i in range(32, 127)] + ["\n"]
    model = models.BPE(unk_token="<unk>" if "<unk>" in specials else None)
    tokenizer = Tokenizer(model)
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=True)
        tokenizer.decoder = decoders.Replace("▁", " ")
    size = VOCABULARY - 10 - len(not_special)
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in not_special])
    if plain_text_bos:
        assert bos is not None
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        additional_special_tokens=[token for token in specials if token not in {bos, eos, pad}],
        chat_template=template,
    )


def family_tokenizer(architecture: str) -> Any:
    """The tokenizer that a checkpoint of this architecture comes with."""
    family = FAMILIES[architecture]
    return make_tokenizer(
        family.specials,
        template=family.template,
        eos=family.eos,
        bos=family.bos,
        pad=family.pad,
        kind=family.kind,
        plain_text_bos=family.plain_text_bos,
    )


def make_model(architecture: str, *, seed: int = 1, ends: Sequence[int] = (), **config: Any) -> Any:
    """A random causal LM: two layers of width 32, and weights ten times as large as usual; `ends` are likely tokens."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        **config,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **settings)).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight[list(ends)] *= 2
    return model


def make_checkpoint(folder: Path, architecture: str = "llama", *, seed: int = 1, **config: Any) -> Path:
    """Writes a checkpoint (safetensors, configs, tokenizer with its chat template) and returns its folder.

    Args:
        folder: Made if it isn't there.
        architecture: One of `FAMILIES`.
        seed: Of the weights.
        config: Put into the model's config over the small defaults, such as `max_position_embeddings=64`.
    """
    from transformers import GenerationConfig

    family = FAMILIES[architecture]
    tokenizer = family_tokenizer(architecture)
    ids = tokenizer.convert_tokens_to_ids([family.eos, *family.stops])
    eos = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": ids[0], "pad_token_id": tokenizer.pad_token_id}
    model = make_model(architecture, seed=seed, ends=ids, **{**eos, **family.config, **config})
    model.generation_config = GenerationConfig(**{**eos, "eos_token_id": ids})
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


_MROPE = {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}}
IMAGE_TEXT: dict[str, dict[str, Any]] = {
    "mistral3": {"model_type": "mistral"},
    "gemma3": {"model_type": "gemma3_text", "sliding_window": 8},
    "qwen2_5_vl": _MROPE,
    "llava": {"model_type": "llama"},
    "llama4": {"num_local_experts": 2, "intermediate_size_mlp": 64},
    "paligemma": {"model_type": "gemma"},
    "blip-2": {"model_type": "opt"},
}
"""Image-text architectures that `make_image_text_checkpoint` knows → config of the text model, over small defaults."""


def make_image_text_checkpoint(
    folder: Path, architecture: str, *, seed: int = 1, generation_config: bool = True
) -> Path:
    """Writes a checkpoint of an image-text model, with one small layer for images, and returns its folder.

    Args:
        folder: Made if it isn't there.
        architecture: One of `IMAGE_TEXT`.
        seed: Of the weights.
        generation_config: Write generation_config.json, and not only the end token in the text model's config.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, GenerationConfig

    family = FAMILIES["llama"]
    tokenizer = family_tokenizer("llama")
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        **ids,
        **IMAGE_TEXT[architecture],
    }
    # sizes by their names in the different configs
    vision = dict.fromkeys(("hidden_size", "embed_dim", "out_hidden_size", "vision_output_dim"), 32)
    vision |= dict.fromkeys(("num_hidden_layers", "depth"), 1) | dict.fromkeys(("num_attention_heads", "num_heads"), 2)
    vision |= {"intermediate_size": 64, "head_dim": 16, "image_size": 16, "patch_size": 8}
    vision |= {"projector_input_dim": 32, "projector_output_dim": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(architecture, text_config=text, vision_config=vision)
        model = AutoModelForImageTextToText.from_config(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight[tokenizer.convert_tokens_to_ids(family.eos)] *= 2
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(folder)
    if not generation_config:
        (folder / "generation_config.json").unlink()
    tokenizer.save_pretrained(folder)
    return folder


def make_thinking_checkpoint(
    folder: Path,
    *,
    template_opens: bool,
    special: bool = False,
    think_tokens: tuple[str, str] = ("<think>", "</think>"),
    seed: int = 1,
    **config: Any,
) -> Path:
    """Writes a checkpoint that thinks at times: its random weights make the markers of a thought likely tokens.

    Args:
        folder: Made if it isn't there.
        template_opens: The generation prompt opens the thought, as that of DeepSeek R1, and an answered turn has none.
        special: The markers are special tokens, which decoding leaves out, as in Magistral.
        think_tokens: The markers.
        seed: Of the weights.
        config: Put into the model's config over the small defaults.
    """
    from transformers import GenerationConfig

    family = FAMILIES["llama"]
    opening = f"assistant\n{think_tokens[0]}\n" if template_opens else "assistant\n"
    mention = f"{{# {' '.join(think_tokens)} #}}"
    tokenizer = make_tokenizer(
        (*family.specials, *(think_tokens if special else ())),
        template=CHATML.replace("assistant\n{% endif %}", f"{opening}{{% endif %}}") + mention,
        eos=family.eos,
        bos=family.bos,
        not_special=() if special else think_tokens,
    )
    stop, *markers = tokenizer.convert_tokens_to_ids([family.eos, *think_tokens])
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": stop, "pad_token_id": None}
    likely = markers[1:] if template_opens else markers
    model = make_model("llama", seed=seed, ends=[stop, *likely], **{**ids, **family.config, **config})
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def lora_config(**settings: Any) -> LoraConfig:
    """Return the config of a LoRA adapter on all linear layers that is not the identity."""
    from peft import LoraConfig

    defaults = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "init_lora_weights": False}
    return LoraConfig(task_type="CAUSAL_LM", **{**defaults, **settings})


def make_adapter(
    folder: Path, base: Path, *, seed: int = 1, base_name: str | None = None, adapter: PeftConfig | None = None
) -> Path:
    """Writes an adapter of a base, with weights that change its responses.

    Args:
        folder: Made if it isn't there.
        base: The base's folder.
        seed: Of the adapter's weights.
        base_name: What the adapter's config calls its base, when not by its path.
        adapter: Config of the adapter; LoRA on all linear layers by default.
    """
    import torch
    from peft import get_peft_model

    from cst_bench.checkpoint.model_class import auto_class

    model = auto_class(base, trust_remote_code=False).from_pretrained(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = get_peft_model(model, adapter or lora_config())
    adapted.peft_config["default"].base_model_name_or_path = base_name or str(base)
    adapted.save_pretrained(folder)
    return folder


def make_gguf(path: Path, checkpoint: Path, *, quantized: bool = False, architecture: str = "qwen2") -> Path:
    """Writes a checkpoint of `make_checkpoint(…, "qwen2")` as a GGUF file, as llama.cpp's converter would.

    Args:
        path: File to write.
        checkpoint: Its folder.
        quantized: Store matrices as Q8_0 instead of float32.
        architecture: Architecture that the file names.
    """
    import gguf
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if quantized else gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    words = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    special = set(tokenizer.all_special_ids)
    kinds = [gguf.TokenType.CONTROL if index in special else gguf.TokenType.NORMAL for index in range(len(tokenizer))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    unused = range(len(tokenizer), config.vocab_size)
    writer.add_token_list([*sorted(words["vocab"], key=words["vocab"].get), *(f"[PAD{index}]" for index in unused)])
    writer.add_token_types([*kinds, *(gguf.TokenType.UNUSED for _ in unused)])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in words["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array, kind = value.numpy(), None
        if quantized and value.dim() == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            array = gguf.quants.quantize(array, kind)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
