"""A cross-encoder of prompt and response with hand-made cues beside it: inference, and the form it is stored in.

The encoder is a BERT (Devlin et al. 2019, arXiv 1810.04805) that reads the prompt, the opening of the response and its
ending in one sequence. One linear layer reads the mean of its last hidden states and the cues of
`cst_bench.judging.trained.features`. Matrices are stored in 8 bits with a scale for each row.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import BertConfig, BertModel

from cst_bench.judging.judge import Case
from cst_bench.judging.trained.features import extract_features

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
SCALE = ".scale"
"""End of the name of the row scales of a matrix that is stored in 8 bits."""
CHARACTERS = (8000, 3000)
"""Characters of a response that are tokenized, from its beginning and from its end."""
_BATCH = 32

Segments = tuple[list[int], list[int]]
"""Token ids of the prompt's segment and of the response's."""


@dataclass(frozen=True)
class View:
    """Numbers of tokens that the encoder reads."""

    prompt: int
    """First tokens of the prompt."""
    opening: int
    """First tokens of the response."""
    ending: int
    """Last tokens of the response."""

    def segments(self, prompt: list[int], response: list[int], start: int, separator: int) -> Segments:
        """Return both segments with the special tokens `start` and `separator`."""
        if len(response) > self.opening + self.ending + 1:
            response = [*response[: self.opening], separator, *response[-self.ending :]]
        return [start, *prompt[: self.prompt], separator], [*response, separator]


def tokenize(tokenizer: Tokenizer, view: View, cases: Sequence[Case]) -> list[Segments]:
    """Return the segments of each case."""
    vocabulary = tokenizer.get_vocab()
    start, separator = vocabulary["[CLS]"], vocabulary["[SEP]"]
    first, last = CHARACTERS
    texts = [case.response for case in cases]
    texts = [text if len(text) <= first + last else f"{text[:first]} {text[-last:]}" for text in texts]
    prompts = tokenizer.encode_batch([case.prompt for case in cases], add_special_tokens=False)
    responses = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [view.segments(a.ids, b.ids, start, separator) for a, b in zip(prompts, responses, strict=True)]


def collate(items: Sequence[Segments]) -> dict[str, Tensor]:
    """Return the encoder's inputs, padded to the longest, each of shape (items, tokens)."""
    length = max(len(first) + len(second) for first, second in items)
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = {name: torch.zeros(len(items), length, dtype=torch.long) for name in names}
    for row, (first, second) in enumerate(items):
        size = len(first) + len(second)
        inputs["input_ids"][row, :size] = torch.tensor([*first, *second])
        inputs["attention_mask"][row, :size] = 1
        inputs["token_type_ids"][row, len(first) : size] = 1
    return inputs


def mean_state(encoder: BertModel, inputs: dict[str, Tensor]) -> Tensor:
    """Return the mean of the last hidden states of each row's tokens, shape (rows, hidden size)."""
    states: Tensor = encoder(**inputs).last_hidden_state.float()
    mask = inputs["attention_mask"].unsqueeze(-1).float()
    return (states * mask).sum(1) / mask.sum(1)


class TextEncoder:
    """Encoder with mean pooling, and one linear layer over the pooled vector and the cues."""

    def __init__(self, encoder: BertModel, head: Tensor, bias: float, tokenizer: Tokenizer, view: View) -> None:
        """Create the model.

        Args:
            encoder: Encoder of prompt and response.
            head: Weights, shape (hidden size + number of cues,).
            bias: Bias of the linear layer.
            tokenizer: Tokenizer of the encoder.
            view: What the encoder reads of prompt and response.
        """
        self.encoder, self.head, self.bias = encoder.eval(), head, bias
        self.tokenizer, self.view = tokenizer, view

    @torch.inference_mode()
    def log_odds(self, cases: Sequence[Case]) -> NDArray[np.float64]:
        """Return the log odds of the second behaviour for each case, computed in batches of similar length."""
        items = tokenize(self.tokenizer, self.view, cases)
        size = self.encoder.config.hidden_size
        cues = extract_features(list(cases)).cues
        result = np.asarray(cues @ self.head[size:].double().numpy() + self.bias)
        order = np.argsort([len(first) + len(second) for first, second in items], kind="stable")
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            vectors = mean_state(self.encoder, collate([items[row] for row in rows]))
            result[rows] += (vectors @ self.head[:size]).numpy()
        return result


def load_text_encoder(folder: Path) -> TextEncoder:
    """Load a model from its folder. The weights are safetensors: nothing in it is run."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    view = View(**config.pop("view"))
    weights = dequantised(load_file(folder / WEIGHTS))
    head, bias = weights.pop("head.weight"), weights.pop("head.bias").item()
    encoder = BertModel(BertConfig(**config), add_pooling_layer=False)
    encoder.load_state_dict(weights)
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return TextEncoder(encoder, head, bias, tokenizer, view)


def dequantised(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in float32: a matrix in 8 bits is multiplied by the scales of its rows."""
    return {
        name: value.float() * stored[name + SCALE].float() if name + SCALE in stored else value.float()
        for name, value in stored.items()
        if not name.endswith(SCALE)
    }
