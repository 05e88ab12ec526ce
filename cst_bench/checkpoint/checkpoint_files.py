"""A checkpoint's files: find, fetch, check and identify them. Loads no weights."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cst_bench.checkpoint.gguf_file import GgufFile, find_gguf, read_gguf
from cst_bench.checkpoint.merging import MERGE_DTYPE, mergeable
from cst_bench.checkpoint.options import CheckpointOptions, CheckpointSource, resolve
from cst_bench.errors import UserError
from cst_bench.files import digest, file_digest, read_text
from cst_bench.files import read_json as read_json_file
from cst_bench.record import CheckpointIdentity, TrainingIdentity

_WANTED = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "*.tiktoken")
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""The file that PEFT reads; without it, it reads the pickle adapter_model.bin."""
_UNWANTED = ("consolidated*", "original/*", "onnx/*")
_NAMED_WEIGHTS = "transformers_weights"
"""Key of config.json that names the file of the weights."""
_READABLE = (".safetensors", ".safetensors.index.json")
TRAINING = "training.json"
"""File in which `cst-bench train` describes a checkpoint that it made. It does not affect the model's input."""


@dataclass(frozen=True)
class CheckpointFiles:
    """A checked checkpoint on disk: its folder, the adapter's folder if it is one, and its identity."""

    label: str
    options: CheckpointOptions
    folder: Path
    """Folder of config.json and the (base) weights."""
    adapter: Path | None
    identity: CheckpointIdentity
    """Identity of these weights in a manifest."""
    gguf: GgufFile | None = None
    """File in `folder` that holds config, tokenizer and (base) weights instead."""

    @property
    def path(self) -> Path:
        """Return the folder or the GGUF file of the (base) weights."""
        return self.folder if self.gguf is None else self.gguf.path

    @property
    def gguf_name(self) -> str | None:
        """Return transformers' argument `gguf_file`."""
        return None if self.gguf is None else self.gguf.path.name

    @property
    def has_adapter_tokenizer(self) -> bool:
        """Return whether the tokenizer is the adapter's own."""
        return self.adapter is not None and (self.adapter / "tokenizer_config.json").is_file()

    @property
    def tokenizer_folder(self) -> Path:
        """Return the adapter's folder if it has a tokenizer, else the base's."""
        return self.adapter if self.adapter is not None and self.has_adapter_tokenizer else self.folder

    @property
    def parameter_count(self) -> int:
        """Return the number of values in the weight files, as their headers say."""
        from safetensors import safe_open

        count = 0 if self.gguf is None else self.gguf.parameter_count
        for folder in (None if self.gguf is not None else self.folder, self.adapter):
            for path in [] if folder is None else sorted(folder.glob("*.safetensors")):
                with safe_open(str(path), framework="np") as tensors:
                    names = tensors.keys()  # not a mapping: it cannot be iterated
                    count += sum(prod(tensors.get_slice(name).get_shape()) for name in names)
        return count


def find_checkpoint(options: CheckpointOptions, source: CheckpointSource | None = None) -> CheckpointFiles:
    """Find the files of a checkpoint, fetch them if it is on the Hub, and check them.

    Raises:
        UserError: there is no such checkpoint, or its files are missing, corrupt or not safetensors.
    """
    source = source or resolve(options.name)
    path, revision = _folder(source, options.revision, options.trust_remote_code)
    adapter = path if source.gguf is None and (path / "adapter_config.json").is_file() else None
    if adapter is None and options.base is not None:
        raise UserError(f"--base is for adapters, and {path} has no adapter_config.json")
    if adapter is None and not options.merge:
        raise UserError(f"--no-merge is for adapters, and {path} has no adapter_config.json")
    folder, base = (path, source) if adapter is None else _find_base(adapter, options)
    gguf = _gguf(folder, base, options)
    if gguf is None and not (folder / "config.json").is_file():
        if adapter is not None and (folder / "adapter_config.json").is_file():
            raise UserError(f"{adapter}: its base {folder} is also an adapter: merge that one into its own base first")
        raise UserError(f"{folder}: no config.json (nor adapter_config.json or GGUF): not a checkpoint folder")
    config = _config(folder, gguf)
    training = None if source.gguf is not None else _training(path)
    if training is not None and training.system_as != options.system_as:
        raise UserError(
            f"{path} was trained with --system-as {training.system_as}, so its prompts must have the same form: "
            f"use --system-as {training.system_as}, not {options.system_as}"
        )
    identity = CheckpointIdentity(
        label=source.label,
        kind="adapter" if adapter is not None else source.kind,
        revision=revision,
        architecture=_architecture(folder, config),
        weights_sha256=file_digest(_checked_model(folder, config) if gguf is None else [gguf.path]),
        adapter_sha256=None if adapter is None else file_digest(_checked_weights(adapter, _ADAPTER_WEIGHTS)),
        settings_sha256=_settings_digest(folder if gguf is None else None, adapter),
        base=None if adapter is None else base.label,
        training=training,
        dtype=options.dtype,
        quantization="4-bit nf4" if options.load_in_4bit else None if gguf is None else gguf.quantization,
        merged=_merge_dtype(adapter, config, options),
        system_as=options.system_as,
        stop_token=tuple(options.stop_token),
        chat_template_sha256=_template_digest(options),
        think_tokens=options.think_tokens,
        max_think_tokens=options.max_think_tokens,
    )
    return CheckpointFiles(source.label, options, folder, adapter, identity, gguf)


def _gguf(folder: Path, source: CheckpointSource, options: CheckpointOptions) -> GgufFile | None:
    path = folder / source.gguf if source.gguf is not None else find_gguf(folder)
    if path is None:
        return None
    if options.load_in_4bit:
        raise UserError(f"{path} is quantized already: --load-in-4bit is for safetensors")
    return read_gguf(path)


def _config(folder: Path, gguf: GgufFile | None) -> dict[str, Any]:
    if gguf is None:
        return read_json(folder / "config.json")
    return {"architectures": [gguf.architecture], "tie_word_embeddings": gguf.tied}


def _architecture(folder: Path, config: dict[str, Any]) -> str | None:
    """Return the class of the model, else its type.

    Raises:
        UserError: the config has something else than names there.
    """
    classes = config.get("architectures") or [config.get("model_type")]
    if not isinstance(classes, list) or not isinstance(classes[0], str | None):
        raise UserError(f"{folder / 'config.json'}: architectures must be a list of names, not {classes!r:.80}")
    return classes[0]


def _merge_dtype(adapter: Path | None, base: dict[str, Any], options: CheckpointOptions) -> str | None:
    if adapter is None or not options.merge or options.load_in_4bit:
        return None
    return MERGE_DTYPE if mergeable(read_json(adapter / "adapter_config.json"), base) else None


def _folder(source: CheckpointSource, revision: str | None, remote_code: bool) -> tuple[Path, str | None]:
    """Return the local folder of a source, fetched if it is on the Hub, and the Hub commit."""
    if source.kind == "local":
        if revision is not None:
            raise UserError(f"--revision is for Hub ids; {source.name} is a local folder")
        return Path(source.name), None
    if source.kind == "inspect":
        raise UserError(f"{source.name} is an Inspect model name: it has no weights to load")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    patterns = [*_WANTED, "*.py"] if remote_code else list(_WANTED)
    if source.gguf is not None:
        patterns = [source.gguf]
    try:
        path = snapshot_download(
            source.name, revision=revision, allow_patterns=patterns, ignore_patterns=list(_UNWANTED)
        )
    except HFValidationError:
        raise UserError(f"unknown checkpoint {source.name!r}: neither a local folder nor a valid Hub id") from None
    except OSError as error:  # the Hub's HTTP errors and "not in the local cache" are OSErrors too
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        at = f" at revision {revision!r}" if revision else ""
        raise UserError(
            f"unknown checkpoint {source.label!r}{at}: no such local folder, and could not load it from the Hub: "
            f"{reason}"
        ) from None
    if source.gguf is not None and not (Path(path) / source.gguf).is_file():
        raise UserError(f"unknown checkpoint {source.label!r}: {source.name} on the Hub has no file {source.gguf}")
    return Path(path), Path(path).name


def _find_base(adapter: Path, options: CheckpointOptions) -> tuple[Path, CheckpointSource]:
    """Return the folder and the source of an adapter's base."""
    config = read_json(adapter / "adapter_config.json")
    name = options.base or config.get("base_model_name_or_path")
    if not name or not isinstance(name, str):
        raise UserError(f"{adapter}: the adapter's config names no base: name it with --base")
    beside = adapter / name
    try:
        source = resolve(str(beside) if options.base is None and beside.is_dir() else name)
        if source.kind == "inspect":  # a base has weights: google/gemma-2-2b-it is on the Hub
            source = CheckpointSource("hub", name, name)
        revision = config.get("revision") if options.base is None and source.kind == "hub" else None
        folder, _ = _folder(source, revision, options.trust_remote_code)
    except UserError as error:
        raise UserError(f"{adapter}: could not find the adapter's base: {error}; name another with --base") from None
    return folder, source


def _checked_model(folder: Path, config: dict[str, Any]) -> list[Path]:
    """Return the files of a model's weights after checking that transformers reads no others."""
    weights = _checked_weights(folder)
    named = {folder / "config.json": [config[_NAMED_WEIGHTS]]} if config.get(_NAMED_WEIGHTS) is not None else {}
    for index in sorted(folder.glob("*.safetensors.index.json")):
        shards = read_json(index).get("weight_map")
        named[index] = list(shards.values()) if isinstance(shards, dict) else []
    for path, names in named.items():
        for name in names:
            if not isinstance(name, str) or Path(name).name != name or not name.endswith(_READABLE):
                raise UserError(
                    f"{path}: weights in {name!r}: they are read from .safetensors files in the folder itself only"
                )
    return weights


def _checked_weights(folder: Path, needed: str = "*.safetensors") -> list[Path]:
    """Return a folder's safetensors files after checking that each can be opened, and one of them is the one needed."""
    from safetensors import SafetensorError, safe_open

    weights = sorted(folder.glob("*.safetensors"))
    if not any(path.match(needed) for path in weights):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        hint = f"; {pickled[0]} is a pickle, which can run code when read: convert it to safetensors" if pickled else ""
        raise UserError(f"{folder}: no {needed.removeprefix('*')}{' weights' if needed.startswith('*') else ''}{hint}")
    for path in weights:
        try:
            with safe_open(str(path), framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: corrupt or truncated safetensors file: {error}; fetch it again") from None
    return weights


def _training(folder: Path) -> TrainingIdentity | None:
    """Read how `cst-bench train` made these weights; None if it did not."""
    if not (folder / TRAINING).is_file():
        return None
    try:
        settings = read_json(folder / TRAINING)["settings"]
        base = settings["base"]
        return TrainingIdentity(
            method=settings["method"],
            recipe=settings["recipe"]["name"],
            recipe_sha256=settings["recipe"]["sha256"],
            seed=settings["seed"],
            data_sha256=settings["data"]["sha256"],
            base=base["label"],
            base_sha256=base["weights_sha256"],
            system_as=base["system_as"],
        )
    except (KeyError, TypeError, ValidationError):
        return None


def _settings_digest(*folders: Path | None) -> str:
    """Compute the digest of the small files that decide the model's input: config, tokenizer, template, stop tokens."""
    suffixes = {".json", ".jinja", ".model", ".txt", ".tiktoken"}
    return digest(
        [
            [path.name, file_digest([path])]
            for folder in folders
            if folder is not None
            for path in sorted(folder.iterdir())
            if path.suffix in suffixes and path.name != TRAINING
        ]
    )


def _template_digest(options: CheckpointOptions) -> str | None:
    if options.chat_template is None:
        return None
    path = Path(options.chat_template).expanduser()
    if not path.is_file():
        raise UserError(f"--chat-template: file not found: {options.chat_template}")
    return digest(read_text(path))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from one of the checkpoint's own files.

    Raises:
        UserError: the file could not be read, or holds something else.
    """
    value = read_json_file(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: must be a JSON object")
    return value
