"""Options of a checkpoint, and how its name resolves: local folder, Hub id or Inspect model name."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from cst_bench.checkpoint.gguf_file import SUFFIX
from cst_bench.checkpoint.thoughts import as_think_tokens
from cst_bench.content import content_root
from cst_bench.errors import UserError, did_you_mean
from cst_bench.record import EngineSettings

EMBEDDED = "tiny"
DTYPES = ("auto", "float32", "bfloat16", "float16")
SystemAs = Literal["system", "user-prefix"]
_SECRET_ARGUMENTS = ("--api-key", "--api_key", "--admin-api-key", "--hf-token", "--hf_token")
"""Arguments of servers that hold secrets."""
EngineName = Literal["vllm", "sglang"]
ENGINES = get_args(EngineName)
"""Engines that can be started."""
_FOR_INSPECT_MODELS = ("name", "think_tokens", "max_think_tokens")
"""Options that apply where Inspect's provider loads the weights and renders the chat template."""


@dataclass(frozen=True)
class CheckpointOptions:
    """Options for loading a checkpoint, named as on the command line."""

    name: str = EMBEDDED
    """Local folder, adapter folder, GGUF file, Hub id (`org/name`, `hf/org/name`, with a GGUF file
    `org/name:model.gguf`), Inspect model name, or `tiny`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub id."""
    base: str | None = None
    """Base of an adapter, to use instead of the one that the adapter's config names."""
    dtype: str = "auto"
    """`auto` is float32 on a CPU, with a hint where bfloat16 is faster, and the checkpoint's own dtype elsewhere."""
    device: str = "auto"
    """`auto` is the first GPU, else the CPU."""
    batch_size: int | None = None
    """Rows decoded together; None adapts to the memory."""
    load_in_4bit: bool = False
    merge: bool = True
    """Merge an adapter into its base on loading; adapters that PEFT cannot merge, and quantized bases, stay apart."""
    trust_remote_code: bool = False
    system_as: SystemAs = "system"
    """`user-prefix` puts the system prompt before the user's text, for templates without a system role."""
    chat_template: str | None = None
    """Jinja file to use instead of the tokenizer's own chat template."""
    stop_token: tuple[str, ...] = ()
    """Tokens that end a turn, in addition to the checkpoint's own."""
    think_tokens: tuple[str, str] | None = None
    """Markers that a thought begins and ends with, to use instead of those in the chat template."""
    max_think_tokens: int | None = None
    """Most tokens of a thought, in addition to those of the answer; 4096 for a local checkpoint if None. An API counts
    both alike, so it gets the sum, and by default nothing is added."""

    def __post_init__(self) -> None:
        for field, value, known in (("dtype", self.dtype, DTYPES), ("system_as", self.system_as, get_args(SystemAs))):
            if value not in known:
                raise UserError(f"{field} must be one of {', '.join(known)}, not {value!r}")
        if self.batch_size is not None and self.batch_size < 1:
            raise UserError(f"batch_size must be at least 1, not {self.batch_size}")
        if self.max_think_tokens is not None and self.max_think_tokens < 1:
            raise UserError(f"max_think_tokens must be at least 1, not {self.max_think_tokens}")
        as_think_tokens(self.think_tokens)


@dataclass(frozen=True)
class EngineOptions:
    """Options on the server that generates a checkpoint's responses, named as on the command line; none: in process."""

    generate_with: EngineName | None = None
    """Engine to start with the checkpoint's files on this machine."""
    generate_url: str | None = None
    """OpenAI-compatible server that runs already."""
    generate_model: str | None = None
    """Name of the checkpoint on that server; None if it serves one model only."""
    generate_args: str = ""
    """More arguments of the engine that is started, as in a shell."""
    generate_check: bool = True
    """Compare the server's greedy responses with those in process first, for which the weights must fit here."""
    capabilities_on_server: bool = False
    """Score the capabilities on the server, too, with lm-eval's `local-completions`; in process otherwise."""

    def __post_init__(self) -> None:
        if self.generate_with is not None and self.generate_with not in ENGINES:
            raise UserError(f"--generate-with {self.generate_with!r}: {did_you_mean(self.generate_with, ENGINES)}")
        if self.generate_with is not None and self.generate_url is not None:
            raise UserError("--generate-with starts a server, and --generate-url names one that runs: give one of them")
        if self.generate_model is not None and self.generate_url is None:
            raise UserError("--generate-model is a model's name on a server: it needs --generate-url")
        if self.generate_args and self.generate_with is None:
            raise UserError("--generate-args are those of a server that is started: they need --generate-with")
        try:
            shlex.split(self.generate_args)
        except ValueError as error:
            raise UserError(f"--generate-args: {error}: {self.generate_args}") from None
        if any(word.startswith(_SECRET_ARGUMENTS) for word in shlex.split(self.generate_args)):
            raise UserError(
                "--generate-args are stored in the run, so keys must not be among them: a server that is started here "
                "needs none, and a token for the Hub is read from HF_TOKEN"
            )
        if not self.generate_check and not self.on_server:
            raise UserError("--no-generate-check is about a server: it needs --generate-with or --generate-url")
        if self.capabilities_on_server and not self.on_server:
            raise UserError("--capabilities-on-server needs a server: --generate-with or --generate-url")

    @property
    def on_server(self) -> bool:
        """Return whether a server generates the responses."""
        return self.generate_with is not None or self.generate_url is not None

    @property
    def settings(self) -> EngineSettings | None:
        """Return what decides results, for the manifest; None for generation in process.

        The address of a server is not a part of it: the same server may have another port tomorrow.
        """
        if not self.on_server:
            return None
        return EngineSettings(
            kind=self.generate_with or "server",
            model=self.generate_model,
            arguments=tuple(shlex.split(self.generate_args)),
            checked=self.generate_check,
            capabilities=self.capabilities_on_server,
        )


@dataclass(frozen=True)
class CheckpointSource:
    """Origin of a checkpoint; `kind` decides how it is loaded."""

    kind: Literal["local", "hub", "inspect"]
    name: str
    """Folder, Hub id or Inspect model name."""
    label: str
    """Name in reports."""
    gguf: str | None = None
    """Name of a GGUF file in that folder, or on the Hub."""


def embedded_folder() -> Path:
    """Return the folder of the checkpoint that comes with the package."""
    return content_root() / "training" / "tiny" / "checkpoint"


def resolve(name: str) -> CheckpointSource:
    """Resolve a checkpoint's name.

    An existing folder comes first, then Inspect's provider prefixes, then the Hub. `hf/org/name` is always on the
    Hub, which distinguishes `hf/google/gemma-2-2b-it` (weights) from `google/gemini-2.5-flash` (an API).

    Raises:
        UserError: no checkpoint can have this name.
    """
    if name == EMBEDDED:
        return CheckpointSource("local", str(embedded_folder()), EMBEDDED)
    path = Path(name).expanduser()
    if name and path.is_dir():
        return CheckpointSource("local", str(path.resolve()), path.resolve().name)
    if path.is_file():
        if path.suffix != SUFFIX:
            raise UserError(f"checkpoint {name!r} is a file: give the folder that holds config.json, or a GGUF file")
        return CheckpointSource("local", str(path.resolve().parent), path.stem, path.name)
    if name.startswith((".", "/", "~")) or name.count("/") == 0 or "\\" in name:
        near = [entry.name for entry in path.parent.iterdir() if entry.is_dir()] if path.parent.is_dir() else []
        raise UserError(
            f"unknown checkpoint {name!r}: no such folder, and a Hub id or an Inspect model name has a slash "
            f"(org/name, openai/gpt-4); {did_you_mean(path.name, [EMBEDDED, *near])}"
        )
    prefix, _, rest = name.partition("/")
    if prefix == "hf":
        return _on_hub(rest)
    if prefix in inspect_providers():
        return CheckpointSource("inspect", name, name)
    return _on_hub(name)


def _on_hub(name: str) -> CheckpointSource:
    repository, colon, file = name.partition(":")
    if colon and file.endswith(SUFFIX):
        return CheckpointSource("hub", repository, name, file)
    return CheckpointSource("hub", name, name)


def require_applicable(options: CheckpointOptions, source: CheckpointSource) -> None:
    """Check that every option that was given applies to this kind of checkpoint.

    Raises:
        UserError: options for loading weights or for the chat template were given for an Inspect model name.
    """
    if source.kind != "inspect":
        return
    given = [
        _flag(field.name)
        for field in fields(options)
        if field.name not in _FOR_INSPECT_MODELS and getattr(options, field.name) != field.default
    ]
    if not given:
        return
    applicable = " and ".join(f"--{name.replace('_', '-')}" for name in _FOR_INSPECT_MODELS[1:])
    raise UserError(
        f"{', '.join(given)}: not possible for the Inspect model {source.name}, whose provider loads the weights and "
        f"renders the chat template; of the checkpoint options only {applicable} apply to it. "
        f"For the others, give a local folder or a Hub id{hub_hint(source.name)}"
    )


def require_served(options: CheckpointOptions, source: CheckpointSource, engine: EngineOptions) -> None:
    """Check that a server can generate this checkpoint's responses, if one is to.

    Raises:
        UserError: the checkpoint has no files that a server could have, or is loaded in a form that none has.
    """
    if not engine.on_server:
        return
    option = "--generate-url" if engine.generate_url is not None else "--generate-with"
    if source.kind == "inspect":
        raise UserError(
            f"{option}: not possible for the Inspect model {source.name}, whose provider generates the responses: "
            f"give the local folder or the Hub id that the server has{hub_hint(source.name)}"
        )
    if options.load_in_4bit:
        raise UserError(f"{option}: not possible with --load-in-4bit, since a server loads the weights in its own way")


def _flag(name: str) -> str:
    return "--no-merge" if name == "merge" else f"--{name.replace('_', '-')}"


def hub_hint(name: str) -> str:
    """Return the end of a message on an Inspect model name that may have been meant for the Hub."""
    return f"; for the Hub checkpoint of that name use hf/{name}" if name.count("/") == 1 else ""


def inspect_providers() -> set[str]:
    """Return the provider prefixes that Inspect knows, its own and those of installed packages."""
    import inspect_ai.model  # noqa: F401  (registers the providers)
    from inspect_ai._util.entrypoints import ensure_entry_points
    from inspect_ai._util.registry import registry_find, registry_info

    ensure_entry_points()
    providers = registry_find(lambda info: info.type == "modelapi")
    return {registry_info(provider).name.split("/")[-1] for provider in providers}
