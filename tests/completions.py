"""OpenAI-compatible completions server of a real checkpoint, on loopback: token ids in and out, as vLLM has it.

It generates with transformers' `generate`, one request at a time, and shares no code with what it tests. Requests and
replies have the fields that are used of vLLM's `CompletionRequest` and `CompletionResponse` (0.10.2 and newer; the same
in SGLang). As a program (`python -m tests.completions serve FOLDER --host … --port …`) it stands for `vllm serve`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Change = Callable[["CompletionsServer", dict[str, Any], dict[str, Any]], dict[str, Any] | int]
"""Changes a reply, given server, request and reply; a number is the status of a failure."""


class CompletionsServer(ThreadingHTTPServer):
    """Server that keeps its requests."""

    daemon_threads = True

    def __init__(
        self, folder: Path, names: tuple[str, ...] = ("served",), port: int = 0, key: str | None = None
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        super().__init__(("127.0.0.1", port), _Handler)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.names = names
        self.key = key
        self.max_model_len = self.model.config.max_position_embeddings
        self.change: Change = lambda server, request, reply: reply
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        import torch
        from transformers import GenerationConfig

        if request.get("echo"):
            return self.score(request)
        prompt = request["prompt"]
        sampled = request["temperature"] > 0
        config = GenerationConfig(
            do_sample=sampled,
            max_new_tokens=request["max_tokens"],
            eos_token_id=request["stop_token_ids"],
            pad_token_id=0,
            **({"temperature": request["temperature"], "top_p": request["top_p"], "top_k": 0} if sampled else {}),
        )
        with torch.inference_mode():
            torch.manual_seed(request["seed"])
            output = self.model.generate(torch.tensor([prompt]), generation_config=config)
        ids = output[0, len(prompt) :].tolist()
        stopped = ids[-1] in request["stop_token_ids"]
        choice = {
            "index": 0,
            "text": self.tokenizer.decode(ids, skip_special_tokens=request["skip_special_tokens"]),
            "logprobs": None,
            "finish_reason": "stop" if stopped else "length",
            "stop_reason": None,
            "token_ids": ids if request.get("return_token_ids") else None,
            "prompt_token_ids": prompt if request.get("return_token_ids") else None,
        }
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(ids), "total_tokens": len(prompt) + len(ids)}
        return {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 0,
            "model": request["model"],
            "choices": [choice],
            "usage": usage,
        }

    def score(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer with `echo` and `logprobs`: of each token its own log-probability and that of the likeliest one."""
        import torch

        (prompt,) = request["prompt"]
        assert request["max_tokens"] == request["logprobs"] == 1
        with torch.inference_mode():
            likely = self.model(torch.tensor([prompt])).logits[0].float().log_softmax(-1)  # [tokens, vocabulary]
        ids = [*prompt, int(likely[-1].argmax())]
        values = [None, *(float(row[token]) for row, token in zip(likely, ids[1:]))]
        best = [None, *({f"token_id:{int(row.argmax())}": float(row.max())} for row in likely)]
        choice = {
            "index": 0,
            "text": self.tokenizer.decode(ids),
            "finish_reason": "length",
            "logprobs": {
                "tokens": [f"token_id:{token}" for token in ids],
                "token_logprobs": values,
                "top_logprobs": [
                    None if top is None else {**top, f"token_id:{token}": value}
                    for top, token, value in zip(best, ids, values)
                ],
            },
        }
        return {"object": "text_completion", "model": request["model"], "choices": [choice]}


class _Handler(BaseHTTPRequestHandler):
    server: CompletionsServer

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, {})
        elif self.path == "/v1/models":
            cards = [
                {"id": name, "object": "model", "owned_by": "tests", "max_model_len": self.server.max_model_len}
                for name in self.server.names
            ]
            self._send(200 if self._is_allowed() else 401, {"object": "list", "data": cards})
        else:
            self._send(404, {})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        if not self._is_allowed() or self.path != "/v1/completions" or request["model"] not in server.names:
            self._send(404 if self._is_allowed() else 401, {"error": {"message": "no"}})
            return
        with server.lock:
            server.requests.append(request)
            reply = server.change(server, request, server.complete(request))
        self._send(*((reply, {"error": {"message": "no"}}) if isinstance(reply, int) else (200, reply)))

    def _is_allowed(self) -> bool:
        given = self.headers.get("Authorization", "")
        self.server.keys.add(given)
        return self.server.key is None or given == f"Bearer {self.server.key}"

    def _send(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def serving(folder: Path, *names: str) -> Iterator[CompletionsServer]:
    server = CompletionsServer(folder, names or ("served",))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def main(arguments: list[str]) -> None:
    """Serve as `vllm serve FOLDER --host HOST --port PORT --served-model-name NAME …` does."""
    from argparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", choices=["127.0.0.1"], required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--dtype", choices=["float32"], required=True)
    parser.add_argument("--generation-config", choices=["vllm"], required=True)
    parser.add_argument("--note", type=Path, help="File to write the process id and the arguments into.")
    given = parser.parse_args(arguments)
    if given.note is not None:
        given.note.write_text(json.dumps({"pid": os.getpid(), "arguments": arguments}))
    key = os.environ.get("VLLM_API_KEY")
    CompletionsServer(given.folder, (given.served_model_name,), given.port, key).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
