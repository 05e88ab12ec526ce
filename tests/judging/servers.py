"""OpenAI-compatible chat server on loopback that answers, or fails, as a test defines."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Reply = Callable[["JudgeServer", BaseHTTPRequestHandler, str, int], None]
"""Answers a request, given server, handler, the user's texts, and how often these have been asked before."""


class JudgeServer(ThreadingHTTPServer):
    """Server that counts its requests."""

    daemon_threads = True

    def __init__(self, reply: Reply) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply = reply
        self.settings: list[dict[str, object]] = []
        self.asked: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.at_a_time = 0
        self.most_at_a_time = 0
        self.lock = threading.Lock()
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        messages = body.get("messages") or body["input"]  # of the Responses API
        text = "\n\n".join(_text(message["content"]) for message in messages if message["role"] == "user")
        server = self.server
        with server.lock:
            before = server.asked[text]
            server.asked[text] += 1
            server.settings.append({key: value for key, value in body.items() if value is not messages})
            server.keys.add(self.headers.get("Authorization", ""))
            server.at_a_time += 1
            server.most_at_a_time = max(server.most_at_a_time, server.at_a_time)
        try:
            server.reply(server, self, text, before)
        finally:
            with server.lock:
                server.at_a_time -= 1

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


def _text(content: str | list[dict[str, str]]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


@contextmanager
def serving(reply: Reply) -> Iterator[JudgeServer]:
    server = JudgeServer(reply)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, body: object, **headers: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def completion(text: str | None, finish: str = "stop", *, thought: str | None = None) -> dict[str, object]:
    message = {"role": "assistant", "content": text}
    if thought is not None:
        message["reasoning_content"] = thought
    tokens = 7 + len((thought or "").split())
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "judge",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 100, "completion_tokens": tokens, "total_tokens": 100 + tokens},
    }


def error(message: str, kind: str = "server_error", code: str | None = None) -> dict[str, object]:
    return {"error": {"message": message, "type": kind, "code": code}}


def line_of(text: str, word: str) -> str:
    """Return the verdict line that a prompt asks for, with this word."""
    lines = re.findall(r"^VERDICT \w+: WORD$", text, re.MULTILINE)
    return str(lines[-1]).replace("WORD", word)


def fenced(text: str, name: str) -> str:
    """Return a fenced piece of a prompt."""
    match = re.search(rf"^\[{name} (\w+)\]\n(.*?)\n\[end of {name} \1\]$", text, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[2]


def by_response(choose: Callable[[str], str]) -> Reply:
    """Reply as a judge that chooses a word by the response alone, after some reasoning."""

    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        word = choose(fenced(text, "response"))
        send(handler, 200, completion(f"It says what it says.\n\n{line_of(text, word)}"))

    return reply


def sleep_until_stopped(server: JudgeServer, seconds: float) -> None:
    """Hang, but not past the end of the test."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not server.stopping.is_set():
        time.sleep(0.05)
