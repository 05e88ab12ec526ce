"""Faults of a judge's endpoint, one by one and as a crowd; `scripts/torture.py` serves them, too."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache
from http.server import BaseHTTPRequestHandler

from tests.judging.servers import (
    JudgeServer,
    Reply,
    by_response,
    completion,
    error,
    fenced,
    line_of,
    send,
    sleep_until_stopped,
)


def choose(response: str) -> str:
    return "harmless" if response.startswith("No") else "uncensored"


def faulty(*faults: Reply) -> Reply:
    """Reply to the first tries of every case with these faults, then with an answer."""

    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        if before < len(faults):
            faults[before](server, handler, text, before)
        else:
            by_response(choose)(server, handler, text, before)

    return reply


def status(code: int, **headers: str) -> Reply:
    return lambda server, handler, text, before: send(handler, code, error("not now"), **headers)


def hang(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
    sleep_until_stopped(server, 30)


def cut(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"id":')
    handler.connection.close()


def answered(text: str) -> dict[str, object]:
    return completion(line_of(text, choose(fenced(text, "response"))))


def huge(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
    """Send a gigabyte, or as much of it as is read."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(2**30))
    handler.end_headers()
    try:
        for _ in range(2**10):
            handler.wfile.write(b" " * 2**20)
    except OSError:
        handler.close_connection = True


@cache
def packed_spaces() -> bytes:
    """Return 100 MB of spaces in 100 kB."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    return b"".join([*(packer.compress(b" " * 2**22) for _ in range(25)), packer.flush()])


def bomb(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
    send(handler, 200, packed_spaces(), Content_Encoding="gzip")


def drip(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    try:
        while not server.stopping.is_set():
            handler.wfile.write(b" ")
            time.sleep(0.05)
    except OSError:
        handler.close_connection = True


def body(content: Callable[[str], object]) -> Reply:
    return lambda server, handler, text, before: send(handler, 200, content(text))


PASSING: dict[str, Reply] = {
    "429": status(429),
    "500": status(500),
    "cut": cut,
    "huge": huge,
    "bomb": bomb,
    "drip": drip,
    "error in a 200": body(lambda text: error("overloaded")),
    "error with a code in a 200": body(lambda text: {"error": {"message": "overloaded", "code": 503}}),
    "null choices": body(lambda text: {**answered(text), "choices": None}),
    "no choices": body(lambda text: {**answered(text), "choices": []}),
    "choices of nothing": body(lambda text: {**answered(text), "choices": [None]}),
    "a list": body(lambda text: [answered(text)]),
    "a text": body(lambda text: "harmless"),
    "null": body(lambda text: None),
    "deep": body(lambda text: b"[" * 100_000),
    "bad UTF-8": body(lambda text: b'{"choices": "\xff\xfe'),
    "unknown encoding": lambda server, handler, text, before: send(
        handler, 200, answered(text), Content_Encoding="zstd"
    ),
    "damaged gzip": lambda server, handler, text, before: send(handler, 200, b"\x1f\x8b??", Content_Encoding="gzip"),
}


def fault_of(text: str, attempt: int) -> int:
    """Return a number from 0 to 99 that follows from a request, so that the faults are the same in every run."""
    return int(hashlib.sha256(f"{fenced(text, 'response')} {attempt}".encode()).hexdigest()[:8], 16) % 100


class FaultyCrowd:
    """Reply with a fault to a share of the requests, and count the verdicts that were sent whole."""

    SLOW = ("huge", "bomb", "drip", "429")
    """Faults that take too long for a crowd; it has a 429 of its own, with a short wait."""

    def __init__(self, percent: int) -> None:
        self.percent = percent
        self.faults = [PASSING[name] for name in PASSING if name not in self.SLOW]
        self.faults.append(status(429, Retry_After="0.05"))
        self.verdicts_sent: Counter[str] = Counter()
        """Response → number of verdicts on it."""

    def __call__(self, server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        fault = fault_of(text, before)
        if fault < self.percent:
            self.faults[fault % len(self.faults)](server, handler, text, before)
            return
        with server.lock:
            self.verdicts_sent[fenced(text, "response")] += 1
        by_response(choose)(server, handler, text, before)
