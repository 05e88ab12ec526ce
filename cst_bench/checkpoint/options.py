"""What the user calls a checkpoint, and what kind of thing it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from cst_bench.content import content_root
from cst_bench.errors import UserError, did_you_mean

EMBEDDED = "tiny"
DTYPES = ("auto", "float32", "bfloat16", "float16")
SystemAs = Literal["system", "user-prefix"]


@dataclass(frozen=True)
class CheckpointOptions:
    """How to load a checkpoint. The names are those of the command line."""

    name: str = EMBEDDED
    """Local folder, adapter folder, hub id (`org/name`, or `hf/org/name`), Inspect model name, or `tiny`."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    base: str | None = None
    """The base of an adapter, when it isn't the one that the adapter's config names."""
    dtype: str = "auto"
    """`auto` is float32 on a CPU and the checkpoint's own type elsewhere."""
    device: str = "auto"
    """`auto` is the first GPU, else the CPU."""
    batch_size: int | None = None
    """Rows decoded together; None finds it."""
    load_in_4bit: bool = False
    trust_remote_code: bool = False
    system_as: SystemAs = "system"
    """`user-prefix` puts the system prompt before the user's text, for templates without a system role."""
    chat_template: str | None = None
    """A Jinja file to use in place of the tokenizer's own chat template."""
    stop_token: tuple[str, ...] = ()
    """Tokens that end a turn, besides the checkpoint's own."""

    def __post_init__(self) -> None:
        for field, value, known in (("dtype", self.dtype, DTYPES), ("system_as", self.system_as, get_args(SystemAs))):
            if value not in known:
                raise UserError(f"{field} must be one of {', '.join(known)}, not {value!r}")
        if self.batch_size is not None and self.batch_size < 1:
            raise UserError(f"batch_size must be at least 1, not {self.batch_size}")


@dataclass(frozen=True)
class Source:
    """Where a checkpoint comes from: `kind` decides how it is loaded."""

    kind: Literal["local", "hub", "inspect"]
    name: str
    """A folder, a hub id or an Inspect model name."""
    label: str
    """What reports call it."""


def embedded_folder() -> Path:
    """The checkpoint that comes with the package."""
    return content_root() / "training" / "tiny" / "checkpoint"


def resolve(name: str) -> Source:
    """Tells what a checkpoint's name means.

    An existing folder wins, then Inspect's provider prefixes, then the hub. `hf/org/name` is always the hub, which
    tells `hf/google/gemma-2-2b-it` (weights) from `google/gemini-2.5-flash` (an API).

    Raises:
        UserError: nothing of that name can exist.
    """
    if name == EMBEDDED:
        return Source("local", str(embedded_folder()), EMBEDDED)
    path = Path(name).expanduser()
    if name and path.is_dir():
        return Source("local", str(path.resolve()), path.resolve().name)
    if path.is_file():
        raise UserError(f"checkpoint {name!r} is a file: give the folder that holds config.json")
    if name.startswith((".", "/", "~")) or name.count("/") == 0 or "\\" in name:
        near = [entry.name for entry in path.parent.iterdir() if entry.is_dir()] if path.parent.is_dir() else []
        raise UserError(
            f"unknown checkpoint {name!r}: no such folder, and a hub id or an Inspect model name has a slash "
            f"(org/name, openai/gpt-4); {did_you_mean(path.name, [EMBEDDED, *near])}"
        )
    prefix, _, rest = name.partition("/")
    if prefix == "hf":
        return Source("hub", rest, rest)
    if prefix in inspect_providers():
        return Source("inspect", name, name)
    return Source("hub", name, name)


def inspect_providers() -> set[str]:
    """The provider prefixes that Inspect knows here, its own and those of installed packages."""
    import inspect_ai.model  # noqa: F401  (registers the providers)
    from inspect_ai._util.entrypoints import ensure_entry_points
    from inspect_ai._util.registry import registry_find, registry_info

    ensure_entry_points()
    found = registry_find(lambda info: info.type == "modelapi")
    return {registry_info(provider).name.split("/")[-1] for provider in found}
