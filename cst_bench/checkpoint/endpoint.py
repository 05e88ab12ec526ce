"""Addresses of OpenAI-compatible endpoints, and the HTTP client that asks them.

An endpoint is not trusted. Its redirects are not followed, a reply is read up to `MAX_REPLY` bytes, unpacked ones
included, and a key that it repeats is removed from its reply, so that no log, cache or message can hold it. Secrets of
an address (user, password, query) are added where a request leaves, below everything that logs requests.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import httpx2

from cst_bench.checkpoint.call_errors import wait_asked_by
from cst_bench.errors import UserError
from cst_bench.secrets import REMOVED, SHORTEST_SECRET

if TYPE_CHECKING:
    from inspect_ai.model import Model

MAX_REPLY = 16 * 2**20
"""Most bytes of a reply. The longest answers of today's models have less than a million."""
_LONGEST_HOLD = 300.0
"""Most seconds that a request is held back because the endpoint asked an earlier one to wait."""


@dataclass(frozen=True)
class Address:
    """An endpoint's address, apart from the secrets that it may hold."""

    plain: str
    """Scheme, host, port and path."""
    query: str = ""
    """Sent with every request."""
    login: tuple[str, str] | None = None
    """User and password, sent in place of a key."""

    @property
    def authorization(self) -> str | None:
        """Return the header that the login is sent as; None without one."""
        if self.login is None:
            return None
        return "Basic " + base64.b64encode(":".join(self.login).encode()).decode()

    @property
    def secrets(self) -> frozenset[str]:
        """Return what is not to be shown: user, password and the values of the query, in the forms they are sent in."""
        values = [value for pair in self.query.split("&") for value in (pair.partition("=")[2],) if value]
        values += [] if self.login is None else [*self.login, (self.authorization or "").removeprefix("Basic ")]
        return frozenset(form for value in values for form in (value, unquote(value)))


def parse_address(url: str, option: str) -> Address:
    """Return the parts of an address that a user gave; `option` names where, for the message.

    Raises:
        UserError: it is not an address. The message doesn't repeat it, since it may hold a key.
    """
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
        host = parts.hostname or ""
        plain_text = url.isascii() and url.isprintable() and " " not in url
        if parts.scheme not in ("http", "https") or not host or not plain_text:
            raise ValueError
        host = f"[{host}]" if ":" in host else host
        plain = urlunsplit((parts.scheme, f"{host}{port}", parts.path.rstrip("/"), "", ""))
        httpx2.URL(plain)
    except (ValueError, httpx2.InvalidURL):
        raise UserError(
            f"{option} is not an address: it must begin with http:// or https:// and a host, and may go on with a port "
            "and a path (https://host:8000/v1); characters such as @, # and / in a password are written as %40, %23 "
            "and %2F"
        ) from None
    login = None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))
    return Address(plain, parts.query, login)


class UnreadableReply(httpx2.TransportError):
    """A reply that holds no answer; the message says why, as the end of a sentence."""


def guard_endpoint(model: Model, address: Address | None = None) -> None:
    """Let an OpenAI-compatible provider ask through a guarded client; other providers are left as they are.

    Args:
        model: The model.
        address: Its address, if that was given apart from the model.
    """
    from inspect_ai.model._providers.openai import OpenAIAPI
    from inspect_ai.model._providers.openai_compatible import OpenAICompatibleAPI

    api = model.api
    if not isinstance(api, (OpenAIAPI, OpenAICompatibleAPI)):
        return
    if address is None:
        given = str(api.base_url or api.client.base_url)
        address = parse_address(given, "the address of the model's endpoint (the provider's …_BASE_URL)")
        if address.login is not None or address.query:
            api.base_url = address.plain
    api.http_client = guarded_client(address, [str(api.api_key or "")])
    api.initialize()


def guarded_client(address: Address, keys: Iterable[str]) -> httpx2.AsyncClient:
    """Return a client for the openai package that asks one endpoint; `keys` are removed from replies."""
    from inspect_ai._util.http_defaults_httpx2 import default_client_kwargs  # its timeouts, pools and proxies
    from openai import DefaultAsyncHttpxClient

    # its debug lines hold the headers of replies, in which an endpoint may repeat a key
    logging.getLogger("httpcore2").setLevel(logging.INFO)
    settings = default_client_kwargs()
    secrets = {*keys, *address.secrets}
    hold = _Hold()
    settings["transport"] = GuardedTransport(settings["transport"], address, secrets, hold)
    settings["mounts"] = {
        pattern: None if transport is None else GuardedTransport(transport, address, secrets, hold)
        for pattern, transport in settings["mounts"].items()
    }
    settings["follow_redirects"] = False
    # a reply in one piece and as it is takes no memory that its length does not show
    return DefaultAsyncHttpxClient(**settings, headers={"Accept-Encoding": "identity"})


class _Hold:
    """The monotonic time before which an endpoint is sent nothing, since it has asked to wait."""

    until = 0.0


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Adds an address's secrets to requests, and reads whole replies within bounds."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, address: Address, secrets: Iterable[str], hold: _Hold) -> None:
        """Wrap the transport that sends; `secrets` are removed from replies."""
        self._inner = inner
        self._hold = hold
        self._address = address
        forms = {form for secret in secrets for form in (secret, quote(secret, safe=""), quote(secret))}
        self._secrets = sorted((form for form in forms if len(form) >= SHORTEST_SECRET), key=len, reverse=True)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return its reply.

        Raises:
            UnreadableReply: it is too long, or has no answer in it.
        """
        while (seconds := self._hold.until - time.monotonic()) > 0:
            await asyncio.sleep(min(seconds, _LONGEST_HOLD))
        response = await self._inner.handle_async_request(self._as_sent(request))
        self._heed(response)
        try:
            body = await self._read(response)
        finally:
            await response.aclose()
        status = response.status_code
        if status == 200 and request.url.path.endswith("/completions"):
            is_chat = request.url.path.endswith("/chat/completions")
            status, body = _checked(body, *(("message", dict) if is_chat else ("text", str)))
        return httpx2.Response(status, headers=list(self._headers(response)), content=body, request=request)

    async def aclose(self) -> None:
        """Close the transport that sends."""
        await self._inner.aclose()

    def _heed(self, response: httpx2.Response) -> None:
        """Hold back all requests for as long as a failed one is told to wait."""
        seconds = wait_asked_by(response.headers) if response.status_code in (429, 503) else None
        if seconds is not None:
            self._hold.until = max(self._hold.until, time.monotonic() + min(seconds, _LONGEST_HOLD))

    def _as_sent(self, request: httpx2.Request) -> httpx2.Request:
        """Return a request with the address's query and login."""
        url, headers = request.url, request.headers.copy()
        if self._address.query:
            query = "&".join(filter(None, (url.query.decode(), self._address.query)))
            url = url.copy_with(query=query.encode())
        if self._address.authorization is not None:
            headers["Authorization"] = self._address.authorization
        return httpx2.Request(
            request.method, url, headers=headers, stream=request.stream, extensions=request.extensions
        )

    async def _read(self, response: httpx2.Response) -> bytes:
        body = bytearray()
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        async for piece in response.stream:
            body += piece
            if len(body) > MAX_REPLY:
                raise UnreadableReply(f"a reply of more than {MAX_REPLY >> 20} MiB")
        content = _unpacked(bytes(body), response.headers.get("content-encoding", "identity").strip().lower())
        for secret in self._secrets:
            content = content.replace(secret.encode(), REMOVED.encode())
        return content

    def _headers(self, response: httpx2.Response) -> Iterator[tuple[str, str]]:
        for name, value in response.headers.multi_items():
            if name.lower() in ("content-encoding", "content-length", "transfer-encoding"):
                continue
            for secret in self._secrets:
                value = value.replace(secret, REMOVED)
            yield name, value


def _unpacked(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnreadableReply("a reply in an encoding that was not asked for")
    try:
        content = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, MAX_REPLY + 1)
    except zlib.error:
        raise UnreadableReply("a packed reply that is damaged") from None
    if len(content) > MAX_REPLY:
        raise UnreadableReply(f"a packed reply of more than {MAX_REPLY >> 20} MiB")
    return content


def _checked(body: bytes, field: str, kind: type) -> tuple[int, bytes]:
    """Return status and body of a completion: an error in a reply of status 200 gets its own status, and token
    counts that are none are left out, so that no answer is lost by them.

    Args:
        body: The reply.
        field: Field of a choice that has the answer.
        kind: Type of the answer.

    Raises:
        UnreadableReply: it is not a completion with an answer.
    """
    try:
        reply: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise UnreadableReply("a reply that is not JSON") from None
    if not isinstance(reply, dict):
        raise UnreadableReply("a reply that is not a completion")
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        error = reply.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        if isinstance(code, int) and 400 <= code < 600:
            return code, body
        raise UnreadableReply("an error in place of an answer" if error else "a reply without an answer")
    if not all(isinstance(choice, dict) and isinstance(choice.get(field), kind) for choice in choices):
        raise UnreadableReply("a reply without an answer")
    if "usage" not in reply or _counts_tokens(reply["usage"]):
        return 200, body
    del reply["usage"]
    return 200, json.dumps(reply).encode()


def _counts_tokens(usage: object) -> bool:
    """Return whether token counts are what they should be: numbers, of details perhaps missing."""
    if not isinstance(usage, dict):
        return usage is None
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    details = [usage.get(f"{name}_details") for name in names[:2]]
    if not all(_is_count(usage.get(name)) for name in names):
        return False
    return all(
        part is None or (isinstance(part, dict) and all(value is None or _is_count(value) for value in part.values()))
        for part in details
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
