"""Start an engine's own server on this machine with a checkpoint's files, wait until it is ready, and stop it.

The server listens on loopback. It runs in a session of its own, so that Ctrl-C does not end it before the responses in
flight, and is stopped with all its processes.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2

from cst_bench.checkpoint.options import EngineName
from cst_bench.errors import UserError
from cst_bench.escape import visible
from cst_bench.secrets import redact

SERVED = "checkpoint"
"""Name of the checkpoint on a server that is started here."""
_BASE = "base"
"""Name of the base of an adapter that is not merged."""
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes for `--max-lora-rank`."""
_START_SECONDS = 3600.0
"""Most seconds until a server is ready, of which loading the weights takes most."""
_STOP_SECONDS = 30.0
"""Most seconds until a server has stopped by itself."""
_POLL_SECONDS = 0.5
_INSTALL: Mapping[EngineName, str] = {
    "vllm": "pip install 'cst-bench[vllm]', or put the bin folder of an environment that has vLLM on PATH",
    "sglang": (
        "install SGLang into an environment of its own, since it needs other versions of packages than cst-bench, and "
        "put the bin folder of that on PATH"
    ),
}
"""Engine → what to do if it is not found."""
_SHOWN = 600
"""Most characters of a server's output in a message."""


@dataclass(frozen=True)
class ServedFiles:
    """Files that a server is started with."""

    folder: Path
    """Folder of the weights."""
    dtype: str
    """Data type of the weights."""
    adapter: Path | None = None
    """Folder of a LoRA adapter that is applied to them."""
    adapter_rank: int = 0
    trust_remote_code: bool = False


def find_engine(engine: EngineName) -> str:
    """Return the path of an engine's program.

    Raises:
        UserError: it is not installed.
    """
    program = shutil.which(engine) or shutil.which(engine, path=str(Path(sys.executable).parent))
    if program is None:
        raise UserError(f"--generate-with {engine}: there is no program `{engine}`: {_INSTALL[engine]}")
    return program


class LocalServer:
    """A server that runs; `stop` ends it."""

    def __init__(self, engine: EngineName, files: ServedFiles, arguments: str) -> None:
        """Start the server and wait until it is ready.

        Args:
            engine: The engine.
            files: What it serves.
            arguments: More arguments, as in a shell.

        Raises:
            UserError: it is not installed, does not take the files, or ended or was not ready in time.
        """
        self._engine = engine
        self.key = secrets.token_hex(16)
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}/v1"
        self._folder = TemporaryDirectory(prefix="cst-bench-server-")
        self._log = Path(self._folder.name) / "server.log"
        command = [find_engine(engine), *server_arguments(engine, files, port), *shlex.split(arguments)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  (the engine that the user named, no shell)
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "VLLM_API_KEY": self.key},
                start_new_session=True,
            )
        try:
            self._wait(f"http://127.0.0.1:{port}/health")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and all its processes; a second call does nothing."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self._process.wait()
        self._signal(signal.SIGKILL)  # what the first process has left behind
        self._folder.cleanup()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):  # the group has ended; macOS has another error for it
            return

    def _wait(self, address: str) -> None:
        end = time.monotonic() + _START_SECONDS
        with httpx2.Client(trust_env=False, timeout=10.0) as client:
            while time.monotonic() < end:
                status = self._process.poll()
                if status is not None:
                    raise UserError(
                        f"{self._failed} ended with status {status} before it was ready: {self._last_words()}"
                    )
                try:
                    if client.get(address).status_code == 200:
                        return
                except httpx2.TransportError:
                    pass  # it does not listen yet
                time.sleep(_POLL_SECONDS)
        raise UserError(f"{self._failed} was not ready within {_START_SECONDS:g} s: {self._last_words()}")

    @property
    def _failed(self) -> str:
        return f"--generate-with {self._engine}: the server"

    def _last_words(self) -> str:
        """Return the end of what the server printed, on one line."""
        text = self._log.read_bytes()[-8 * _SHOWN :].decode("utf-8", "replace")
        line = " ".join("".join(map(visible, redact(text))).split())
        return line[-_SHOWN:] or "it printed nothing"


def server_arguments(engine: EngineName, files: ServedFiles, port: int) -> Iterator[str]:
    """Yield the arguments of an engine's program.

    Raises:
        UserError: the engine does not take an adapter that is not merged.
    """
    name = SERVED if files.adapter is None else _BASE
    common = ("--host", "127.0.0.1", "--port", str(port), "--served-model-name", name, "--dtype", files.dtype)
    yield "serve"
    if engine == "vllm":
        yield from (str(files.folder), *common, "--generation-config", "vllm")  # no defaults of the checkpoint's
    else:
        yield from ("--model-path", str(files.folder), *common)
    if files.trust_remote_code:
        yield "--trust-remote-code"
    if files.adapter is None:
        return
    rank = next((rank for rank in _LORA_RANKS if rank >= files.adapter_rank), None)
    if engine != "vllm" or rank is None:
        what = "an adapter that is not merged" if engine != "vllm" else f"a LoRA of rank {files.adapter_rank}"
        raise UserError(
            f"--generate-with {engine}: {what} is not served: merge it into its base "
            "(`cst-bench convert ADAPTER FOLDER`)"
        )
    yield from ("--enable-lora", "--max-lora-rank", str(rank), "--lora-modules", f"{SERVED}={files.adapter}")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
