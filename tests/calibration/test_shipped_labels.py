"""The labels that come with the project: what their README says of them, and what a calibration needs of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations

import pytest

from cst_bench.calibration.labels import SHIPPED, Labelled, LabelSet, read_labels, shipped_labels
from cst_bench.calibration.shipped import help_labels
from cst_bench.content import content_root
from cst_bench.files import prompt_hash
from cst_bench.judging import NEITHER, ask, load_judge

FOLDER = content_root() / SHIPPED
NAMES = sorted(path.stem for path in FOLDER.glob("*.jsonl"))
ENGLISH = [name for name in NAMES if name.startswith("english_")]
ROWS = {"english_refusals": 434, "english_help": 434, "english_personas": 189}
HARD = {
    "refusal then compliance": {"uncensored"},
    "disclaimer": {"uncensored"},
    "quoted refusal": {"uncensored"},
    "apology": {"uncensored"},
    "partial": {"harmless", "uncensored"},
    "unspoken refusal": {"harmless"},
    "explanation": {"harmless"},
    "other language": {"harmless", "uncensored"},
    "short": {"harmless", "uncensored"},
    "off topic": {NEITHER},
}


def labels(name: str) -> LabelSet:
    return read_labels(FOLDER / f"{name}.jsonl")


def split(row: Labelled) -> str:
    place = int(prompt_hash(row.case.prompt), 16) % 100
    return "train" if place < 40 else "calibration" if place < 70 else "test"


@pytest.mark.parametrize("name", NAMES)
def test_no_id_or_response_comes_twice_and_nobody_is_said_to_have_read_them(name: str) -> None:
    rows = labels(name).rows
    assert len({row.id for row in rows}) == len({(row.key, *row.case.fields.values()) for row in rows}) == len(rows)
    assert {row.by for row in rows} == {"by construction"}


@pytest.mark.parametrize("name", ENGLISH)
def test_rows_prompts_and_labels_are_as_many_as_the_readme_says(name: str) -> None:
    rows = labels(name).rows
    assert len(rows) == ROWS[name]
    told = (FOLDER / "README.md").read_text(encoding="utf-8")
    if name != "english_help":
        assert f"| `{name}.jsonl` | {len(rows)} on {len({row.case.prompt for row in rows})} " in told
    shares = Counter(row.behaviour for row in rows)
    behaviours = [behaviour for behaviour in shares if behaviour != NEITHER]
    assert len(behaviours) == 2
    assert all(0.4 <= shares[behaviour] / len(rows) <= 0.6 for behaviour in behaviours)
    cases = {row.slices["case"] for row in rows}
    assert all(case in told for case in cases)


@pytest.mark.parametrize("name", ENGLISH)
def test_splits_follow_from_the_prompt_and_each_holds_every_label(name: str) -> None:
    rows = labels(name).rows
    assert {row.slices["split"] for row in rows} == {"train", "calibration", "test"}
    assert [row.id for row in rows if row.slices["split"] != split(row)] == []
    behaviours = defaultdict(set)
    for row in rows:
        behaviours[row.slices["split"]].add(row.behaviour)
    assert len(set(map(frozenset, behaviours.values()))) == 1


def test_every_hard_case_of_refusals_comes_at_least_twenty_times_with_the_labels_it_can_have() -> None:
    behaviours = defaultdict(list)
    for row in labels("english_refusals").rows:
        behaviours[row.slices["case"]].append(row.behaviour)
    assert {case: set(behaviours[case]) for case in HARD} == HARD
    assert {case: len(behaviours[case]) for case in HARD if len(behaviours[case]) < 20} == {}


def test_responses_are_written_one_by_one() -> None:
    """Check that few rows share most of their words: a grid of templates would teach a judge the template."""
    words = [set(row.case.response.casefold().split()) for row in labels("english_refusals").rows]
    long = [row_words for row_words in words if len(row_words) >= 20]
    alike = [len(row_words & other) / len(row_words | other) for row_words, other in combinations(long, 2)]
    assert len(long) > 200
    assert max(alike) < 0.75
    assert sum(share > 0.5 for share in alike) < 10


def test_empty_responses_are_neither_whoever_judges() -> None:
    cases = [row.case for row in labels("english_refusals").rows if row.slices["case"] == "empty"]
    verdicts = ask(load_judge("refusal_rules"), cases)
    assert len(cases) >= 3
    assert {(verdict.behaviour, verdict.reason) for verdict in verdicts} == {("neither", "empty response")}


def test_personas_are_told_to_judges_that_need_them() -> None:
    rows = labels("english_personas").rows
    assert all(row.case.fields["system"].startswith("You are ") for row in rows)
    assert shipped_labels("mine", ("in_persona", "as_assistant"), {"system"}) == [FOLDER / "english_personas.jsonl"]


@pytest.mark.parametrize(
    ("judge", "name"),
    [
        ("refusal_rules", "english_refusals"),
        ("refusal_rules_help", "english_help"),
        ("identity_rules", "english_personas"),
    ],
)
def test_a_judge_without_labels_of_its_own_gets_those_that_fit(judge: str, name: str) -> None:
    asked = load_judge(judge)
    assert shipped_labels(judge, asked.behaviours, asked.fields) == [FOLDER / f"{name}.jsonl"]


def test_labels_of_help_are_those_of_refusals_by_other_names() -> None:
    assert (FOLDER / "english_help.jsonl").read_text(encoding="utf-8") == help_labels(), (
        "python -m cst_bench.calibration.shipped"
    )
    pairs = {(a.behaviour, b.behaviour) for a, b in zip(labels("english_refusals").rows, labels("english_help").rows)}
    assert pairs == {("harmless", "refused"), ("uncensored", "helped"), (NEITHER, NEITHER)}
