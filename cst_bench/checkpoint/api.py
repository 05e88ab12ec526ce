"""Models behind an API: any Inspect model name, with one error message if the model cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cst_bench.errors import UserError
from cst_bench.secrets import redact

if TYPE_CHECKING:
    from inspect_ai.model import Model

    from cst_bench.checkpoint.endpoint import Address

_OWN_RETRIES = ("openai/", "openai-api/")
"""Providers whose package repeats failed requests by itself, which would multiply ours; it can be told not to."""
_LOCAL = ("cst/", "hf/", "vllm/", "sglang/")
"""Providers that load weights on this machine, or start a server there."""


def key_variable(name: str) -> str | None:
    """Return the environment variable that usually holds the key of an Inspect model; None if it runs here."""
    if name.startswith(_LOCAL):
        return None
    provider, _, rest = name.partition("/")
    service = rest.partition("/")[0] if provider == "openai-api" else provider
    return f"{service.upper().replace('-', '_')}_API_KEY"


def api_model(name: str, *, address: Address | None = None, api_key: str | None = None) -> Model:
    """Make an Inspect model from its name with the provider's prefix. No failed request is repeated by the provider.

    Args:
        name: Such as `openai/gpt-4`.
        address: Endpoint; by default the provider's own.
        api_key: By default, the one in the provider's environment variable.

    Raises:
        UserError: a key or a package is missing, there is no such provider, or an address is malformed.
    """
    from httpx2 import InvalidURL
    from inspect_ai._util.error import PrerequisiteError
    from inspect_ai.model import get_model
    from rich.text import Text

    from cst_bench.checkpoint.endpoint import guard_endpoint

    retries: dict[str, Any] = {"max_retries": 0} if name.startswith(_OWN_RETRIES) else {}
    base_url = None if address is None else address.plain
    try:
        model = get_model(name, memoize=False, base_url=base_url, api_key=api_key, **retries)
        if not name.startswith(_LOCAL):
            guard_endpoint(model, address)
    except InvalidURL:  # its message has the address, which may hold a key
        raise UserError(
            f"could not use the Inspect model {name!r}: the address of its endpoint, or of a proxy in the environment, "
            "is malformed"
        ) from None
    except (PrerequisiteError, ValueError, ImportError) as error:
        reason = " ".join(Text.from_markup(str(getattr(error, "message", error))).plain.split()).removeprefix("ERROR: ")
        raise UserError(f"could not use the Inspect model {name!r}: {redact(reason)}") from None
    return model
