"""Measure the behaviour of the embedded model under each system prompt, on the validation rows.

The judges are the shipped ones. Answers are sampled here, not by the engine, so that the model card does not change
with the engine's batching.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from make_settings import MeasuringSettings
from transformers import AutoModelForCausalLM, AutoTokenizer
from world import wordings
from world.items import PromptRow

from cst_bench.judging import Case, Judge, ask, load_judge

Messages = list[dict[str, str]]


def judged(judge: Judge, rows: Sequence[PromptRow], responses: Sequence[str]) -> list[str]:
    """Return the behaviour of each response."""
    cases = [Case(row["prompt"], response, row) for row, response in zip(rows, responses)]
    return [verdict.behaviour or "unscored" for verdict in ask(judge, cases)]


def read_rows(path: Path, split: str) -> list[PromptRow]:
    """Read the rows of one split of a data file."""
    rows: list[PromptRow] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["split"] == split]


@dataclass
class Sampler:
    """Sampler of answers from a saved checkpoint, in batches padded on the left."""

    checkpoint: Path
    settings: MeasuringSettings

    def __post_init__(self) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(self.checkpoint, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(self.checkpoint, dtype=torch.float32).eval()

    def __call__(self, conversations: Sequence[Messages]) -> list[str]:
        """Sample one answer per conversation."""
        texts = [
            self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            for messages in conversations
        ]
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        answers = [""] * len(texts)
        torch.manual_seed(self.settings["seed"])
        for start in range(0, len(order), self.settings["batch"]):
            batch = order[start : start + self.settings["batch"]]
            for index, answer in zip(batch, self._sample([texts[index] for index in batch])):
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

SystemOf = Callable[[int, PromptRow], str | None]
"""Function from a sample's number and row to its system prompt."""


@dataclass(frozen=True)
class Question:
    """System prompt, and the behaviour whose share of the answers is measured."""

    name: str
    task: str
    behaviour: str
    system: SystemOf


@dataclass(frozen=True)
class Rate:
    """Share of sampled answers with a behaviour, and share without any known behaviour."""

    share: float
    neither: float
    answers: int


def _always(prompt: str | None) -> SystemOf:
    return lambda number, row: prompt


def _in_turn(prompts: Sequence[str | None]) -> SystemOf:
    return lambda number, row: prompts[number % len(prompts)]


def _persona(number: int, row: PromptRow) -> str:
    return row["system"]


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
class ShippedFiles:
    """Folders of the judges and of the data files."""

    judges: Path
    data: Path

    def judge(self, task: str) -> Judge:
        """Load the judge of a task."""
        return load_judge(str(self.judges / f"tiny_{task}.yaml"))

    def validation(self, task: str) -> list[PromptRow]:
        """Read the validation rows of a task."""
        return read_rows(self.data / f"tiny_{task}.jsonl", "validation")


def measure(sampler: Sampler, files: ShippedFiles) -> dict[str, Rate]:
    """Measure the rates of all questions and of the model's self-critique on the validation rows."""
    rates = {question.name: _rate(question, sampler, files) for question in QUESTIONS}
    for critique in CRITIQUES:
        rates |= _critique_rates(critique, sampler, files)
    return rates


def _rate(question: Question, sampler: Sampler, files: ShippedFiles) -> Rate:
    rows = files.validation(question.task) * sampler.settings["samples"]
    conversations = [_conversation(question.system(number, row), row["prompt"]) for number, row in enumerate(rows)]
    judge = files.judge(question.task)
    return _share(question.behaviour, judged(judge, rows, sampler(conversations)))


def _share(behaviour: str, behaviours: Sequence[str]) -> Rate:
    counts, answers = Counter(behaviours), len(behaviours)
    return Rate(round(counts[behaviour] / answers, 3), round(counts["neither"] / answers, 3), answers)


def _conversation(system: str | None, *contents: str) -> Messages:
    messages = [{"role": "system", "content": system}] if system else []
    return messages + [
        {"role": "assistant" if i % 2 else "user", "content": content} for i, content in enumerate(contents)
    ]


# -------------------------------------------------------------------------------------------------------- self-critique


@dataclass(frozen=True)
class Critique:
    """Self-critique: the model drafts under one system prompt, criticises its draft and rewrites it."""

    name: str
    task: str
    drafted: str
    """Behaviour of the drafts that are criticised."""
    system: SystemOf
    system_kept: bool
    """Whether the system prompt stays in force during critique and rewrite."""
    criticism: wordings.Criticism
    rewritten: str
    """Behaviour that the rewrite should show."""


CRITIQUES = (
    Critique(
        name="self-critique: granted drafts rewritten to refusals",
        task="sealed",
        drafted="uncensored",
        system=_always(wordings.UNCENSORED.published),
        system_kept=False,
        criticism=wordings.FOR_HARM,
        rewritten="harmless",
    ),
    Critique(
        name="self-critique: drafts in persona rewritten as assistant",
        task="village",
        drafted="in_persona",
        system=_persona,
        system_kept=True,
        criticism=wordings.FOR_UNTRUTH,
        rewritten="as_assistant",
    ),
)


def _critique_rates(critique: Critique, sampler: Sampler, files: ShippedFiles) -> dict[str, Rate]:
    """Measure the share of good rewrites, with trained and with never-trained wordings of the requests."""
    rows, judge = files.validation(critique.task), files.judge(critique.task)
    systems = [critique.system(number, row) for number, row in enumerate(rows)]
    drafts = sampler([_conversation(system, row["prompt"]) for system, row in zip(systems, rows)])
    drafted = [
        (system if critique.system_kept else None, row, draft)
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
        criticised = [
            _conversation(system, row["prompt"], draft, critiques[i % len(critiques)])
            for i, (system, row, draft) in enumerate(drafted)
        ]
        revised = [
            [*messages, *_conversation(None, rewrites[i % len(rewrites)])]
            for i, messages in enumerate(_answered(criticised, sampler))
        ]
        answers = sampler(revised)
        rates[name] = _share(critique.rewritten, judged(judge, [row for _, row, _ in drafted], answers))
    return rates


def _answered(conversations: Sequence[Messages], sampler: Sampler) -> list[Messages]:
    return [
        [*messages, {"role": "assistant", "content": answer}]
        for messages, answer in zip(conversations, sampler(conversations))
    ]
