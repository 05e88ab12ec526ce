"""Loads a checkpoint once: a local folder, a hub id, or a PEFT adapter on its base. Safetensors only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cst_bench.checkpoint.chat import Message, encode, with_system
from cst_bench.checkpoint.options import CheckpointOptions, Source, read_json, resolve
from cst_bench.errors import UserError
from cst_bench.files import file_digest

_WANTED = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "*.tiktoken")
_UNWANTED = ("consolidated*", "original/*", "onnx/*")


@dataclass
class Checkpoint:
    """A model, its tokenizer and what is known of them, loaded once and shared by all parts of a run."""

    label: str
    options: CheckpointOptions
    model: Any
    """A `transformers` causal LM, or a `peft.PeftModel` around one, in eval mode."""
    tokenizer: Any
    identity: dict[str, Any]
    """What names these weights in a manifest: name, revision, SHA-256 of the weights, architecture, dtype, base."""
    stop_ids: frozenset[int]
    """Generation stops at any of these tokens."""
    context_length: int
    """The most tokens that prompt and response may have together."""

    @property
    def device(self) -> Any:
        """The `torch.device` of the weights."""
        return self.model.device

    def prompt_ids(self, messages: list[Message]) -> list[int]:
        """Token ids up to and with the opening of the assistant's turn."""
        return encode(self.tokenizer, with_system(messages, self.options.system_as), generation_prompt=True)

    def response_text(self, ids: list[int]) -> str:
        """The text of generated ids; the tokens that end a turn are left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


def load_checkpoint(options: CheckpointOptions, source: Source | None = None) -> Checkpoint:
    """Loads the checkpoint that the options name.

    Raises:
        UserError: there is no such checkpoint, its files are missing, corrupt, incomplete or not safetensors, or it
            needs what isn't installed or allowed.
    """
    source = source or resolve(options.name)
    folder, revision = _folder(source, options.revision, options.trust_remote_code)
    adapter = folder if (folder / "adapter_config.json").is_file() else None
    base_folder, base_name = (folder, None) if adapter is None else _base_of(adapter, options)
    _check_files(base_folder, adapter)
    tokenizer = _load_tokenizer(adapter, base_folder, options)
    device, dtype = _placement(options)
    with _explained(base_folder):
        model = _load_model(base_folder, options, device, dtype)
        if adapter is not None:
            model = _with_adapter(model, adapter)
    model.eval()
    identity: dict[str, Any] = {
        "name": options.name,
        "label": source.label,
        "kind": "adapter" if adapter else source.kind,
        "revision": revision,
        "weights_sha256": file_digest(_weights(base_folder)),
        "architecture": model.config.architectures[0] if model.config.architectures else type(model).__name__,
        "parameters": model.num_parameters(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": "4-bit nf4" if options.load_in_4bit else None,
        "system_as": options.system_as,
        "base": base_name,
    }
    if adapter is not None:
        identity["adapter_sha256"] = file_digest(_weights(adapter))
    return Checkpoint(
        label=source.label,
        options=options,
        model=model,
        tokenizer=tokenizer,
        identity=identity,
        stop_ids=_stop_ids(model, tokenizer, options),
        context_length=_context_length(model, tokenizer),
    )


def _folder(source: Source, revision: str | None, remote_code: bool) -> tuple[Path, str | None]:
    """The local folder of a source, fetched from the hub if that is where it is, and the commit it is at."""
    if source.kind == "local":
        if revision is not None:
            raise UserError(f"--revision is for hub ids; {source.name} is a local folder")
        return Path(source.name), None
    if source.kind == "inspect":
        raise UserError(f"{source.name} is an Inspect model name: it has no weights to load")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [*_WANTED, "*.py"] if remote_code else list(_WANTED)
    try:
        path = Path(
            snapshot_download(source.name, revision=revision, allow_patterns=wanted, ignore_patterns=list(_UNWANTED))
        )
    except HFValidationError:
        raise UserError(f"unknown checkpoint {source.name!r}: neither a local folder nor a valid hub id") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        at = f" at revision {revision!r}" if revision else ""
        raise UserError(
            f"unknown checkpoint {source.name!r}{at}: there is no such local folder, and the hub didn't give it: {reason}"
        ) from None
    return path, path.name


def _base_of(adapter: Path, options: CheckpointOptions) -> tuple[Path, str]:
    config = read_json(adapter / "adapter_config.json")
    name = options.base or config.get("base_model_name_or_path")
    if not name:
        raise UserError(f"{adapter}: the adapter's config names no base: give it with --base")
    beside = adapter / name
    try:
        source = resolve(str(beside) if options.base is None and beside.is_dir() else name)
        folder, _ = _folder(source, None if options.base else config.get("revision"), options.trust_remote_code)
    except UserError as error:
        raise UserError(f"{adapter}: the adapter's base can't be had: {error}; give another with --base") from None
    return folder, name


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _check_files(base: Path, adapter: Path | None) -> None:
    """The faults that can be told from the files alone, before anything heavy is imported."""
    if not (base / "config.json").is_file():
        raise UserError(f"{base}: no config.json (nor adapter_config.json): not a checkpoint folder")
    read_json(base / "config.json")
    for folder in filter(None, (base, adapter)):
        weights = _weights(folder)
        if not weights:
            pickled = sorted(path.name for path in folder.glob("*.bin"))
            raise UserError(
                f"{folder}: no .safetensors weights"
                + (f"; {pickled[0]} is a pickle, which can run code when read: convert it to safetensors first" if pickled else "")
            )
        for path in weights:
            _check_safetensors(path)


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np"):
            return
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: corrupt or cut-off safetensors file: {error}; fetch it again") from None


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """What transformers and peft raise on a bad checkpoint, as one message that names the folder."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if "out of memory" in str(error):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "trust_remote_code" in str(error):
            reason = "it brings code of its own, which is not run unless you say --trust-remote-code"
        raise UserError(f"{folder}: can't load this checkpoint: {reason}") from error


def _load_tokenizer(adapter: Path | None, base: Path, options: CheckpointOptions) -> Any:
    from transformers import AutoTokenizer

    folder = adapter if adapter is not None and (adapter / "tokenizer_config.json").is_file() else base
    with _explained(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=options.trust_remote_code)
    if options.chat_template is not None:
        path = Path(options.chat_template).expanduser()
        if not path.is_file():
            raise UserError(f"--chat-template: file not found: {options.chat_template}")
        tokenizer.chat_template = path.read_text(encoding="utf-8")
    unknown = [token for token in options.stop_token if token not in tokenizer.get_vocab()]
    if unknown:
        raise UserError(f"--stop-token {unknown[0]!r}: the tokenizer of {folder} has no such token")
    return tokenizer


def _placement(options: CheckpointOptions) -> tuple[str, Any]:
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
    if options.dtype == "auto":
        return device, torch.float32 if on_cpu else "auto"
    return device, getattr(torch, options.dtype)


def _load_model(folder: Path, options: CheckpointOptions, device: str, dtype: Any) -> Any:
    from transformers import AutoModelForCausalLM

    extra: dict[str, Any] = {}
    if options.load_in_4bit:
        extra["quantization_config"] = _four_bit()
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        device_map={"": device},
        use_safetensors=True,
        trust_remote_code=options.trust_remote_code,
        output_loading_info=True,
        **extra,
    )
    missing = sorted(info["missing_keys"])
    if missing:  # transformers would fill these with random numbers and only warn
        raise UserError(f"{folder}: {len(missing)} weights that the config calls for are not in the files, {missing[0]} first")
    return model


def _four_bit() -> Any:
    from importlib.util import find_spec

    import torch
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise UserError("--load-in-4bit needs bitsandbytes: pip install 'cst-bench[4bit]'")
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _with_adapter(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter), is_trainable=False)


def _stop_ids(model: Any, tokenizer: Any, options: CheckpointOptions) -> frozenset[int]:
    configured = getattr(model, "generation_config", None)
    eos = configured.eos_token_id if configured is not None else None
    ids = set(eos) if isinstance(eos, (list, tuple)) else {eos}
    ids.add(tokenizer.eos_token_id)
    ids.update(tokenizer.convert_tokens_to_ids(token) for token in options.stop_token)
    return frozenset(int(token) for token in ids if token is not None)


def _context_length(model: Any, tokenizer: Any) -> int:
    config = model.config.get_text_config()
    lengths = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")]
    return min([length for length in lengths if length] or [int(min(tokenizer.model_max_length, 2**20))])
