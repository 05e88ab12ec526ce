"""Model of a run: weights that are loaded once, and only if some part needs them, or an API model."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from cst_bench.checkpoint.api import api_model
from cst_bench.checkpoint.checkpoint_files import find_checkpoint
from cst_bench.checkpoint.engine import Responder
from cst_bench.checkpoint.gate import require, run_gate
from cst_bench.checkpoint.inspection import empty_cache
from cst_bench.checkpoint.loading import dtype_hint, load_chat, load_weights, placement, think_budget
from cst_bench.checkpoint.options import (
    CheckpointOptions,
    EngineOptions,
    hub_hint,
    require_applicable,
    require_served,
    resolve,
)
from cst_bench.checkpoint.thoughts import DEFAULT_THINK_TOKENS, Thinking, as_think_tokens
from cst_bench.errors import UserError
from cst_bench.progress import Progress
from cst_bench.record import CheckpointIdentity, EnginePart

if TYPE_CHECKING:
    from inspect_ai.model import Model

    from cst_bench.checkpoint.chat import Chat
    from cst_bench.checkpoint.checkpoint_files import CheckpointFiles
    from cst_bench.checkpoint.engine_session import EngineSession
    from cst_bench.checkpoint.loading import Checkpoint
    from cst_bench.checkpoint.server_engine import ServerEngine

_ONE_THREAD = 20_000_000
"""Number of parameters below which a second CPU thread gains nothing, and loses much on a busy machine."""


class EvaluatedModel:
    """A model to evaluate. Call `pass_gate` before generating with it."""

    def __init__(self, options: CheckpointOptions, progress: Progress, engine: EngineOptions | None = None) -> None:
        """Find the checkpoint's files; load nothing yet.

        Args:
            options: Options of the checkpoint.
            progress: Receives notes and checks.
            engine: Options on a server that generates the responses, which `open_engine` connects.

        Raises:
            UserError: there is no such checkpoint, or an option does not apply to it.
        """
        self._options = options
        self._progress = progress
        self._source = resolve(options.name)
        self._engine_options = engine or EngineOptions()
        require_applicable(options, self._source)
        require_served(options, self._source, self._engine_options)
        self._files = None if self._source.kind == "inspect" else find_checkpoint(options, self._source)
        self._model: Model | None = None
        self._session: EngineSession | None = None

    @property
    def label(self) -> str:
        """Return the name in reports."""
        return self._source.label

    @property
    def identity(self) -> CheckpointIdentity:
        """Return what identifies the weights in a manifest."""
        if self._files is None:
            return CheckpointIdentity(
                label=self._source.label,
                kind="inspect",
                think_tokens=self._options.think_tokens,
                max_think_tokens=self._options.max_think_tokens,
            )
        return self._files.identity

    @property
    def on_server(self) -> bool:
        """Return whether a server generates the responses of this checkpoint."""
        return self._engine_options.on_server

    @property
    def thinking(self) -> Thinking:
        """Return how its thoughts are dealt with; a local checkpoint's provider splits them off by its template."""
        tokens = as_think_tokens(self._options.think_tokens) or DEFAULT_THINK_TOKENS
        return Thinking(tokens, (self._options.max_think_tokens or 0) if self._files is None else 0)

    @property
    def files(self) -> CheckpointFiles | None:
        """Return the checkpoint's files; None for an API model."""
        return self._files

    @cached_property
    def chat(self) -> Chat:
        """Return a checkpoint's chat; an API model has none."""
        assert self._files is not None
        return load_chat(self._files)

    def pass_gate(self) -> None:
        """Run the template gate and report its checks; an API model is only made, since its template is not visible.

        Raises:
            GateError: a check failed.
            UserError: the API model could not be made.
        """
        if self._files is None:
            self.inspect_model()
            self._progress.note(f"template gate: not run, {self.label} renders its template behind an API")
            return
        checks = run_gate(self.chat)
        self._progress.gate(self.label, checks)
        require(checks, self.label)

    @property
    def device_type(self) -> str | None:
        """Return the type of the device that the weights are loaded to; None for an API model.

        Raises:
            UserError: the device is not available.
        """
        if self._files is None:
            return None
        import torch

        return torch.device(placement(self._files.options)[0]).type

    def limit_threads(self) -> None:
        """Set PyTorch to one thread, process-wide, if this is a small model on a CPU. Changes only the speed."""
        if self._files is None or self._files.parameter_count >= _ONE_THREAD or self.device_type != "cpu":
            return
        import torch

        torch.set_num_threads(1)

    @cached_property
    def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint, loaded at first use; None for an API model."""
        if self._files is None:
            return None
        self._progress.note(f"loading {self.label}")
        if (hint := dtype_hint(self._files)) is not None:
            self._progress.note(hint)
        return load_weights(self._files, self.chat)

    def open_engine(self, prompts: Sequence[list[int]]) -> EnginePart:
        """Connect the server that generates the responses, and compare it with the checkpoint; see `check_engine`.

        Args:
            prompts: Token ids of a few prompts of the run.

        Raises:
            UserError: the server cannot be used, or has another model.
        """
        from cst_bench.checkpoint.engine_session import EngineSession, LocalWeights
        from cst_bench.checkpoint.provider import responder_model

        assert self._files is not None
        weights = LocalWeights(self._loaded, self._release)
        if (kind := self._engine_options.generate_with) is not None:
            self._progress.note(f"starting {kind} with {self.label}")
        self._session = EngineSession(self._engine_options, self._files, self.chat, weights, prompts)
        budget = think_budget(self._options, self.chat)
        self._model = responder_model(self.label, Responder(self.chat, self._session.engine, budget))
        return self._session.part

    @property
    def engine(self) -> ServerEngine | None:
        """Return the engine that asks the server; None if none is open."""
        return None if self._session is None else self._session.engine

    def close_engine(self) -> None:
        """Disconnect the server, which generates nothing more, and stop it if it was started here."""
        if self._session is not None:
            self._session.close()
            self._session = self._model = None

    def _loaded(self) -> Checkpoint:
        assert self.checkpoint is not None
        return self.checkpoint

    def _release(self) -> None:
        """Free the memory of the weights, if they are loaded; `checkpoint` loads them again."""
        loaded = self.__dict__.pop("checkpoint", None)
        if loaded is not None:
            device = loaded.device
            del loaded
            gc.collect()
            empty_cache(device)

    def inspect_model(self) -> Model:
        """Return the Inspect model that generates with it. One on a server is opened before (`open_engine`).

        Raises:
            UserError: the API model could not be made, since a key or a package is missing.
        """
        if self._model is None:
            assert not self.on_server, "open_engine comes first"
            if self.checkpoint is not None:
                from cst_bench.checkpoint.provider import inspect_model

                self._model = inspect_model(self.checkpoint)
            else:
                self._model = self._api_model()
        return self._model

    @property
    def decoding_fallback(self) -> str | None:
        """Return how responses had to be decoded if not in one running batch, and why; None if not in process."""
        if self.on_server or self.checkpoint is None:
            return None
        return self.checkpoint.modes.fallback

    def _api_model(self) -> Model:
        name = self._source.name
        try:
            return api_model(name)
        except UserError as error:
            raise UserError(f"{error}{hub_hint(name)}") from None

    def close(self) -> None:
        """Stop the generation thread or the server, if there is one."""
        self.close_engine()
        if self._model is not None and self._files is not None:
            self._model.api.close()
