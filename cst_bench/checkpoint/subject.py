"""The checkpoint of a run: weights that we load (once, and only if some part needs them), or an API model."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from cst_bench.checkpoint import CheckpointOptions, find_checkpoint, load_chat, load_weights, resolve
from cst_bench.checkpoint.api import api_model
from cst_bench.checkpoint.gate import require, run_gate
from cst_bench.errors import UserError
from cst_bench.progress import Progress

if TYPE_CHECKING:
    from inspect_ai.model import Model

    from cst_bench.checkpoint import Checkpoint
    from cst_bench.checkpoint.chat import Chat

_SMALL = 20_000_000
"""Below so many parameters a second thread gains nothing on a CPU, and loses much when the machine is busy."""


class Subject:
    """What is evaluated. The template gate has passed before anything can be generated with it."""

    def __init__(self, options: CheckpointOptions, progress: Progress) -> None:
        """Finds the checkpoint's files; loads nothing yet.

        Raises:
            UserError: there is no such checkpoint.
        """
        self._options = options
        self._progress = progress
        self._source = resolve(options.name)
        self._files = None if self._source.kind == "inspect" else find_checkpoint(options, self._source)
        self._model: Model | None = None

    @property
    def label(self) -> str:
        """What reports call it."""
        return self._source.label

    @property
    def identity(self) -> dict[str, Any]:
        """What names it in the manifest."""
        if self._files is None:
            return {"label": self._source.label, "kind": "inspect", "revision": None, "weights_sha256": None}
        return self._files.identity

    @cached_property
    def _chat(self) -> Chat:
        assert self._files is not None
        return load_chat(self._files)

    def pass_gate(self) -> None:
        """Runs the template gate and reports what it found; an API renders its own template out of our sight.

        Raises:
            GateError: a check failed.
            UserError: the API model can't be made.
        """
        if self._files is None:
            self.inspect_model()
            self._progress.note(f"template gate: not run, {self.label} renders its template behind an API")
            return
        checks = run_gate(self._chat)
        self._progress.gate(self.label, checks)
        require(checks, self.label)

    @cached_property
    def checkpoint(self) -> Checkpoint | None:
        """The loaded weights; None for an API model."""
        if self._files is None:
            return None
        self._progress.note(f"loading {self.label}")
        checkpoint = load_weights(self._files, self._chat)
        if checkpoint.device.type == "cpu" and checkpoint.model.num_parameters() < _SMALL:
            import torch

            torch.set_num_threads(1)
        return checkpoint

    def inspect_model(self) -> Model:
        """The same, as Inspect generates with it.

        Raises:
            UserError: the API model can't be made, for want of a key or a package.
        """
        if self._model is None:
            if self.checkpoint is not None:
                from cst_bench.checkpoint.provider import inspect_model

                self._model = inspect_model(self.checkpoint)
            else:
                self._model = self._api_model()
        return self._model

    def _api_model(self) -> Model:
        name = self._source.name
        try:
            return api_model(name)
        except UserError as error:
            hint = "" if name.count("/") != 1 else f"; for the hub checkpoint of that name say hf/{name}"
            raise UserError(f"{error}{hint}") from None

    def close(self) -> None:
        """Ends the generation thread, if there is one."""
        if self._model is not None and self._files is not None:
            self._model.api.close()
