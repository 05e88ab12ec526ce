"""Judges of kind `guard`: a local checkpoint, trained to distinguish safe from unsafe responses, scores verdicts.

A guard doesn't generate: the verdicts of the judge file are scored, and the behaviour with the highest probability is
the judge's verdict (the probabilities of verdicts that map to one behaviour are added). Prompts and responses are data:
they cannot become control tokens, and they are stripped.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from cst_bench.checkpoint import CheckpointFiles, CheckpointOptions, find_checkpoint
from cst_bench.checkpoint.data_tokenizer import ForgedTokensError, is_marker
from cst_bench.errors import UserError
from cst_bench.files import digest
from cst_bench.judging.guard.guard_inputs import (
    GuardInput,
    GuardModel,
    InputLayout,
    chat_layout,
    layout_names,
    make_cleaner,
    template_layout,
)
from cst_bench.judging.judge import NEITHER, RESERVED, Case, JudgeCall, JudgeFile, JudgeOptions, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOO_LONG = "too long for the guard"
FORGED = "text that the guard takes for control tokens"
NOT_FINITE = "the guard gave no finite likelihood"

_ROWS = {"cpu": 16, "cuda": 64}
"""Rows of a batch unless the file sets them or memory is short, by device."""
_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Tokens of a batch, by device; more would not be faster."""
_MEMORY_SHARE = 0.3
"""Share of the free memory that a batch may take."""


class GuardFile(JudgeFile):
    """Judge file of kind `guard`."""

    kind: Literal["guard"]
    """A checkpoint that was trained to classify responses."""
    behaviours: list[str] = Field(min_length=1)
    """Behaviours that the verdict texts stand for."""
    model: str | None = None
    """Hub id, folder (may be relative to the file) or, for `causal-lm`, adapter. `--judge-model` overrides it."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    architecture: Literal["causal-lm", "sequence-classification"]
    """Causal language model, or sequence classifier."""
    input: Literal["chat", "template", "response", "pair"]
    """`chat` (the checkpoint's chat template) or `template` for a causal LM; `response` or `pair` (prompt and response)
    for a classifier."""
    template: str | None = None
    """File beside this one, with `{prompt}`, `{response}` and `{field}` to fill in; its last line end is dropped."""
    arguments: dict[str, object] = Field(default_factory=dict)
    """Variables for the chat template."""
    prefix: str = ""
    """Text that a causal LM is assumed to have written before the verdict."""
    verdicts: dict[str, str]
    """Text that the causal LM may continue with, or label of the classifier → the behaviour that it means."""
    markers: list[str] = Field(default_factory=list)
    """Texts of the template that are ordinary tokens; in a prompt or response they are broken up by a space."""
    too_long: Literal["unscored", "shorten"] = "unscored"
    """Treatment of a response that doesn't fit: `shorten` omits its middle, and the verdict's reason says so."""
    dtype: str = "auto"
    """Data type of the weights, as for `--dtype`."""
    load_in_4bit: bool = False
    """Quantize the weights to 4-bit NF4."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Rows at a time; chosen by free memory if None."""

    @model_validator(mode="after")
    def _fits_together(self) -> GuardFile:
        causal = self.architecture == "causal-lm"
        if (self.input in ("chat", "template")) != causal:
            raise ValueError(f"input: {self.input} is not for architecture: {self.architecture}")
        if (self.template is not None) != (self.input == "template"):
            raise ValueError("template is the file that input: template needs, and no other input takes")
        if not causal and (self.prefix or self.markers or self.load_in_4bit):
            raise ValueError("prefix, markers and load_in_4bit are for architecture: causal-lm")
        if self.arguments and self.input != "chat":
            raise ValueError("arguments are for input: chat")
        if len(self.verdicts) < 2 or not all(self.verdicts):
            raise ValueError("verdicts must be two or more texts, none of them empty")
        if set(self.verdicts.values()) - set(RESERVED) != set(self.behaviours):
            raise ValueError(f"verdicts must map to each of {self.behaviours}, and otherwise only to {NEITHER}")
        for marker in self.markers:
            if not is_marker(marker):
                raise ValueError(f"marker {marker!r} must have two or more characters, and no space")
        return self


class GuardJudge:
    """Judge that scores its verdicts with a local checkpoint, which is loaded on first use."""

    kind = "guard"

    def __init__(self, file: GuardFile, files: CheckpointFiles, template: str | None) -> None:
        """Create the judge from the content of its file, its checkpoint's files, and its template's text."""
        self.name = file.name
        self.version = file.version
        self.behaviours = tuple(file.behaviours)
        self._layout = None if template is None else template_layout(template)
        self.fields = frozenset() if self._layout is None else layout_names(self._layout) - {"prompt", "response"}
        self.reserved = file.reserved(file.verdicts.values())
        checkpoint = files.identity.model_dump(mode="json", include=set(_WEIGHTS))
        self.identity = digest(
            {
                "file": file.deciding(("model", "revision", "batch_size")),
                "template": template,
                "checkpoint": checkpoint,
            }
        )
        self._file = file
        self._files = files
        self.details: Mapping[str, JsonValue] = {
            "model": files.label,
            "revision": files.identity.revision,
            **checkpoint,
            "too_long": file.too_long,
        }
        self._clean = make_cleaner(file.markers)
        self._guard: GuardModel | None = None
        self._lock = threading.Lock()

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        """Return the verdicts on responses; one that is too long or forges control tokens is unscored.

        The verdict on a response that was shortened has a reason, too: how much of it was left out.

        Raises:
            UserError: the checkpoint could not be loaded, or is not of the architecture that the file names.
        """
        guard = await asyncio.to_thread(self._loaded)
        prepared = await asyncio.to_thread(lambda: [self._prepare(guard, case) for case in cases])
        verdicts = {index: verdict for index, verdict in enumerate(prepared) if isinstance(verdict, Verdict)}
        waiting = {index: encoded for index, encoded in enumerate(prepared) if isinstance(encoded, GuardInput)}
        count(len(verdicts))
        for batch in self._batches(guard, waiting):
            scored = await asyncio.to_thread(self._score, guard, [waiting[index] for index in batch])
            verdicts.update(zip(batch, scored))
            count(len(batch))
        for index, encoded in waiting.items():
            if encoded.left_out:
                note = f"read without {encoded.left_out} tokens of its middle"
                verdicts[index] = replace(verdicts[index], reason=note)
        return [verdicts[index] for index in range(len(cases))]

    def _loaded(self) -> GuardModel:
        with self._lock:
            if self._guard is None:
                self._guard = self._load()
            return self._guard

    def _load(self) -> GuardModel:
        verdicts = list(self._file.verdicts)
        if self._file.architecture == "sequence-classification":
            from cst_bench.checkpoint.classifier_loading import load_classifier
            from cst_bench.judging.guard.sequence_classifier import ClassifierGuard

            return ClassifierGuard(load_classifier(self._files), self._file.input == "pair", verdicts)
        from cst_bench.checkpoint import load_chat, load_weights
        from cst_bench.judging.guard.causal_scoring import CausalGuard

        chat = load_chat(self._files)
        layout: InputLayout = self._layout or chat_layout(chat.tokenizer, self._file.arguments)
        return CausalGuard(load_weights(self._files, chat), layout, self._file.prefix, verdicts)

    def _prepare(self, guard: GuardModel, case: Case) -> GuardInput | Verdict:
        missing = sorted(self.fields - set(case.fields))
        if missing:
            raise UserError(f"judge {self.name} needs the field {missing[0]!r}, which the row doesn't have")
        texts = {name: self._clean(text) for name, text in case.fields.items()}
        texts |= {"prompt": self._clean(case.prompt), "response": self._clean(case.response)}
        try:
            encoded = guard.encode(texts)
            if guard.fits(encoded):
                return encoded
            short = guard.shortened(texts) if self._file.too_long == "shorten" else None
        except ForgedTokensError:
            return Verdict(None, FORGED)
        return short or Verdict(None, TOO_LONG)

    def _batches(self, guard: GuardModel, inputs: Mapping[int, GuardInput]) -> Iterator[list[int]]:
        """Yield the indices of inputs to score together, the longest first: if memory is short, it shows at once."""
        device = guard.model.device.type
        rows = max(1, (self._file.batch_size or _ROWS.get(device, 64)) // guard.rows_each)
        if self._file.batch_size is not None:
            tokens = 2**62
        else:
            tokens = min(_TOKENS.get(device, 4096), _tokens_that_fit(guard.model))
        order = sorted(inputs, key=lambda index: -len(inputs[index].ids))
        while order:
            width = len(inputs[order[0]].ids) * guard.rows_each
            size = max(1, min(rows, tokens // width))
            yield order[:size]
            order = order[size:]

    def _score(self, guard: GuardModel, batch: Sequence[GuardInput]) -> list[Verdict]:
        """Return the verdicts on a batch, halving it when memory runs out."""
        from cst_bench.checkpoint.inspection import out_of_memory

        try:
            with self._lock:
                likelihoods = guard.likelihoods(batch)
        except RuntimeError as error:
            if not out_of_memory(error) or len(batch) == 1:
                raise
            likelihoods = None
        if likelihoods is None:  # outside of `except`, which holds on to the tensors
            middle = len(batch) // 2
            return self._score(guard, batch[:middle]) + self._score(guard, batch[middle:])
        return [
            self._verdict(scores, len(encoded.ids) * guard.rows_each)
            for scores, encoded in zip(likelihoods, batch, strict=True)
        ]

    def _verdict(self, scores: Mapping[str, Sequence[float]], tokens: int) -> Verdict:
        probabilities = behaviour_probabilities(self._file.verdicts, scores)
        call = JudgeCall(input_tokens=tokens, cost_usd=0.0)
        if probabilities is None:
            return Verdict(None, NOT_FINITE, call=call)
        return Verdict(max(probabilities, key=lambda name: probabilities[name]), None, probabilities, call)


FILE_MODEL = GuardFile
_WEIGHTS = ("kind", "architecture", "weights_sha256", "adapter_sha256", "settings_sha256", "quantization")
"""Parts of a checkpoint's identity that decide a verdict; its location doesn't."""


def make(file: GuardFile, path: Path, options: JudgeOptions) -> GuardJudge:
    """Return the judge that a file defines. Its checkpoint is fetched if need be and hashed, but not loaded.

    Raises:
        UserError: there is no such checkpoint or template, or the options name an endpoint.
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
        raise UserError(f"{path}: the guard's template could not be read: {error}") from None
    if "response" not in layout_names(template_layout(text)):
        raise UserError(f"{path}: the guard's template must have a place for the {{response}}")
    return text


def behaviour_probabilities(
    verdicts: Mapping[str, str], scores: Mapping[str, Sequence[float]]
) -> dict[str, float] | None:
    """Return the probability of each behaviour, given that one of the verdicts is written; None if undefined.

    Args:
        verdicts: Verdict → behaviour.
        scores: Verdict → log-likelihoods of the token sequences that spell it.
    """
    flat = [score for spellings in scores.values() for score in spellings]
    highest = max(flat)
    if math.isnan(sum(flat)) or math.isinf(highest):
        return None
    shares = dict.fromkeys(verdicts.values(), 0.0)
    for verdict, spellings in scores.items():
        shares[verdicts[verdict]] += sum(math.exp(score - highest) for score in spellings)
    total = sum(shares.values())
    return {behaviour: share / total for behaviour, share in shares.items()}


def _tokens_that_fit(model: PreTrainedModel) -> int:
    """Return the number of tokens whose activations fit into free memory, estimated from the config's widths."""
    from cst_bench.checkpoint.inspection import activation_bytes, free_memory

    each = activation_bytes(model) + 4 * model.config.get_text_config().vocab_size // 8
    return max(1, int(free_memory(model.device) * _MEMORY_SHARE / each))
