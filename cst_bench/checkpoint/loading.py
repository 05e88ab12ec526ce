"""Load a checkpoint once: first its chat (tokenizer, template), which the gate checks, then its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cst_bench.checkpoint.chat import Chat
from cst_bench.checkpoint.checkpoint_files import CheckpointFiles, find_checkpoint
from cst_bench.checkpoint.decoding_modes import CheckedModes
from cst_bench.checkpoint.gguf_file import parsed_once
from cst_bench.checkpoint.inspection import context_length, out_of_memory
from cst_bench.checkpoint.merging import merge_adapter
from cst_bench.checkpoint.model_class import auto_class
from cst_bench.checkpoint.options import CheckpointOptions
from cst_bench.checkpoint.processor import multiplies_bf16
from cst_bench.checkpoint.thoughts import DEFAULT_MAX_THINK_TOKENS, as_think_tokens, find_think_tokens
from cst_bench.errors import UserError
from cst_bench.files import read_text
from cst_bench.record import CheckpointIdentity

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_MOST_TOKENS = 2**31
"""Tokens of any vocabulary, and more."""
_LARGE = 100_000_000
"""Number of parameters from which products take most of the time, so that their type decides the speed."""


@dataclass
class Checkpoint:
    """A model and its chat, loaded once and shared by all parts of a run."""

    label: str
    options: CheckpointOptions
    model: PreTrainedModel
    """A `transformers` model that continues text, or a `peft.PeftModel` around one that is not merged; in eval mode."""
    chat: Chat
    identity: CheckpointIdentity
    context_length: int
    """Most tokens of prompt and response together."""
    modes: CheckedModes = field(default_factory=CheckedModes)
    """Ways of decoding that have been checked; filled by the first batches."""

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        device: torch.device = self.model.device
        return device

    @property
    def max_think_tokens(self) -> int:
        """Return the most tokens of a thought; 0 if it is not known to think."""
        return think_budget(self.options, self.chat)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the chat's tokenizer."""
        return self.chat.tokenizer


def load_checkpoint(options: CheckpointOptions) -> Checkpoint:
    """Find, check and load the checkpoint that the options name. The caller runs the gate.

    Raises:
        UserError: there is no such checkpoint, its files are missing, corrupt, incomplete or not safetensors, or it
            needs something that is not installed or not allowed.
    """
    files = find_checkpoint(options)
    return load_weights(files, load_chat(files))


def load_chat(files: CheckpointFiles) -> Chat:
    """Load the tokenizer, its template (or the one of `--chat-template`), the stop tokens and the markers of thoughts.

    Raises:
        UserError: the tokenizer could not be loaded, or a `--stop-token` is not in its vocabulary.
    """
    from transformers import AutoTokenizer

    options = files.options
    with explained(files.tokenizer_folder, options), parsed_once():
        tokenizer = AutoTokenizer.from_pretrained(
            files.tokenizer_folder,
            gguf_file=None if files.has_adapter_tokenizer else files.gguf_name,
            trust_remote_code=options.trust_remote_code,
        )
        configured = _configured_stops(files) | {tokenizer.eos_token_id}
        stop_ids = _checked_stops(files, configured)
    if options.chat_template is not None:
        tokenizer.chat_template = read_text(Path(options.chat_template).expanduser())
    vocabulary = tokenizer.get_vocab()
    for token in options.stop_token:
        if token not in vocabulary:
            raise UserError(f"--stop-token {token!r}: the tokenizer in {files.tokenizer_folder} has no such token")
        stop_ids.add(vocabulary[token])
    markers = as_think_tokens(options.think_tokens) or find_think_tokens(tokenizer)
    return Chat(tokenizer, frozenset(stop_ids), options.system_as, markers)


def load_weights(files: CheckpointFiles, chat: Chat) -> Checkpoint:
    """Load the model onto its device.

    Raises:
        UserError: the weights do not fit the config, or the device or 4-bit loading is not available.
    """
    options = files.options
    device, dtype = placement(options)
    with explained(files.path, options), parsed_once():
        model = _load_model(files, device, dtype)
    if files.adapter is not None:
        with explained(files.adapter, options):
            model = _with_adapter(model, files.adapter, merge=files.identity.merged is not None)
    _check_embeddings(files, model, chat.tokenizer)
    model.eval()
    return Checkpoint(files.label, options, model, chat, files.identity, context_length(model.config, chat.tokenizer))


def think_budget(options: CheckpointOptions, chat: Chat) -> int:
    """Return the most tokens of a thought; 0 if the checkpoint is not known to think."""
    return 0 if chat.think_tokens is None else options.max_think_tokens or DEFAULT_MAX_THINK_TOKENS


def load_config(files: CheckpointFiles) -> PreTrainedConfig:
    """Load the config of the (base) model. What transformers raises on a bad one is left as it is."""
    from transformers import AutoConfig

    with parsed_once():
        return AutoConfig.from_pretrained(
            files.folder, gguf_file=files.gguf_name, trust_remote_code=files.options.trust_remote_code
        )


def _checked_stops(files: CheckpointFiles, configured: Iterable[object]) -> set[int]:
    """Return the token ids among the configured ones, without None.

    Raises:
        UserError: one is not a token id.
    """
    stops = [token for token in configured if token is not None]
    for token in stops:
        if not isinstance(token, int) or not 0 <= token < _MOST_TOKENS:
            raise UserError(f"{files.path}: eos_token_id must be one or more token ids, not {token!r:.80}")
    return {token for token in stops if isinstance(token, int)}


def _configured_stops(files: CheckpointFiles) -> set[int | None]:
    """Return the end tokens of generation_config.json, or else of the config (its own, or its text model's)."""
    from transformers import GenerationConfig

    if files.gguf is None and (files.folder / "generation_config.json").is_file():
        eos = GenerationConfig.from_pretrained(files.folder).eos_token_id
    else:
        config = load_config(files)
        own = getattr(config, "eos_token_id", None)
        eos = getattr(config.get_text_config(), "eos_token_id", None) if own is None else own
    return set(eos) if isinstance(eos, (list, tuple)) else {eos}


@contextmanager
def explained(folder: Path, options: CheckpointOptions) -> Iterator[None]:
    """Raise what transformers and peft raise on a bad checkpoint as a one-line `UserError` that names the folder."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise UserError(
                f"{folder}: not enough memory to load it; try --dtype bfloat16 or --load-in-4bit"
            ) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        if "trust_remote_code" in str(error) and not options.trust_remote_code:
            reason = "it contains code of its own, which runs only with --trust-remote-code"
        raise UserError(f"{folder}: could not load this checkpoint: {reason}") from error


def placement(options: CheckpointOptions) -> tuple[str, torch.dtype | Literal["auto"]]:
    """Return the device and dtype to load to.

    Raises:
        UserError: the device is not available.
    """
    import torch

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {options.device!r} is not available: {str(error).splitlines()[0]}") from None
    if kind == "meta":
        raise UserError(f"--device {options.device!r} is not available: it holds no weights")
    if options.dtype == "auto":
        return device, torch.float32 if kind == "cpu" else "auto"
    dtype: torch.dtype = getattr(torch, options.dtype)
    return device, dtype


def dtype_hint(files: CheckpointFiles) -> str | None:
    """Return a hint where `auto` means float32 and bfloat16 would be faster; None elsewhere.

    Raises:
        UserError: the device is not available.
    """
    if files.options.dtype != "auto" or files.options.load_in_4bit or files.parameter_count < _LARGE:
        return None
    device, _ = placement(files.options)
    if not device.startswith("cpu") or not multiplies_bf16():
        return None
    return f"{files.label} is in float32; this CPU multiplies bfloat16 faster: --dtype bfloat16"


def _load_model(files: CheckpointFiles, device: str, dtype: torch.dtype | Literal["auto"]) -> PreTrainedModel:
    options, folder = files.options, files.path
    settings: dict[str, object] = {"quantization_config": _four_bit()} if options.load_in_4bit else {}
    if files.gguf is not None:
        from transformers import GgufConfig

        settings = {"gguf_file": files.gguf_name, "quantization_config": GgufConfig(dequantize=True)}
    kind = auto_class(files.folder, gguf_file=files.gguf_name, trust_remote_code=options.trust_remote_code)
    model, info = kind.from_pretrained(
        files.folder,
        dtype=dtype,
        device_map={"": device},
        use_safetensors=True,
        trust_remote_code=options.trust_remote_code,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # our own message below names the weight
        **settings,
    )
    for name, in_files, in_config in sorted(info["mismatched_keys"]):
        raise UserError(f"{folder}: {name} has shape {list(in_files)} in the files and {list(in_config)} in the config")
    check_loaded(folder, info["missing_keys"])
    return model


def check_loaded(folder: Path, missing: Iterable[str]) -> None:
    """Check that no weight is missing: transformers would fill it with random numbers and only warn.

    Raises:
        UserError: there are missing weights.
    """
    names = sorted(missing)
    if names:
        raise UserError(
            f"{folder}: {len(names)} of the weights that the config calls for are not in the files, such as {names[0]}"
        )


def _check_embeddings(files: CheckpointFiles, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer whose template writes added tokens that the model has no embedding for."""
    rows = model.get_input_embeddings().weight.shape[0]
    template = str(tokenizer.chat_template)
    for token, index in sorted(tokenizer.get_added_vocab().items()):
        if index >= rows and (token in template or token in (tokenizer.bos_token, tokenizer.eos_token)):
            raise UserError(
                f"{files.tokenizer_folder}: the tokenizer has {token!r} as token {index}, but the model in "
                f"{files.path} has only {rows}: use the tokenizer that it was trained with"
            )


def _four_bit() -> BitsAndBytesConfig:
    from importlib.util import find_spec

    import torch
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise UserError("--load-in-4bit needs bitsandbytes: pip install 'cst-bench[4bit]'")
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _with_adapter(model: PreTrainedModel, adapter: Path, *, merge: bool) -> PreTrainedModel:
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
    loaded = adapted.load_adapter(str(adapter), adapter_name="default")  # again: only this reports missing weights
    check_loaded(adapter, (name.replace(".default", "") for name in loaded.missing_keys))
    return merge_adapter(adapted, adapter) if merge else adapted
