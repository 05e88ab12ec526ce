"""A server that generates a checkpoint's responses: found or started, compared with the checkpoint, and closed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cst_bench.checkpoint.chat import Chat
from cst_bench.checkpoint.checkpoint_files import CheckpointFiles, read_json
from cst_bench.checkpoint.completions import CompletionsClient
from cst_bench.checkpoint.conversion import save_whole
from cst_bench.checkpoint.engine import GeneratedTokens
from cst_bench.checkpoint.engine_check import TOKENS, check_engine, reference_responses
from cst_bench.checkpoint.inspection import context_length
from cst_bench.checkpoint.loading import Checkpoint, load_config, placement
from cst_bench.checkpoint.local_server import SERVED, LocalServer, ServedFiles, find_engine
from cst_bench.checkpoint.options import EngineName, EngineOptions
from cst_bench.checkpoint.server_engine import ServerEngine
from cst_bench.errors import UserError
from cst_bench.record import EnginePart


def require_startable(engine: EngineName, files: CheckpointFiles) -> None:
    """Check what would stop a server from starting, before any weights are loaded.

    Raises:
        UserError: the engine is not installed, or does not read the files as they are read in process.
    """
    find_engine(engine)
    if files.gguf is not None:
        raise UserError(
            f"--generate-with {engine}: a GGUF file is not served as it is read in process: write it as safetensors "
            f"first (`cst-bench convert {files.path} FOLDER`)"
        )


@dataclass(frozen=True)
class LocalWeights:
    """Access to the checkpoint's weights in this process."""

    load: Callable[[], Checkpoint]
    """Load them, unless they are loaded."""
    release: Callable[[], None]
    """Free their memory; they may be loaded again."""


class EngineSession:
    """A server in use. `close` disconnects it, and stops it if it was started here."""

    def __init__(
        self,
        options: EngineOptions,
        files: CheckpointFiles,
        chat: Chat,
        weights: LocalWeights,
        prompts: Sequence[list[int]],
    ) -> None:
        """Find or start the server, and compare its responses to `prompts` (token ids) with those in process.

        Where it is started here, the weights in this process are freed before.

        Raises:
            UserError: the server cannot be used or started, or has another model.
        """
        self._options = options
        self._files = files
        self._length = context_length(load_config(files), chat.tokenizer)
        self._server: LocalServer | None = None
        self._merged: TemporaryDirectory[str] | None = None
        self._engine: ServerEngine | None = None
        prompts = [prompt for prompt in prompts if len(prompt) + TOKENS <= self._length]
        if not prompts:
            raise UserError(
                f"none of the prompts that were looked at leaves room for {TOKENS} tokens in the {self._length} of "
                f"{files.label}, so that no server can be compared with it"
            )
        try:
            if options.generate_with is not None:
                require_startable(options.generate_with, files)
                references = self._references(weights, prompts)
                self._server = LocalServer(options.generate_with, self._served_files(weights), options.generate_args)
                client = CompletionsClient(self._server.url, "--generate-with", self._server.key)
                self._engine, name = self._connect(client, chat, SERVED)
            else:
                client = CompletionsClient(options.generate_url or "", "--generate-url")
                self._engine, name = self._connect(client, chat, options.generate_model)
                references = self._references(weights, prompts)
            check = check_engine(self._engine, prompts, references)
        except BaseException:
            self.close()
            raise
        shorter = self._engine.context_length if self._engine.context_length < self._length else None
        self.part = EnginePart(model=name, context_length=shorter, check=check)

    @property
    def engine(self) -> ServerEngine:
        """Return the engine that asks the server."""
        assert self._engine is not None
        return self._engine

    def close(self) -> None:
        """Disconnect and stop the server."""
        if self._engine is not None:
            self._engine.close()
        if self._server is not None:
            self._server.stop()
        if self._merged is not None:
            self._merged.cleanup()

    def _connect(self, client: CompletionsClient, chat: Chat, name: str | None) -> tuple[ServerEngine, str]:
        engine = ServerEngine(client, chat, self._length, self._files.options.batch_size)
        try:
            return engine, engine.connect(name).name
        except BaseException:
            engine.close()
            raise

    def _references(self, weights: LocalWeights, prompts: Sequence[list[int]]) -> list[GeneratedTokens] | None:
        return reference_responses(weights.load(), prompts) if self._options.generate_check else None

    def _served_files(self, weights: LocalWeights) -> ServedFiles:
        """Return what a server is started with; an adapter is merged as it is in process, or stays apart as there."""
        files = self._files
        _, dtype = placement(files.options)
        own = load_config(files).dtype or "auto"
        name = str(own if dtype == "auto" else dtype).removeprefix("torch.")
        adapter, folder = files.adapter, files.folder
        if files.identity.merged is not None:
            self._merged = TemporaryDirectory(prefix="cst-bench-merged-")
            folder, adapter = Path(self._merged.name), None
            save_whole(weights.load(), folder)
        weights.release()
        rank = 0 if adapter is None else int(read_json(adapter / "adapter_config.json").get("r") or 0)
        return ServedFiles(folder, name, adapter, rank, files.options.trust_remote_code)
