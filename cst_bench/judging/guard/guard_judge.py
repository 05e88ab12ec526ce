"""Judges of kind `guard`: a local checkpoint made to tell safe responses from unsafe ones, asked for verdicts only.

A guard doesn't write: the verdicts of the judge file are scored, and the behaviour with the highest probability is the
verdict (several verdicts may stand for one behaviour, whose probabilities then add up). Prompts and responses are
data: they can't become control tokens, and their ends are stripped.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cst_bench.checkpoint import CheckpointFiles, CheckpointOptions, find_checkpoint
from cst_bench.content import Content
from cst_bench.errors import UserError
from cst_bench.files import digest
from cst_bench.judging.guard.guard_inputs import (
    Layout,
    Reader,
    chat_layout,
    cleaner,
    names_in,
    template_layout,
)
from cst_bench.judging.guard.output_text import Encoded, ForgedTokensError, is_marker
from cst_bench.judging.judge import EMPTY, NEITHER, Case, JudgeOptions, Spent, Verdict

TOO_LONG = "too long for the guard"
FORGED = "text that the guard takes for control tokens"
NOT_FINITE = "the guard gave no finite likelihood"

_ROWS = {"cpu": 16, "cuda": 64}
"""Rows of a batch when the file doesn't say, and memory allows."""
_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Tokens of a batch; more gains nothing."""
_MEMORY_SHARE = 0.3
"""Share of the free memory that a batch may take."""


class GuardFile(Content):
    """A judge file of kind `guard`."""

    name: str
    version: Annotated[int, Field(ge=1)]
    kind: Literal["guard"]
    description: str
    behaviours: list[str] = Field(min_length=1)
    model: str | None = None
    """Hub id, folder (may be relative to the file) or, for `causal-lm`, adapter. `--judge-model` gives another."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    architecture: Literal["causal-lm", "sequence-classification"]
    input: Literal["chat", "template", "response", "pair"]
    """`chat` (the checkpoint's chat template) or `template` for a causal LM; `response` or `pair` (prompt and response)
    for a classifier."""
    template: str | None = None
    """A file beside this one; `{prompt}`, `{response}` and `{field}` are filled in. Its last line end is left out."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Variables of the chat template's own."""
    prefix: str = ""
    """Text that a causal LM is taken to have written before the verdict."""
    verdicts: dict[str, str]
    """Text that the causal LM may go on with, or label of the classifier, to the behaviour that it stands for."""
    markers: list[str] = Field(default_factory=list)
    """Texts of the template that are ordinary tokens; spelled in a prompt or response they are broken up by a space."""
    too_long: Literal["unscored", "shorten"] = "unscored"
    """What becomes of a response that doesn't fit: `shorten` leaves its middle out, and the verdict says so."""
    dtype: str = "auto"
    load_in_4bit: bool = False
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Rows at a time; found by memory if not given."""
    changelog: dict[int, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> GuardFile:
        causal = self.architecture == "causal-lm"
        if (self.input in ("chat", "template")) != causal:
            raise ValueError(f"input: {self.input} is not for architecture: {self.architecture}")
        if (self.template is not None) != (self.input == "template"):
            raise ValueError("template is the file that input: template needs, and nothing else")
        if not causal and (self.prefix or self.markers or self.load_in_4bit):
            raise ValueError("prefix, markers and load_in_4bit are for architecture: causal-lm")
        if self.arguments and self.input != "chat":
            raise ValueError("arguments are for input: chat")
        if len(self.verdicts) < 2 or not all(self.verdicts):
            raise ValueError("verdicts must be two texts or more, none of them empty")
        if set(self.verdicts.values()) - {NEITHER} != set(self.behaviours) or NEITHER in self.behaviours:
            raise ValueError(f"verdicts must lead to each of {self.behaviours}, and else to {NEITHER} only")
        for marker in self.markers:
            if not is_marker(marker):
                raise ValueError(f"marker {marker!r} must have two characters or more, and no space")
        return self


class GuardJudge:
    """A judge that scores its verdicts with a local checkpoint, loaded when it is first asked."""

    kind = "guard"

    def __init__(self, file: GuardFile, files: CheckpointFiles, template: str | None) -> None:
        """From the content of a judge file, the files of its checkpoint, and its template's text."""
        self.name = file.name
        self.version = file.version
        self.behaviours = tuple(file.behaviours)
        self._layout = None if template is None else template_layout(template)
        self.fields = frozenset() if self._layout is None else names_in(self._layout) - {"prompt", "response"}
        checkpoint = {key: files.identity[key] for key in _WEIGHTS}
        self.identity = digest(
            {
                "file": file.model_dump(mode="json", exclude={"model", "revision", "batch_size"}),
                "template": template,
                "checkpoint": checkpoint,
            }
        )
        self._file = file
        self._files = files
        self.details: Mapping[str, Any] = {
            "model": files.label,
            "revision": files.identity["revision"],
            **checkpoint,
            "too_long": file.too_long,
        }
        self._clean = cleaner(file.markers)
        self._reader: Reader | None = None
        self._working = threading.Lock()

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        """The verdicts on some responses; those that are empty, too long or forge control tokens are unscored.

        The verdict on a response that was shortened has a reason, too: how much of it was left out.

        Raises:
            UserError: the checkpoint can't be loaded, or isn't of the kind that the file says.
        """
        reader = await asyncio.to_thread(self._loaded)
        prepared = await asyncio.to_thread(lambda: [self._prepare(reader, case) for case in cases])
        verdicts: dict[int, Verdict] = {}
        waiting: dict[int, Encoded] = {}
        notes: dict[int, str] = {}
        for index, one in enumerate(prepared):
            if isinstance(one, Verdict):
                verdicts[index] = one
            else:
                waiting[index] = one
                if one.left_out:
                    notes[index] = f"read without {one.left_out} tokens of its middle"
        count(len(verdicts))
        for batch in self._batches(reader, waiting):
            found = await asyncio.to_thread(self._scored, reader, [waiting[index] for index in batch])
            verdicts.update(zip(batch, found))
            count(len(batch))
        return [
            replace(verdicts[index], reason=notes.get(index, verdicts[index].reason)) for index in range(len(cases))
        ]

    def _loaded(self) -> Reader:
        with self._working:
            if self._reader is None:
                self._reader = self._load()
            return self._reader

    def _load(self) -> Reader:
        verdicts = list(self._file.verdicts)
        if self._file.architecture == "sequence-classification":
            from cst_bench.checkpoint.classification import load_classifier
            from cst_bench.judging.guard.sequence_classifier import ClassifierGuard

            return ClassifierGuard(load_classifier(self._files), self._file.input == "pair", verdicts)
        from cst_bench.checkpoint import load_chat, load_weights
        from cst_bench.judging.guard.causal_scoring import CausalGuard

        chat = load_chat(self._files)
        layout: Layout = self._layout or chat_layout(chat.tokenizer, self._file.arguments)
        return CausalGuard(load_weights(self._files, chat), layout, self._file.prefix, verdicts)

    def _prepare(self, reader: Reader, case: Case) -> Encoded | Verdict:
        missing = sorted(self.fields - set(case.fields))
        if missing:
            raise UserError(f"judge {self.name} needs the field {missing[0]!r}, which the row doesn't have")
        texts = {name: self._clean(text) for name, text in case.fields.items()}
        texts |= {"prompt": self._clean(case.prompt), "response": self._clean(case.response)}
        if not texts["response"]:
            return Verdict(None, EMPTY)
        try:
            encoded = reader.encode(texts)
            if reader.fits(encoded):
                return encoded
            short = reader.shortened(texts) if self._file.too_long == "shorten" else None
        except ForgedTokensError:
            return Verdict(None, FORGED)
        return short or Verdict(None, TOO_LONG)

    def _batches(self, reader: Reader, inputs: Mapping[int, Encoded]) -> Iterator[list[int]]:
        """The indices of inputs that are read together, the longest first: what doesn't fit shows at once."""
        device = reader.model.device.type
        rows = max(1, (self._file.batch_size or _ROWS.get(device, 64)) // reader.rows_each)
        given = self._file.batch_size is not None
        tokens = 2**62 if given else min(_TOKENS.get(device, 4096), _tokens_that_fit(reader.model))
        order = sorted(inputs, key=lambda index: -len(inputs[index].ids))
        while order:
            width = len(inputs[order[0]].ids) * reader.rows_each
            size = max(1, min(rows, tokens // width))
            yield order[:size]
            order = order[size:]

    def _scored(self, reader: Reader, batch: Sequence[Encoded]) -> list[Verdict]:
        from cst_bench.checkpoint.loading import out_of_memory

        try:
            with self._working:
                found = reader.likelihoods(batch)
        except RuntimeError as error:
            if not out_of_memory(error) or len(batch) == 1:
                raise
            found = None
        if found is None:  # outside of `except`, which holds on to the tensors
            middle = len(batch) // 2
            return self._scored(reader, batch[:middle]) + self._scored(reader, batch[middle:])
        return [self._verdict(scores, len(one.ids) * reader.rows_each) for scores, one in zip(found, batch)]

    def _verdict(self, scores: Mapping[str, Sequence[float]], tokens: int) -> Verdict:
        probabilities = behaviour_probabilities(self._file.verdicts, scores)
        spent = Spent(input_tokens=tokens, cost=0.0)
        if probabilities is None:
            return Verdict(None, NOT_FINITE, spent=spent)
        return Verdict(max(probabilities, key=lambda name: probabilities[name]), None, probabilities, spent)


SCHEMA = GuardFile
_WEIGHTS = ("kind", "architecture", "weights_sha256", "adapter_sha256", "settings_sha256", "quantization")
"""What of a checkpoint's identity decides a verdict: not where it lies."""


def make(file: GuardFile, path: Path, options: JudgeOptions) -> GuardJudge:
    """The judge of a file. Finds the checkpoint (a hub id is fetched) and hashes it, and loads nothing yet.

    Raises:
        UserError: there is no such checkpoint or template, or an endpoint is given.
    """
    if options.base_url is not None:
        raise UserError(f"judge {file.name} is a guard, a checkpoint that is loaded here: it has no endpoint to ask")
    name = options.model or file.model
    if name is None:
        raise UserError(f"judge {file.name} names no checkpoint: give one with --judge-model")
    if options.model is None and (path.parent / name).is_dir():
        name = str(path.parent / name)
    files = find_checkpoint(
        CheckpointOptions(
            name,
            revision=file.revision if options.model is None else None,
            dtype=file.dtype,
            load_in_4bit=file.load_in_4bit,
        )
    )
    return GuardJudge(file, files, None if file.template is None else _read_template(path.parent / file.template))


def _read_template(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the guard's template can't be read: {error}") from None
    if "response" not in names_in(template_layout(text)):
        raise UserError(f"{path}: the guard's template must have a place for the {{response}}")
    return text


def behaviour_probabilities(
    verdicts: Mapping[str, str], scores: Mapping[str, Sequence[float]]
) -> dict[str, float] | None:
    """The probability of each behaviour, given that one of the verdicts is said; None if that can't be told.

    Args:
        verdicts: The behaviour that each stands for.
        scores: The log-likelihoods of what spells each.
    """
    flat = [score for found in scores.values() for score in found]
    most = max(flat)
    if math.isnan(sum(flat)) or math.isinf(most):
        return None
    shares = dict.fromkeys(verdicts.values(), 0.0)
    for verdict, found in scores.items():
        shares[verdicts[verdict]] += sum(math.exp(score - most) for score in found)
    total = sum(shares.values())
    return {behaviour: share / total for behaviour, share in shares.items()}


def _tokens_that_fit(model: Any) -> int:
    """Tokens of a batch for whose activations there is memory, by the widths that the config names."""
    import psutil
    import torch

    config = model.config.get_text_config()
    hidden = getattr(config, "hidden_size", 4096)
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    free = (
        torch.cuda.mem_get_info(model.device)[0] if model.device.type == "cuda" else psutil.virtual_memory().available
    )
    each = model.dtype.itemsize * (12 * hidden + 4 * inner) + 4 * config.vocab_size // 8
    return max(1, int(free * _MEMORY_SHARE / each))
