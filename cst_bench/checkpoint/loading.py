"""Loads a checkpoint once: first its chat (tokenizer, template), which the gate looks at, then its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cst_bench.checkpoint.chat import Chat
from cst_bench.checkpoint.files import CheckpointFiles, find_checkpoint
from cst_bench.checkpoint.options import CheckpointOptions
from cst_bench.errors import UserError
from cst_bench.record import CheckpointIdentity


@dataclass
class Checkpoint:
    """A model, its chat and what is known of them, loaded once and shared by all parts of a run."""

    label: str
    options: CheckpointOptions
    model: Any
    """A `transformers` causal LM, or a `peft.PeftModel` around one, in eval mode."""
    chat: Chat
    identity: CheckpointIdentity
    context_length: int
    """The most tokens that prompt and response may have together."""

    @property
    def device(self) -> Any:
        """The `torch.device` of the weights."""
        return self.model.device

    @property
    def tokenizer(self) -> Any:
        """The `transformers` tokenizer."""
        return self.chat.tokenizer


def load_checkpoint(options: CheckpointOptions) -> Checkpoint:
    """Finds, checks and loads the checkpoint that the options name. The gate is the caller's to run.

    Raises:
        UserError: there is no such checkpoint, its files are missing, corrupt, incomplete or not safetensors, or it
            needs what isn't installed or allowed.
    """
    files = find_checkpoint(options)
    return load_weights(files, load_chat(files))


def load_chat(files: CheckpointFiles) -> Chat:
    """The tokenizer, its template (or the one of `--chat-template`) and the stop tokens.

    Raises:
        UserError: the tokenizer can't be loaded, or a `--stop-token` is not in its vocabulary.
    """
    from transformers import AutoTokenizer

    options = files.options
    with _explained(files.tokenizer_folder, options):
        tokenizer = AutoTokenizer.from_pretrained(files.tokenizer_folder, trust_remote_code=options.trust_remote_code)
        stop_ids = {
            int(i) for i in _configured_stops(files.folder, options) | {tokenizer.eos_token_id} if i is not None
        }
    if options.chat_template is not None:
        tokenizer.chat_template = Path(options.chat_template).expanduser().read_text(encoding="utf-8")
    vocabulary = tokenizer.get_vocab()
    for token in options.stop_token:
        if token not in vocabulary:
            raise UserError(f"--stop-token {token!r}: the tokenizer in {files.tokenizer_folder} has no such token")
        stop_ids.add(vocabulary[token])
    return Chat(tokenizer, frozenset(stop_ids), options.system_as)


def load_weights(files: CheckpointFiles, chat: Chat) -> Checkpoint:
    """The model itself, on its device.

    Raises:
        UserError: the weights don't fit the config, or the device or 4-bit loading can't be used.
    """
    options = files.options
    device, dtype = placement(options)
    with _explained(files.folder, options):
        model = _load_model(files.folder, options, device, dtype)
    if files.adapter is not None:
        with _explained(files.adapter, options):
            model = _with_adapter(model, files.adapter)
    _require_embeddings(files, model, chat.tokenizer)
    model.eval()
    return Checkpoint(files.label, options, model, chat, files.identity, _context_length(model, chat.tokenizer))


def _configured_stops(folder: Path, options: CheckpointOptions) -> set[int | None]:
    """The end tokens of generation_config.json, or else of config.json."""
    from transformers import AutoConfig, GenerationConfig

    if (folder / "generation_config.json").is_file():
        eos = GenerationConfig.from_pretrained(folder).eos_token_id
    else:
        eos = AutoConfig.from_pretrained(folder, trust_remote_code=options.trust_remote_code).eos_token_id
    return set(eos) if isinstance(eos, (list, tuple)) else {eos}


@contextmanager
def _explained(folder: Path, options: CheckpointOptions) -> Iterator[None]:
    """What transformers and peft raise on a bad checkpoint, as one message that names the folder."""
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
            reason = "it brings code of its own, which is not run unless you say --trust-remote-code"
        raise UserError(f"{folder}: can't load this checkpoint: {reason}") from error


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory of the device is used up. On a CPU it is a plain `RuntimeError`."""
    import torch

    said = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in str(error) for words in said)


def placement(options: CheckpointOptions) -> tuple[str, Any]:
    """Device and dtype to load to."""
    import torch

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        on_cpu = torch.device(device).type == "cpu"
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {options.device!r} can't be used: {str(error).splitlines()[0]}") from None
    if torch.device(device).type == "meta":
        raise UserError(f"--device {options.device!r} can't be used: it holds no weights")
    if options.dtype == "auto":
        return device, torch.float32 if on_cpu else "auto"
    return device, getattr(torch, options.dtype)


def _load_model(folder: Path, options: CheckpointOptions, device: str, dtype: Any) -> Any:
    from transformers import AutoModelForCausalLM

    extra: dict[str, Any] = {"quantization_config": _four_bit()} if options.load_in_4bit else {}
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        device_map={"": device},
        use_safetensors=True,
        trust_remote_code=options.trust_remote_code,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # so that it is we who say which
        **extra,
    )
    for name, given, wanted in sorted(info["mismatched_keys"]):
        raise UserError(f"{folder}: {name} is {list(given)} in the files, and {list(wanted)} by the config")
    _require_all(folder, info["missing_keys"])  # transformers fills these with random numbers and only warns
    return model


def _require_all(folder: Path, missing: Iterable[str]) -> None:
    names = sorted(missing)
    if names:
        raise UserError(
            f"{folder}: {len(names)} of the weights that the config calls for are not in the files, such as {names[0]}"
        )


def _require_embeddings(files: CheckpointFiles, model: Any, tokenizer: Any) -> None:
    """Refuses a tokenizer whose template writes tokens that the model has never seen: added, and not trained."""
    rows = model.get_input_embeddings().weight.shape[0]
    template = str(tokenizer.chat_template)
    for token, index in sorted(tokenizer.get_added_vocab().items()):
        if index >= rows and (token in template or token in (tokenizer.bos_token, tokenizer.eos_token)):
            raise UserError(
                f"{files.tokenizer_folder}: the tokenizer has {token!r} as token {index}, but the model in "
                f"{files.folder} has {rows} only: give it the tokenizer that it was trained with"
            )


def _four_bit() -> Any:
    from importlib.util import find_spec

    import torch
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise UserError("--load-in-4bit needs bitsandbytes: pip install 'cst-bench[4bit]'")
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _with_adapter(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(model, str(adapter), is_trainable=False)
    loaded = adapted.load_adapter(str(adapter), adapter_name="default")  # again: only this says what was missing
    _require_all(adapter, (name.replace(".default", "") for name in loaded.missing_keys))
    return adapted


def _context_length(model: Any, tokenizer: Any) -> int:
    config = model.config.get_text_config()
    lengths = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")]
    return int(min([length for length in lengths if length] or [min(tokenizer.model_max_length, 2**20)]))
