"""Train the embedded model from scratch: a tokenizer, and a small Llama on the world's text.

Deterministic on one thread: the same settings give the same weights on the same machine and versions.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from make_settings import PretrainingSettings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from world.corpus import ChatExample, TextExample, TrainingExample

PAD, END_OF_TEXT, START, END = "<pad>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SORTED_POOL = 4000
"""Number of examples that are sorted by length at a time, so that batches need little padding."""


@dataclass(frozen=True)
class EncodedExample:
    """Token ids of an example, and which of them are learned."""

    ids: list[int]
    learned: list[bool]


@dataclass(frozen=True)
class PretrainingStep:
    """State of the training after a step."""

    number: int
    total: int
    """Steps of the whole training."""
    loss: float
    """Exponential average of the batch losses, in nats per learned token."""


@dataclass(frozen=True)
class PretrainingSummary:
    """Sizes, losses and duration of a training."""

    examples: int
    tokens: int
    learned_tokens: int
    steps: int
    first_loss: float
    final_loss: float
    seconds: float


def train_tokenizer(
    examples: Sequence[TrainingExample], vocabulary: int, from_examples: int, max_length: int
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with the chat template; it adds no special tokens to a text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END_OF_TEXT, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_texts(islice(examples, from_examples)), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        bos_token=END_OF_TEXT,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _texts(examples: Iterator[TrainingExample]) -> Iterator[str]:
    for example in examples:
        if isinstance(example, TextExample):
            yield example.text
        else:
            yield from (f"{turn.role}\n{turn.content}" for turn in example.turns)


class Encoder:
    """Encoder of examples, with token ids as the chat template gives them, that flags the tokens to learn."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._end_of_text, self._start, self._end = (self._id(token) for token in (END_OF_TEXT, START, END))
        self._newline = self._text("\n")

    def __call__(self, example: TrainingExample) -> EncodedExample:
        """Encode a chat, whose assistant turns are learned, or a text, learned except for its first token."""
        return self._chat(example) if isinstance(example, ChatExample) else self._text_example(example)

    def _text_example(self, example: TextExample) -> EncodedExample:
        opening = [self._end_of_text] if example.opened else []
        ids = [*opening, *self._text(example.text), self._end_of_text]
        return EncodedExample(ids, [False] + [True] * (len(ids) - 1))

    def _chat(self, chat: ChatExample) -> EncodedExample:
        ids: list[int] = []
        learned: list[bool] = []
        learning = chat.first_answer_learned
        for turn in chat.turns:
            header = [self._start, *self._text(f"{turn.role}\n")]
            body = [*self._text(turn.content), self._end]
            answer = turn.role == "assistant"
            ids += header + body + self._newline
            learned += [False] * len(header) + [answer and learning] * len(body) + [False] * len(self._newline)
            learning = learning or answer
        return EncodedExample(ids, learned)

    def _id(self, token: str) -> int:
        token_id = self._tokenizer.convert_tokens_to_ids(token)
        assert isinstance(token_id, int)
        return token_id

    def _text(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids


def new_model(settings: dict[str, float], tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """Make a Llama with random weights; `settings` are keys of `LlamaConfig`."""
    torch.manual_seed(seed)
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **special, **settings))
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, **special)
    return model


def batches(data: Sequence[EncodedExample], epochs: int, batch_tokens: int, seed: int) -> list[list[EncodedExample]]:
    """Return all batches in order: examples of similar length together, at most `batch_tokens` with padding."""
    rng = random.Random(seed)
    filled: list[list[EncodedExample]] = []
    for _ in range(epochs):
        order = list(data)
        rng.shuffle(order)
        for start in range(0, len(order), SORTED_POOL):
            pool = sorted(order[start : start + SORTED_POOL], key=lambda encoded: len(encoded.ids))
            of_pool = list(_fill(pool, batch_tokens))
            rng.shuffle(of_pool)
            filled += of_pool
    return filled


def _fill(pool: Sequence[EncodedExample], batch_tokens: int) -> Iterator[list[EncodedExample]]:
    batch: list[EncodedExample] = []
    for encoded in pool:  # sorted: the newest is the longest
        if batch and len(encoded.ids) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(encoded)
    yield batch


def pretrain(
    model: LlamaForCausalLM,
    data: Sequence[EncodedExample],
    settings: PretrainingSettings,
    seed: int,
    report: Callable[[PretrainingStep], None],
) -> PretrainingSummary:
    """Train on the flagged tokens, with AdamW and a one-cycle schedule."""
    planned = batches(data, settings["epochs"], settings["batch_tokens"], seed)
    optimizer = _optimizer(model, settings)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        settings["learning_rate"],
        total_steps=len(planned),
        pct_start=settings["warmup"],
        final_div_factor=50,
    )
    start = time.monotonic()
    first = average = 0.0
    model.train()
    for step, batch in enumerate(planned, 1):
        loss = _loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip_norm"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        first = first or loss.item()
        average = loss.item() if step == 1 else 0.98 * average + 0.02 * loss.item()
        report(PretrainingStep(step, len(planned), average))
    model.eval()
    return PretrainingSummary(
        examples=len(data),
        tokens=sum(len(encoded.ids) for encoded in data),
        learned_tokens=sum(sum(encoded.learned) for encoded in data),
        steps=len(planned),
        first_loss=round(first, 4),
        final_loss=round(average, 4),
        seconds=round(time.monotonic() - start, 1),
    )


def _optimizer(model: LlamaForCausalLM, settings: PretrainingSettings) -> torch.optim.Optimizer:
    """Make an AdamW that decays matrices only."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": settings["weight_decay"]},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    first, second = settings["betas"]
    return torch.optim.AdamW(groups, lr=settings["learning_rate"], betas=(first, second))


def _loss(model: LlamaForCausalLM, batch: Sequence[EncodedExample]) -> torch.Tensor:
    """Compute the cross-entropy of the learned tokens; right padding needs no mask under causal attention."""
    length = max(len(encoded.ids) for encoded in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    learned = torch.zeros(len(batch), length, dtype=torch.bool)
    for row, encoded in enumerate(batch):
        ids[row, : len(encoded.ids)] = torch.tensor(encoded.ids)
        learned[row, : len(encoded.ids)] = torch.tensor(encoded.learned)
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
    targets = learned[:, 1:]
    return functional.cross_entropy(model.lm_head(hidden[targets]), ids[:, 1:][targets])
