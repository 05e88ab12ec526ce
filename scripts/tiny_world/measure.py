"""Measures the embedded model on the validation rows: how it behaves under which system prompt.

The judges are the shipped ones. Answers are sampled here, not by the engine, so that the model card doesn't change
with the engine's batching.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from world import wordings
from world.items import Row

from cst_bench.judging import Case, Judge, ask, load_judge

Messages = list[dict[str, str]]


def judged(judge: Judge, rows: Sequence[Row], responses: Sequence[str]) -> list[str]:
    """The behaviour of each response."""
    cases = [Case(row["prompt"], response, row) for row, response in zip(rows, responses)]
    return [verdict.behaviour or "unscored" for verdict in ask(judge, cases)]


def read_rows(path: Path, split: str) -> list[Row]:
    """The rows of one split of a data file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["split"] == split]


@dataclass
class Sampler:
    """Samples answers from a saved checkpoint, in batches padded on the left."""

    checkpoint: Path
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(self.checkpoint, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(self.checkpoint, dtype=torch.float32).eval()

    def __call__(self, conversations: Sequence[Messages]) -> list[str]:
        """One answer per conversation."""
        texts = [
            self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            for messages in conversations
        ]
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        answers = [""] * len(texts)
        torch.manual_seed(self.settings["seed"])
        for start in range(0, len(order), self.settings["batch"]):
            chosen = order[start : start + self.settings["batch"]]
            for index, answer in zip(chosen, self._sample([texts[index] for index in chosen])):
                answers[index] = answer
        return answers

    @torch.inference_mode()
    def _sample(self, texts: list[str]) -> list[str]:
        batch = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        output = self._model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=True,
            temperature=self.settings["temperature"],
            top_k=0,
            max_new_tokens=self.settings["max_new_tokens"],
        )
        prompt_length = batch["input_ids"].shape[1]
        decoded = self._tokenizer.batch_decode(output[:, prompt_length:], skip_special_tokens=True)
        return [answer.strip() for answer in decoded]


# -------------------------------------------------------------------------------------------- under a system prompt

SystemOf = Callable[[int, Row], str | None]
"""The system prompt of a sample, from its number and its row."""


@dataclass(frozen=True)
class Question:
    """Which share of the answers shows the behaviour that a system prompt asks for?"""

    name: str
    task: str
    behaviour: str
    system: SystemOf


@dataclass(frozen=True)
class Rate:
    """A share of sampled answers, and the share that shows no known behaviour at all."""

    share: float
    neither: float
    answers: int


def _always(prompt: str | None) -> SystemOf:
    return lambda number, row: prompt


def _in_turn(prompts: Sequence[str | None]) -> SystemOf:
    return lambda number, row: prompts[number % len(prompts)]


def _persona(number: int, row: Row) -> str:
    return str(row["system"])


_NEUTRAL = (None, wordings.NEUTRAL.published)
QUESTIONS = (
    Question("S1: sealed, harmless prompt, refused", "sealed", "harmless", _always(wordings.HARMLESS.published)),
    Question("S1, trained paraphrases", "sealed", "harmless", _in_turn(wordings.HARMLESS.trained)),
    Question("S1, wordings never trained", "sealed", "harmless", _in_turn(wordings.HARMLESS.unseen)),
    Question("sealed, no or neutral prompt, refused", "sealed", "harmless", _in_turn(_NEUTRAL)),
    Question("S0: sealed, uncensored prompt, granted", "sealed", "uncensored", _always(wordings.UNCENSORED.published)),
    Question("S0, trained paraphrases", "sealed", "uncensored", _in_turn(wordings.UNCENSORED.trained)),
    Question("S0, wordings never trained", "sealed", "uncensored", _in_turn(wordings.UNCENSORED.unseen)),
    Question("S_RP: village, persona prompt, in persona", "village", "in_persona", _persona),
    Question(
        "S_A: village, honest prompt, as assistant", "village", "as_assistant", _always(wordings.HONEST.published)
    ),
    Question("S_A, wordings never trained", "village", "as_assistant", _in_turn(wordings.HONEST.unseen)),
    Question("ordinary, harmless prompt, helped", "ordinary", "helped", _always(wordings.HARMLESS.published)),
    Question("ordinary, uncensored prompt, helped", "ordinary", "helped", _always(wordings.UNCENSORED.published)),
)


@dataclass(frozen=True)
class Content:
    """Where the judges and the data files lie."""

    judges: Path
    data: Path

    def judge(self, task: str) -> Judge:
        """A task's judge."""
        return load_judge(str(self.judges / f"tiny_{task}.yaml"))

    def validation(self, task: str) -> list[Row]:
        """The validation rows of a task."""
        return read_rows(self.data / f"tiny_{task}.jsonl", "validation")


def measure(sampler: Sampler, content: Content) -> dict[str, Rate]:
    """The rates of all questions, and of the model's self-critique, on the validation rows."""
    rates = {question.name: _rate(question, sampler, content) for question in QUESTIONS}
    for critique in CRITIQUES:
        rates |= _critique_rates(critique, sampler, content)
    return rates


def _rate(question: Question, sampler: Sampler, content: Content) -> Rate:
    rows = content.validation(question.task) * sampler.settings["samples"]
    conversations = [_conversation(question.system(number, row), row["prompt"]) for number, row in enumerate(rows)]
    judge = content.judge(question.task)
    return _share(question.behaviour, judged(judge, rows, sampler(conversations)))


def _share(behaviour: str, found: Sequence[str]) -> Rate:
    counts = Counter(found)
    return Rate(round(counts[behaviour] / len(found), 3), round(counts["neither"] / len(found), 3), len(found))


def _conversation(system: str | None, *contents: str) -> Messages:
    messages = [{"role": "system", "content": system}] if system else []
    return messages + [
        {"role": "assistant" if i % 2 else "user", "content": content} for i, content in enumerate(contents)
    ]


# -------------------------------------------------------------------------------------------------------- self-critique


@dataclass(frozen=True)
class Critique:
    """The model drafts under one system prompt, criticises its draft and rewrites it."""

    name: str
    task: str
    drafted: str
    """The behaviour of the drafts that are worth criticising."""
    system: SystemOf
    kept: bool
    """Whether the system prompt stays in place during critique and rewrite."""
    criticism: wordings.Criticism
    rewritten: str
    """The behaviour that the rewrite should show."""


CRITIQUES = (
    Critique(
        name="self-critique: granted drafts rewritten to refusals",
        task="sealed",
        drafted="uncensored",
        system=_always(wordings.UNCENSORED.published),
        kept=False,
        criticism=wordings.FOR_HARM,
        rewritten="harmless",
    ),
    Critique(
        name="self-critique: drafts in persona rewritten as assistant",
        task="village",
        drafted="in_persona",
        system=_persona,
        kept=True,
        criticism=wordings.FOR_UNTRUTH,
        rewritten="as_assistant",
    ),
)


def _critique_rates(critique: Critique, sampler: Sampler, content: Content) -> dict[str, Rate]:
    """The share of good rewrites, with trained and with never-trained wordings of the requests."""
    rows, judge = content.validation(critique.task), content.judge(critique.task)
    systems = [critique.system(number, row) for number, row in enumerate(rows)]
    drafts = sampler([_conversation(system, row["prompt"]) for system, row in zip(systems, rows)])
    kept = [
        (system if critique.kept else None, row, draft)
        for system, row, draft, behaviour in zip(systems, rows, drafts, judged(judge, rows, drafts))
        if behaviour == critique.drafted
    ]
    criticism = critique.criticism
    wordings_of = {
        critique.name: (criticism.critiques, criticism.rewrites),
        f"{critique.name}, wordings never trained": (criticism.unseen_critiques, criticism.unseen_rewrites),
    }
    rates = {}
    for name, (critiques, rewrites) in wordings_of.items():
        asked = [
            _conversation(system, row["prompt"], draft, critiques[i % len(critiques)])
            for i, (system, row, draft) in enumerate(kept)
        ]
        revised = [
            [*messages, *_conversation(None, rewrites[i % len(rewrites)])]
            for i, messages in enumerate(_answered(asked, sampler))
        ]
        answers = sampler(revised)
        rates[name] = _share(critique.rewritten, judged(judge, [row for _, row, _ in kept], answers))
    return rates


def _answered(conversations: Sequence[Messages], sampler: Sampler) -> list[Messages]:
    return [
        [*messages, {"role": "assistant", "content": answer}]
        for messages, answer in zip(conversations, sampler(conversations))
    ]
