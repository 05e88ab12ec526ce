"""Models behind an API: any Inspect model name, with one error message if the model cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cst_bench.errors import UserError

if TYPE_CHECKING:
    from inspect_ai.model import Model


def api_model(
    name: str, *, base_url: str | None = None, api_key: str | None = None, max_retries: int | None = None
) -> Model:
    """Make an Inspect model from its name with the provider's prefix.

    Args:
        name: Such as `openai/gpt-4`.
        base_url: Endpoint; by default the provider's own.
        api_key: By default, the one in the provider's environment variable.
        max_retries: Retries that the provider's package makes by itself; by default, its own number.

    Raises:
        UserError: a key or a package is missing, or there is no such provider.
    """
    from inspect_ai._util.error import PrerequisiteError
    from inspect_ai.model import get_model
    from rich.text import Text

    retries: dict[str, Any] = {} if max_retries is None else {"max_retries": max_retries}
    try:
        return get_model(name, memoize=False, base_url=base_url, api_key=api_key, **retries)
    except (PrerequisiteError, ValueError, ImportError) as error:
        reason = " ".join(Text.from_markup(str(getattr(error, "message", error))).plain.split()).removeprefix("ERROR: ")
        raise UserError(f"could not use the Inspect model {name!r}: {reason}") from None
