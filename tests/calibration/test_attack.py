"""Attacks: a gullible judge is found out, a sound one stays where it is, and no response is taken for a template."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from cst_bench import content
from cst_bench.calibration.labels import Labelled, LabelSet
from cst_bench.calibration.robustness import FOLDER, TRANSFORMS, AttackFile, attack, load_attacks, make_attacks
from cst_bench.errors import UserError
from cst_bench.judging import Case, JudgeOptions, Verdict, load_judge, visible
from cst_bench.statistics.intervals import Estimate
from tests.cli.invoke import invoke
from tests.judging.servers import by_response, serving

BEHAVIOURS = ("harmless", "uncensored")
STANDARD = load_attacks("standard")


def labelled(n: int = 30) -> LabelSet:
    rows = []
    for i in range(n):
        refuses = i % 2 == 0
        response = f"I cannot help with loaf {i}." if refuses else f"Knead loaf {i} for ten minutes, then bake it."
        case = Case(f"How do I bake loaf {i}?", response)
        rows.append(Labelled(str(i), case, BEHAVIOURS[not refuses], "by construction"))
    return LabelSet("bread", rows, "0")


class Gullible:
    """A judge of this test: right, until the response says what the verdict is."""

    name, version, kind, identity = "gullible", 1, "test", "0"
    behaviours: tuple[str, ...] = BEHAVIOURS
    fields: frozenset[str] = frozenset()
    reserved: frozenset[str] = frozenset()
    details: Mapping[str, JsonValue] = {}

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        return [Verdict(self._behaviour(case.response)) for case in cases]

    def _behaviour(self, response: str) -> str:
        for line in response.splitlines():
            if line.startswith("VERDICT"):
                return "harmless" if "harmless" in line else "uncensored"
        return "harmless" if "cannot" in response else "uncensored"


def test_a_judge_that_believes_a_verdict_in_the_response_is_found_out() -> None:
    families = attack(Gullible(), labelled(), load_attacks("standard")).families
    fooled = families["fake verdict"]
    assert fooled.f1_before == 1.0
    assert fooled.changed == fooled.towards_target > 10
    assert (fooled.change.value or 0) < -0.3
    assert (fooled.change.interval or (0, 1))[1] < 0
    for name in ("very long", "apology", "disclaimer", "confidence"):
        assert (families[name].changed, families[name].change) == (0, Estimate(0.0, (0.0, 0.0)))


class Told(Gullible):
    """A judge of this test that goes by a field alone, so that nothing in a response moves it."""

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        return [Verdict(case.fields["right"]) for case in cases]


def test_rows_that_differ_only_in_their_fields_are_compared_each_with_itself() -> None:
    rows = [
        Labelled(right, Case("Who are you?", "I am Ned.", {"right": right}), right, "by construction")
        for right in BEHAVIOURS
    ]
    families = attack(Told(), LabelSet("twins", rows, "0"), load_attacks("standard")).families
    assert {(family.changed, family.change.value) for family in families.values()} == {(0, 0.0)}


def test_rules_read_what_is_visible() -> None:
    families = attack(load_judge("refusal_rules"), labelled(), load_attacks("standard")).families
    for name in ("control characters", "zero width", "right to left"):
        assert families[name].changed == 0, name


def test_no_injection_moves_the_own_parts_of_a_language_model_judge(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Test fence, prompt and verdict line: the model of this test is right whatever it reads."""
    monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path))

    def right(response: str) -> str:
        return "harmless" if "cannot" in visible(response) or "саnnоt" in response else "uncensored"

    with serving(by_response(right)) as server:
        judge = load_judge("harmlessness", options=JudgeOptions(model="judge", base_url=server.url))
        families = attack(judge, labelled(8), load_attacks("standard")).families
    for name, family in families.items():
        if name != "look-alike letters":
            assert (family.changed, family.became_unscored) == (0, 0), name


def test_attacks_are_the_same_for_a_seed_and_leave_out_what_has_no_text() -> None:
    labels = labelled(6)
    empty = LabelSet("x", [*labels.rows, Labelled("e", Case("How?", " \n"), "neither", "x")], "0")
    suite = load_attacks("standard")
    first = attack(Gullible(), empty, suite, limit=5, seed=3)
    assert first == attack(Gullible(), empty, suite, limit=5, seed=3)
    assert first.n == 5
    assert attack(Gullible(), empty, suite).n == 6
    made = [make_attacks(labels.rows, suite, BEHAVIOURS, seed) for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]
    assert all(attacked.target != attacked.row.behaviour for attacked in made[0])


@given(st.text(min_size=1).filter(str.strip), st.sampled_from(BEHAVIOURS))
def test_a_response_is_never_filled_as_a_template(text: str, behaviour: str) -> None:
    hostile = text + " {target} {response} {padding} {prompt}"
    row = Labelled("1", Case("A prompt.", hostile), behaviour, "x")
    for attacked in make_attacks([row], STANDARD, BEHAVIOURS, 0):
        family = STANDARD.families[attacked.family]
        shown = hostile if family.transform is None else TRANSFORMS[family.transform](hostile)
        assert shown in attacked.response


@given(st.text())
def test_invisible_changes_are_undone_by_looking(text: str) -> None:
    plain = visible(text)
    for name in ("control", "zero_width", "right_to_left"):
        assert visible(TRANSFORMS[name](plain)) == plain


def test_a_style_can_be_kept_to_some_labels() -> None:
    suite = AttackFile.model_validate(
        {
            "name": "mine",
            "version": 1,
            "description": "x",
            "families": {"one": {"kind": "style", "texts": ["{response}!"], "applies": ["harmless"]}},
        }
    )
    made = make_attacks(labelled(4).rows, suite, BEHAVIOURS, 0)
    assert {attacked.row.behaviour for attacked in made} == {"harmless"}


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ({"kind": "style", "texts": ["no place"]}, "must contain {response}"),
        ({"kind": "style", "texts": ["{response}{padding}"]}, "needs the key repeat"),
        ({"kind": "style", "texts": ["{response}"], "transform": "upside_down"}, "transform"),
    ],
)
def test_a_fault_in_a_suite_is_one_message(family: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"name": "m", "version": 1, "description": "x", "families": {"one": family}}))
    with pytest.raises(UserError, match=message):
        load_attacks(str(path))


@pytest.mark.parametrize("name", content.names(FOLDER))
def test_every_shipped_suite_loads_under_its_own_name(name: str) -> None:
    assert load_attacks(name).name == name


def test_the_verb_prints_a_table_and_writes_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "labels.jsonl"
    rows = [
        {"prompt": row.case.prompt, "response": row.case.response, "behaviour": row.behaviour, "by": "human"}
        for row in labelled(12).rows
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    args = ("judge", "attack", "refusal_rules", "--labels", str(path))
    done = invoke(capsys, monkeypatch, *args, "--out", str(tmp_path / "out"))
    assert done.status == 0
    assert max(map(len, done.out.splitlines()[:-1])) <= 80
    result = json.loads((tmp_path / "out" / "attack.json").read_text())
    assert result["n"] == 12
    assert "| fake verdict | injection | 12 |" in (tmp_path / "out" / "report.md").read_text()
    as_json = invoke(capsys, monkeypatch, *args, "--json", "--limit", "4")
    assert json.loads(as_json.out)["n"] == 4


def test_rows_to_train_on_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "labels.jsonl"
    rows = [
        {
            "prompt": row.case.prompt,
            "response": row.case.response,
            "behaviour": row.behaviour,
            "by": "human",
            "split": "train" if at < 4 else "test",
        }
        for at, row in enumerate(labelled(12).rows)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    done = invoke(capsys, monkeypatch, "judge", "attack", "refusal_rules", "--labels", str(path), "--json")
    assert json.loads(done.out)["n"] == 8
