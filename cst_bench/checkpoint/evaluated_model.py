"""Model of a run: weights that are loaded once, and only if some part needs them, or an API model."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from cst_bench.checkpoint.api import api_model
from cst_bench.checkpoint.checkpoint_files import find_checkpoint
from cst_bench.checkpoint.gate import require, run_gate
from cst_bench.checkpoint.loading import dtype_hint, load_chat, load_weights, placement
from cst_bench.checkpoint.options import CheckpointOptions, hub_hint, require_applicable, resolve
from cst_bench.checkpoint.thoughts import DEFAULT_THINK_TOKENS, Thinking, as_think_tokens
from cst_bench.errors import UserError
from cst_bench.progress import Progress
from cst_bench.record import CheckpointIdentity

if TYPE_CHECKING:
    from inspect_ai.model import Model

    from cst_bench.checkpoint.chat import Chat
    from cst_bench.checkpoint.checkpoint_files import CheckpointFiles
    from cst_bench.checkpoint.loading import Checkpoint

_ONE_THREAD = 20_000_000
"""Number of parameters below which a second CPU thread gains nothing, and loses much on a busy machine."""


class EvaluatedModel:
    """A model to evaluate. Call `pass_gate` before generating with it."""

    def __init__(self, options: CheckpointOptions, progress: Progress) -> None:
        """Find the checkpoint's files; load nothing yet.

        Raises:
            UserError: there is no such checkpoint, or an option does not apply to it.
        """
        self._options = options
        self._progress = progress
        self._source = resolve(options.name)
        require_applicable(options, self._source)
        self._files = None if self._source.kind == "inspect" else find_checkpoint(options, self._source)
        self._model: Model | None = None

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

    def inspect_model(self) -> Model:
        """Return the Inspect model that generates with it.

        Raises:
            UserError: the API model could not be made, since a key or a package is missing.
        """
        if self._model is None:
            if self.checkpoint is not None:
                from cst_bench.checkpoint.provider import inspect_model

                self._model = inspect_model(self.checkpoint)
            else:
                self._model = self._api_model()
        return self._model

    @property
    def decoding_fallback(self) -> str | None:
        """Return how responses had to be decoded so far if not in one running batch, and why; None for an API model."""
        return None if self._files is None or self.checkpoint is None else self.checkpoint.modes.fallback

    def _api_model(self) -> Model:
        name = self._source.name
        try:
            return api_model(name)
        except UserError as error:
            raise UserError(f"{error}{hub_hint(name)}") from None

    def close(self) -> None:
        """Stop the generation thread, if there is one."""
        if self._model is not None and self._files is not None:
            self._model.api.close()
