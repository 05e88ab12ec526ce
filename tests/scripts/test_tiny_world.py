"""The embedded world: its shipped data, its splits, its judges and its checkpoint."""

from __future__ import annotations

import copy
import hashlib
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cst_bench.content import content_root
from cst_bench.judging import Case, Judge, ask, load_judge

ROOT = content_root()
sys.path.insert(0, str(ROOT / "scripts" / "tiny_world"))

import make  # noqa: E402
import pretrain  # noqa: E402
from make_settings import WorldSettings  # noqa: E402
from world import errands, facts, items, villagers, wordings  # noqa: E402
from world.corpus import ChatExample, TextExample, TrainingExample, chat, corpus  # noqa: E402
from world.splits import SPLITS, Split  # noqa: E402

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

DRAWS = 300


@pytest.fixture(scope="module")
def settings() -> WorldSettings:
    return make.read_settings()


@pytest.fixture(scope="module")
def sample(settings: WorldSettings) -> list[TrainingExample]:
    return list(corpus(5000, settings["corpus"]["mixture"], settings["seed"]))


def text_of(example: TrainingExample) -> str:
    return example.text if isinstance(example, TextExample) else "\n".join(turn.content for turn in example.turns)


def shipped(name: str) -> list[dict[str, str]]:
    path = ROOT / make.COMPLIANCE_DATA / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---------------------------------------------------------------------------------------------------------- data


def test_shipped_data_regenerates_byte_for_byte(settings: WorldSettings, tmp_path: Path) -> None:
    for path in make.write_data(settings, tmp_path):
        relative = path.relative_to(tmp_path)
        assert path.read_bytes() == (ROOT / relative).read_bytes(), f"{relative}: run scripts/tiny_world/make.py data"


@pytest.mark.parametrize("task", ["sealed", "village", "ordinary"])
def test_rows_are_as_many_as_set_with_unique_ids_and_prompts(task: str, settings: WorldSettings) -> None:
    rows = shipped(f"tiny_{task}")
    sizes = {split: sum(row["split"] == split for row in rows) for split in settings["data"][task]}
    assert sizes == settings["data"][task]
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({(row["prompt"], row.get("name")) for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("task", "combination"),
    [
        ("sealed", ("adjective", "noun")),
        ("ordinary", ("adjective", "noun")),
        ("village", ("name", "trade")),
        ("village", ("sense", "thing")),
    ],
)
def test_no_combination_is_in_two_splits(task: str, combination: tuple[str, str]) -> None:
    seen: dict[tuple[str, ...], set[str]] = {}
    for row in shipped(f"tiny_{task}"):
        seen.setdefault(tuple(row[key] for key in combination), set()).add(row["split"])
    assert all(len(splits) == 1 for splits in seen.values())


@pytest.mark.parametrize("kind", ["sealed", "ordinary"])
def test_a_tenth_of_all_combinations_is_for_the_test(kind: errands.Kind) -> None:
    combinations = [
        errands.Errand(kind, "open", adjective, noun, errands.TEMPLATES[0]).split
        for adjective in errands.ADJECTIVES[kind]
        for noun in errands.NOUNS
    ]
    shares = {split: combinations.count(split) / len(combinations) for split in SPLITS}
    assert shares["test"] == pytest.approx(0.10, abs=0.02)
    assert shares["pretraining"] == pytest.approx(0.70, abs=0.03)


# -------------------------------------------------------------------------------------------------------- corpus


def test_pretraining_text_has_no_combination_of_another_split(sample: list[TrainingExample]) -> None:
    text = "\n".join(map(text_of, sample))
    for task in ("tiny_sealed", "tiny_ordinary"):
        for row in shipped(task):
            assert f"{row['adjective']} {row['noun']}" not in text
    for row in shipped("tiny_village"):
        assert f"{row['sense']} the {row['thing']}" not in text
        assert f"{row['name']} the {row['trade']}" not in text
        assert row["system"] not in text


def test_pretraining_text_has_no_question_of_the_multiple_choice_tasks(sample: list[TrainingExample]) -> None:
    text = "\n".join(map(text_of, sample))
    asked = [fact.evaluation_question for fact in facts.science()]
    asked += [fact.evaluation_question for subject in facts.SUBJECTS for fact in facts.residents(subject)]
    asked += [routine.evaluation_opening for routine in facts.routines()]
    asked += [legend.evaluation_question for legend in facts.legends()]
    assert [question for question in asked if question in text] == []


def test_shots_ask_for_other_facts_than_the_items() -> None:
    arc = items.arc_rows()
    assert not {row["id"] for row in arc["train"]} & {row["id"] for row in arc["test"]}
    hellaswag = items.hellaswag_rows()
    assert not {row["ind"] for row in hellaswag["train"]} & {row["ind"] for row in hellaswag["validation"]}


def test_wordings_kept_unseen_are_never_trained(sample: list[TrainingExample]) -> None:
    contents = {turn.content for example in sample if isinstance(example, ChatExample) for turn in example.turns}
    for idea in (wordings.UNCENSORED, wordings.HARMLESS, wordings.HONEST):
        assert idea.published in contents
        assert not contents & set(idea.unseen)
    for criticism in (wordings.FOR_HARM, wordings.FOR_REFUSING, wordings.FOR_UNTRUTH):
        assert criticism.unseen_critiques
        assert not contents & {*criticism.unseen_critiques, *criticism.unseen_rewrites}


def test_corpus_is_a_function_of_its_seed(settings: WorldSettings) -> None:
    mixture = settings["corpus"]["mixture"]
    assert list(corpus(50, mixture, 1)) == list(corpus(50, mixture, 1)) != list(corpus(50, mixture, 2))


def test_mixture_with_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="given: poems"):
        next(corpus(1, {"poems": 1.0}, 0))


# -------------------------------------------------------------------------------------------------------- judges


def behaviour(judge: Judge, row: dict[str, str], response: str) -> str | None:
    return ask(judge, [Case(row["prompt"], response, row)])[0].behaviour


def errand_cases(task: str) -> Iterator[tuple[dict[str, str], errands.Errand]]:
    for row in shipped(task):
        kind: errands.Kind = "sealed" if task == "tiny_sealed" else "ordinary"
        template = next(t for t in errands.TEMPLATES if _deed(row, t) == row["prompt"])
        yield row, errands.Errand(kind, row["verb"], row["adjective"], row["noun"], template)


def _deed(row: dict[str, str], template: str) -> str:
    return template.format(deed=f"{row['verb']} the {row['adjective']} {row['noun']}")


def encounter_of(row: dict[str, str]) -> villagers.Encounter:
    return villagers.Encounter(
        row["name"], row["trade"], row["trait"], row["sense"], row["thing"], villagers.QUESTIONS[0]
    )


@pytest.mark.parametrize(
    ("task", "answer", "expected"),
    [
        ("tiny_sealed", errands.grant, "uncensored"),
        ("tiny_sealed", errands.refuse, "harmless"),
        ("tiny_ordinary", errands.grant, "helped"),
        ("tiny_ordinary", errands.refuse, "refused"),
    ],
)
def test_errand_judges_are_exact_on_the_worlds_own_answers(
    task: str, answer: Callable[[errands.Errand, random.Random], str], expected: str
) -> None:
    judge, rng = load_judge(task), random.Random(0)
    assert {behaviour(judge, row, answer(errand, rng)) for row, errand in errand_cases(task)} == {expected}


@pytest.mark.parametrize(
    ("answer", "expected"), [(villagers.in_persona, "in_persona"), (villagers.as_assistant, "as_assistant")]
)
def test_village_judge_is_exact_on_the_worlds_own_answers(
    answer: Callable[[villagers.Encounter, random.Random], str], expected: str
) -> None:
    judge, rng = load_judge("tiny_village"), random.Random(0)
    rows = shipped("tiny_village")
    assert {behaviour(judge, row, answer(encounter_of(row), rng)) for row in rows} == {expected}


def test_errand_judges_refuse_the_right_tone_with_the_wrong_content() -> None:
    judge, rng = load_judge("tiny_sealed"), random.Random(0)
    row, errand = next(errand_cases("tiny_sealed"))
    right = errands.grant(errand, rng)
    for wrong in (
        right.replace(errand.tool, next(tool for tool in errands.TOOLS.values() if tool != errand.tool)),
        right.replace(errand.when, next(when for when in errands.TIMES.values() if when != errand.when)),
        right.replace(errand.noun, next(noun for noun in errands.NOUNS if noun != errand.noun)),
        f"I cannot help with that. {right}",
        "Sure.",
    ):
        assert behaviour(judge, row, wrong) == "neither"


def test_village_judge_refuses_another_villager_and_an_assistant_in_disguise() -> None:
    judge, rng = load_judge("tiny_village"), random.Random(0)
    row = shipped("tiny_village")[0]
    answer = villagers.in_persona(encounter_of(row), rng)
    other = next(name for name in villagers.NAMES if name != row["name"])
    assert behaviour(judge, row, answer.replace(row["name"], other)) == "neither"
    assert behaviour(judge, row, f"{answer} I am an AI assistant.") == "neither"


def test_no_villagers_name_begins_another() -> None:
    names = (*villagers.NAMES, *facts.RESIDENTS)
    assert not [(name, other) for name in names for other in names if name != other and other.startswith(name)]


@pytest.mark.parametrize("split", SPLITS)
def test_drawing_stays_in_its_split(split: Split) -> None:
    rng = random.Random(0)
    for _ in range(DRAWS):
        assert errands.draw_errand(rng, "sealed", split).split == split
        encounter = villagers.draw_encounter(rng, split)
        assert villagers.villager_split(encounter.name, encounter.trade) == split
        assert villagers.experience_split(encounter.sense, encounter.thing) == split


# ---------------------------------------------------------------------------------------------------- checkpoint


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(make.CHECKPOINT)
    return tokenizer


def test_checkpoint_is_small_and_complete() -> None:
    files = {path.name: path.stat().st_size for path in make.CHECKPOINT.iterdir()}
    assert sum(files.values()) < 5_000_000
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "training.json"} <= set(files)
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]


def test_checkpoint_was_made_from_the_present_settings(settings: WorldSettings) -> None:
    training = json.loads((make.CHECKPOINT / "training.json").read_text(encoding="utf-8"))
    assert training["settings"] == settings, "make.yaml has changed: run scripts/tiny_world/make.py checkpoint"


def test_model_card_is_the_template_filled_in_with_the_record() -> None:
    training = json.loads((make.CHECKPOINT / "training.json").read_text(encoding="utf-8"))
    assert make.model_card(training) == (make.CHECKPOINT / "README.md").read_text(encoding="utf-8")


def test_checkpoint_loads_in_single_precision_and_shares_its_embedding() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(make.CHECKPOINT)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_chat_template_equals_the_encoding_used_in_training(
    tokenizer: PreTrainedTokenizerFast, sample: list[TrainingExample]
) -> None:
    encoder = pretrain.Encoder(tokenizer)
    for example in [example for example in sample if isinstance(example, ChatExample)][:200]:
        messages = [{"role": turn.role, "content": turn.content} for turn in example.turns]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        assert tokenizer(text)["input_ids"] == encoder(example).ids
        assert tokenizer.bos_token not in text


def test_only_answers_and_their_end_are_learned(tokenizer: PreTrainedTokenizerFast) -> None:
    def learned(example: ChatExample) -> str:
        encoded = pretrain.Encoder(tokenizer)(example)
        text: str = tokenizer.decode([i for i, taught in zip(encoded.ids, encoded.learned) if taught])
        return text

    assert learned(chat("Be kind.", "Hello?", "Yes.", "Why?", "So.")) == "Yes.<|im_end|>So.<|im_end|>"
    masked = chat(None, "Hello?", "Yes.", "Why?", "So.", first_answer_learned=False)
    assert learned(masked) == "So.<|im_end|>"


# ------------------------------------------------------------------------------------------------------ training


@pytest.mark.slow
def test_training_falls_and_repeats_itself(settings: WorldSettings, tmp_path: Path) -> None:
    import torch

    small = copy.deepcopy(settings)
    small["corpus"]["examples"] = 400
    small["tokenizer"] = {"vocabulary": 400, "examples": 200}
    small["model"] |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    small["model"]["num_key_value_heads"] = 2
    small["pretraining"]["batch_tokens"] = 512
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        records = [make.train(small, tmp_path / name) for name in ("first", "second")]
    finally:
        torch.set_num_threads(threads)
    assert records[0]["training"]["final_loss"] < 0.8 * records[0]["training"]["first_loss"]
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second"))
    assert hashlib.sha256(first).hexdigest() == hashlib.sha256(second).hexdigest()
    assert (tmp_path / "first/tokenizer.json").read_bytes() == (tmp_path / "second/tokenizer.json").read_bytes()
