"""Explain failed calls of models behind APIs: may the same call succeed later, when, and why in words."""

from __future__ import annotations

import errno
import json
import math
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cst_bench.secrets import redact

if TYPE_CHECKING:
    from inspect_ai.model import Model

SETUP = {401: "the key is not accepted", 403: "the key may not use it", 404: "there is no such model or address"}
"""Statuses that every other call would meet, too, unless one has been answered: a gateway's filter may answer so."""
_GARBLED = (TypeError, AttributeError, LookupError, ValueError, RecursionError)
"""Errors that a provider's code raises where a reply is not as it should be."""


def cause_of(error: BaseException) -> BaseException:
    """Return the error behind a retry that gave up."""
    last = getattr(error, "last_attempt", None)
    inner = last.exception() if last is not None else None
    return inner if isinstance(inner, BaseException) else error


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of a failed call; None if there was no reply."""
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def is_transient(error: BaseException, model: Model | None = None) -> bool:
    """Return whether the same call may succeed later, by rules common to all and by those of a model's provider."""
    status = status_of(error)
    if status is not None:
        return status in (408, 409, 425, 429) or status >= 500
    if isinstance(error, (TimeoutError, ConnectionError, json.JSONDecodeError)):
        return True
    if "Timeout" in type(error).__name__ or "Connection" in type(error).__name__:
        return True
    decision = model.api.should_retry(error) if model is not None and isinstance(error, Exception) else False
    return bool(getattr(decision, "retry", decision)) or isinstance(error, _GARBLED)


def asked_to_wait(error: BaseException) -> float | None:
    """Return the seconds that the endpoint asks to wait after a failed call; None if it does not say."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    return None if headers is None else wait_asked_by(headers)


def wait_asked_by(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a reply asks to wait, by a `Retry-After` or its like; None if it does not say."""
    from inspect_ai._util.http import parse_retry_after

    try:
        seconds = parse_retry_after(dict(headers))
    except (ValueError, OverflowError, TypeError):
        return None
    return seconds if seconds is not None and math.isfinite(seconds) and seconds > 0 else None


def redirected_to(error: BaseException) -> str | None:
    """Return the host that an endpoint redirects to, with its scheme; None if the error is no redirect."""
    status = status_of(error)
    if status is None or not 300 <= status < 400:
        return None
    location = getattr(getattr(error, "response", None), "headers", {}).get("location", "")
    try:
        parts = urlsplit(location)
        host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
    except ValueError:
        host, port, parts = "", "", urlsplit("")
    known = host and all(character.isascii() and (character.isalnum() or character in ".-_:") for character in host)
    return f"{parts.scheme}://{host}{port}" if known and parts.scheme in ("http", "https") else "another address"


def endpoint_message(error: BaseException) -> str:
    """Return what the endpoint said. The text of Inspect's own error has the request in it."""
    return str(getattr(error, "provider_message", None) or error)


def reason_of(error: BaseException, timeout: float | None = None) -> str:
    """Return why a call failed, as a part of a sentence that repeats nothing of the endpoint's text.

    Args:
        error: As raised by the provider.
        timeout: Seconds that an attempt may take, if the message is to say so.
    """
    from cst_bench.checkpoint.endpoint import UnreadableReply

    status = status_of(error)
    if status is not None:
        return f"status {status}: {SETUP[status]}" if status in SETUP else f"status {status}"
    chain = list(_chain(error))
    for inner in chain:
        if isinstance(inner, UnreadableReply):
            return str(inner)
        if isinstance(inner, ssl.SSLError):
            return "the certificate of the endpoint is not accepted"
        if isinstance(inner, socket.gaierror):
            return "the name of the endpoint's host is not known"
        if isinstance(inner, OSError) and inner.errno == errno.ECONNREFUSED:
            return "the connection was refused"
    names = " ".join(type(inner).__name__ for inner in chain)
    if "Timeout" in names:
        return "no reply in time" if timeout is None else f"no reply within {timeout:g} s"
    if "ConnectError" in names:
        return "no connection to the endpoint"
    if any(name in names for name in ("Connection", "ReadError", "ProtocolError")):
        return "the connection broke"
    if isinstance(error, _GARBLED):
        return f"a reply that could not be read ({type(error).__name__})"
    text = redact(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from, the members of groups included."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [current.__cause__, current.__context__]
        waiting += list(getattr(current, "exceptions", ()))
