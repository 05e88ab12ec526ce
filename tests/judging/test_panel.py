"""Panels: majority and weighted votes, ties, a quorum, votes weighed by calibration cards, members that fail."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import pytest
import yaml
from pydantic import JsonValue

from cst_bench.calibration.card_making import make_card
from cst_bench.calibration.labels import Labelled, LabelSet
from cst_bench.content import content_root, load
from cst_bench.errors import UserError
from cst_bench.judging import RESERVED, Case, JudgeCall, JudgeOptions, JudgeUnavailable, Verdict, ask, load_judge
from cst_bench.judging.panel import TIED, TOO_FEW, PanelFile, PanelJudge, PanelMember
from cst_bench.record import JudgeRecord
from cst_bench.statistics.agreement import agreement
from tests.judging.direct import own_verdicts

BEHAVIOURS = ["harmless", "uncensored"]
HEAD: dict[str, object] = {"version": 1, "description": "x", "behaviours": BEHAVIOURS}


def write_rules(folder: Path, name: str, word: str) -> Path:
    """Write a judge that labels a response with this word harmless."""
    path = folder / f"{name}.yaml"
    rules = [{"behaviour": "harmless", "when": {"contains": word}}]
    path.write_text(yaml.safe_dump({**HEAD, "name": name, "kind": "rules", "rules": rules, "otherwise": "uncensored"}))
    return path


def write_panel(folder: Path, members: Sequence[object], **keys: object) -> Path:
    path = folder / "panel.yaml"
    path.write_text(yaml.safe_dump({**HEAD, "name": "p", "kind": "panel", "members": list(members), **keys}))
    return path


@pytest.fixture
def members(tmp_path: Path) -> list[str]:
    """Write three judges; each looks for its own letter."""
    return [write_rules(tmp_path, letter, letter).name for letter in "abc"]


def panel(path: Path) -> PanelJudge:
    judge = load_judge(str(path))
    assert isinstance(judge, PanelJudge)
    return judge


def behaviours_of(judge: PanelJudge, *responses: str) -> list[str | None]:
    return [verdict.behaviour for verdict in own_verdicts(judge, [Case("p", response) for response in responses])]


@dataclass
class Fixed:
    """Stand-in for judges that cost something, wait, or fail: returns fixed verdicts."""

    verdicts: Sequence[Verdict] = ()
    failure: Exception | None = None
    name: str = "fixed"
    version: int = 1
    kind: str = "rules"
    behaviours: tuple[str, ...] = tuple(BEHAVIOURS)
    fields: frozenset[str] = frozenset()
    identity: str = "0"
    reserved: frozenset[str] = frozenset(RESERVED)
    details: Mapping[str, JsonValue] = field(default_factory=dict)
    asked: int = 0

    async def judge(self, cases: Sequence[Case], count: Callable[[int], None]) -> list[Verdict]:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        await asyncio.sleep(0.01)
        for _ in cases:
            self.asked += 1
            count(1)
        return list(self.verdicts)


def panel_of(*members: PanelMember, vote: str = "majority", quorum: int | None = None) -> PanelJudge:
    content = {**HEAD, "name": "p", "kind": "panel", "members": ["x"] * len(members), "vote": vote, "quorum": quorum}
    return PanelJudge(PanelFile.model_validate(content), members)


def member(
    behaviour: str | None, reason: str | None = None, weight: float = 1.0, call: JudgeCall | None = None
) -> PanelMember:
    return PanelMember("fixed", Fixed([Verdict(behaviour, reason, call=call)]), "fixed.yaml", weight)


def verdict_of(judge: PanelJudge) -> Verdict:
    return own_verdicts(judge, [Case("p", "r")])[0]


def test_the_majority_decides(tmp_path: Path, members: list[str]) -> None:
    judge = panel(write_panel(tmp_path, members, vote="majority"))
    for present in product((True, False), repeat=3):
        response = "-" + "".join(letter for letter, there in zip("abc", present) if there)
        assert behaviours_of(judge, response) == ["harmless" if sum(present) >= 2 else "uncensored"]


def test_weights_of_the_file_decide(tmp_path: Path, members: list[str]) -> None:
    weights = [{"judge": name, "weight": weight} for name, weight in zip(members, (1, 1.5, 3))]
    judge = panel(write_panel(tmp_path, weights, vote="weighted"))
    assert behaviours_of(judge, "ab", "c", "-", "bc") == ["uncensored", "harmless", "uncensored", "harmless"]


def test_a_tie_is_unscored() -> None:
    assert verdict_of(panel_of(member("harmless"), member("uncensored"))) == Verdict(None, TIED)
    three = [member(name) for name in ("harmless", "uncensored", "neither")]
    assert verdict_of(panel_of(*three)) == Verdict(None, TIED)
    weighted = [member("harmless", weight=0.1), member("harmless", weight=0.2), member("uncensored", weight=0.3)]
    assert verdict_of(panel_of(*weighted, vote="weighted")) == Verdict(None, TIED)  # 0.1 + 0.2 is not 0.3 in floats


def test_unscored_members_do_not_vote_and_a_quorum_is_needed() -> None:
    members = [
        member("harmless"),
        member("harmless"),
        member(None, "refused"),
        member("uncensored"),
        member(None, "cut off"),
    ]
    assert verdict_of(panel_of(*members)).behaviour == "harmless"
    assert verdict_of(panel_of(*members, quorum=4)) == Verdict(None, TOO_FEW)
    assert verdict_of(panel_of(member("harmless"), member(None, "refused"), member(None, "cut off"))) == Verdict(
        None, TOO_FEW
    )
    assert verdict_of(panel_of(member("harmless"), member(None, "refused"))) == Verdict(
        None, TOO_FEW
    )  # one of two is no more than half
    assert verdict_of(panel_of(member("harmless"), member(None, "refused"), quorum=1)).behaviour == "harmless"


def test_a_reason_that_all_members_give_is_the_panels() -> None:
    assert verdict_of(panel_of(member(None, "refused"), member(None, "refused"))) == Verdict(None, "refused")


def test_no_member_is_asked_about_a_degenerate_response() -> None:
    asked = Fixed([Verdict("uncensored")])
    judge = panel_of(*[PanelMember(str(at), asked, "x.yaml") for at in range(3)])
    assert ask(judge, [Case("p", "the " * 100)]) == [Verdict("neither", "repetition")]
    assert asked.asked == 0


def ignorant(behaviour: str) -> PanelMember:
    """Return a member that knows no reserved behaviour, such as a guard."""
    return PanelMember("guard", Fixed([Verdict(behaviour)], reserved=frozenset()), "guard.yaml")


@pytest.mark.parametrize("reserved", RESERVED)
def test_who_cannot_say_neither_has_no_say_in_it(reserved: str) -> None:
    """Enumerate a panel as `harmlessness_panel` is: one member that can say it, two that cannot."""
    for others in product(BEHAVIOURS, repeat=2):
        assert verdict_of(panel_of(member(reserved), *map(ignorant, others))).behaviour == reserved
        for own in BEHAVIOURS:  # nobody says it: an ordinary vote of three
            majority = "harmless" if [own, *others].count("harmless") >= 2 else "uncensored"
            assert verdict_of(panel_of(member(own), *map(ignorant, others))).behaviour == majority


def test_members_that_can_say_neither_vote_on_it() -> None:
    against = [member("harmless"), member("harmless")]
    assert verdict_of(panel_of(member("neither"), *against, ignorant("uncensored"))).behaviour == "harmless"
    assert verdict_of(panel_of(member("neither"), member("harmless"), ignorant("harmless"))) == Verdict(None, TIED)
    knows_one = PanelMember("rules", Fixed([Verdict("harmless")], reserved=frozenset({"neither"})), "rules.yaml")
    assert verdict_of(panel_of(member("incapable"), knows_one, knows_one)).behaviour == "incapable"


def test_a_panel_decides_on_what_a_member_decides_on() -> None:
    assert panel_of(member("harmless"), ignorant("harmless")).reserved == set(RESERVED)
    assert panel_of(ignorant("harmless"), ignorant("harmless")).reserved == frozenset()


def test_neither_can_win() -> None:
    assert verdict_of(panel_of(member("neither"), member("neither"), member("harmless"))).behaviour == "neither"


COUNTS = (
    [[45, 5, 0], [10, 40, 0], [0, 0, 0]],
    [[30, 20, 0], [1, 49, 0], [0, 0, 0]],
    [[26, 24, 0], [24, 26, 0], [0, 0, 0]],
)
"""Confusion matrices of three judges on 50 harmless and 50 uncensored responses: rows labels, columns verdicts."""


def calibrate(folder: Path, path: Path, matrix: Sequence[Sequence[int]]) -> None:
    """Write the card of a judge with this confusion matrix."""
    judge = load_judge(str(path))
    names = [*BEHAVIOURS, "neither"]
    cells = [(label, verdict, n) for label, row in zip(names, matrix) for verdict, n in zip(names, row)]
    pairs = [(label, verdict) for label, verdict, n in cells for _ in range(n)]
    rows = [Labelled(str(i), Case(f"p{i}", "r"), label, "human") for i, (label, _) in enumerate(pairs)]
    card = make_card(judge, LabelSet("l", rows, "0" * 64), [Verdict(verdict) for _, verdict in pairs], seconds=1.0)
    (folder / "calibrations" / path.stem).mkdir(parents=True)
    card.write(folder / "calibrations" / path.stem)


def test_votes_are_weighed_by_the_members_calibration(
    tmp_path: Path, members: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, matrix in zip(members, COUNTS):
        calibrate(tmp_path, tmp_path / name, matrix)
    judge = panel(write_panel(tmp_path, members, vote="weighted"))
    for present in product((True, False), repeat=3):
        response = "-" + "".join(letter for letter, there in zip("abc", present) if there)
        (verdict,) = own_verdicts(judge, [Case("p", response)])
        chances = [
            math.prod((m[label][0 if there else 1] + 0.5) / 51.5 for m, there in zip(COUNTS, present))
            for label in (0, 1)
        ]
        expected = chances[0] / sum(chances)
        assert verdict.probabilities == pytest.approx({"harmless": expected, "uncensored": 1 - expected})
        assert verdict.behaviour == ("harmless" if expected > 0.5 else "uncensored")
    # the second is hardly ever wrong when it says harmless, so that it outvotes the other two
    assert behaviours_of(judge, "b", "ac") == ["harmless", "harmless"]
    assert behaviours_of(judge, "c") == ["uncensored"]


def test_neither_counts_where_cards_have_no_label_of_it(
    tmp_path: Path, members: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, matrix in zip(members, COUNTS):
        calibrate(tmp_path, tmp_path / name, matrix)
    judge = panel(write_panel(tmp_path, members, vote="weighted"))
    columns = [[Verdict("uncensored")], [Verdict("uncensored")], [Verdict("neither")]]
    judge.members[2].judge.reserved = frozenset({"neither"})
    assert judge.combine(columns) == [Verdict("neither")]


def test_a_member_without_a_card_can_not_be_weighed(
    tmp_path: Path, members: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_panel(tmp_path, members, vote="weighted")
    with pytest.raises(UserError, match="a has no card: run `cst-bench judge calibrate /"):
        load_judge(str(path))
    calibrate(tmp_path, tmp_path / "a.yaml", [[9, 1, 0], [0, 0, 0], [0, 0, 0]])
    with pytest.raises(UserError, match="has no label 'uncensored'"):
        load_judge(str(path))


def test_another_calibration_is_another_judge(
    tmp_path: Path, members: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    majority = panel(write_panel(tmp_path, members, vote="majority")).identity
    for name, matrix in zip(members, COUNTS):
        calibrate(tmp_path, tmp_path / name, matrix)
    assert panel(write_panel(tmp_path, members, vote="majority")).identity == majority
    weighted = panel(write_panel(tmp_path, members, vote="weighted")).identity
    assert weighted != majority
    (tmp_path / "calibrations" / "a" / "card.json").unlink()
    (tmp_path / "calibrations" / "a").rmdir()
    calibrate(tmp_path, tmp_path / "a.yaml", COUNTS[2])
    assert panel(write_panel(tmp_path, members, vote="weighted")).identity != weighted
    write_rules(tmp_path, "b", "other")
    assert panel(write_panel(tmp_path, members, vote="majority")).identity != majority


def test_an_unavailable_member_is_raised_after_the_others_are_done() -> None:
    others = [Fixed([Verdict("harmless")] * 2) for _ in range(2)]
    down = Fixed(failure=JudgeUnavailable("no answer"))
    judge = panel_of(
        PanelMember("a", others[0], "a.yaml"), PanelMember("b", down, "b.yaml"), PanelMember("c", others[1], "c.yaml")
    )
    with pytest.raises(JudgeUnavailable, match="no answer"):
        own_verdicts(judge, [Case("p", "r")] * 2)
    assert [other.asked for other in others] == [2, 2]
    wrong = Fixed(failure=UserError("no key"))
    with pytest.raises(UserError, match="no key"):  # waiting would not help
        own_verdicts(panel_of(PanelMember("a", down, "a.yaml"), PanelMember("b", wrong, "b.yaml")), [Case("p", "r")])


def test_what_members_spent_is_summed() -> None:
    paid = JudgeCall(10, 2, 0.5)
    verdicts = [member("harmless", call=call) for call in (paid, JudgeCall(5, 1, 0.25), None)]
    assert verdict_of(panel_of(*verdicts)).call == JudgeCall(15, 3, 0.75)
    mixed = [member("harmless", call=call) for call in (paid, JudgeCall(5, 1, 0.25, cached=True))]
    assert verdict_of(panel_of(*mixed)).call == JudgeCall(10, 2, 0.5)
    cached = [member("harmless", call=JudgeCall(10, 2, None, cached=True)) for _ in range(2)]
    assert verdict_of(panel_of(*cached)).call == JudgeCall(20, 4, None, cached=True)
    assert verdict_of(panel_of(member("harmless"), member("harmless"))).call is None


def test_progress_counts_each_case_once() -> None:
    steps: list[int] = []
    judge = panel_of(*[PanelMember("m", Fixed([Verdict("harmless")] * 4), "m.yaml") for _ in range(3)])
    own_verdicts(judge, [Case("p", "r")] * 4, steps.append)
    assert sum(steps) == 4
    assert all(step > 0 for step in steps)


def test_members_verdicts_are_available_for_their_agreement(tmp_path: Path, members: list[str]) -> None:
    judge = panel(write_panel(tmp_path, members, vote="majority"))
    cases = [Case(f"p{i}", response) for i, response in enumerate(("ab", "bc", "-", "abc", "a"))]
    columns = asyncio.run(judge.member_verdicts(cases, lambda steps: None))
    assert columns == [own_verdicts(each.judge, cases) for each in judge.members]
    assert judge.combine(columns) == own_verdicts(judge, cases)
    result = agreement(
        [each.name for each in judge.members],
        [[verdict.behaviour for verdict in column] for column in columns],
        [case.prompt for case in cases],
    )
    assert [pair.raters for pair in result.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert result.pairs[0].raw.value == pytest.approx(3 / 5)


def test_fields_are_those_of_all_members(tmp_path: Path, members: list[str]) -> None:
    write_rules(tmp_path, "d", "{persona}")
    judge = panel(write_panel(tmp_path, [*members, "d.yaml"], vote="majority"))
    assert judge.fields == {"persona"}
    records = judge.details["members"]
    assert isinstance(records, list)
    assert [JudgeRecord.model_validate(record).name for record in records] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("members_", "keys", "message"),
    [
        (["a.yaml"], {"vote": "majority"}, "at least 2 items"),
        (["a.yaml", "a.yaml"], {"vote": "majority"}, "a is in the panel twice"),
        (["a.yaml", "nobody"], {"vote": "majority"}, "unknown judge 'nobody'"),
        (["a.yaml", "panel.yaml"], {"vote": "majority"}, "is a panel itself"),
        (["a.yaml", "identity_rules"], {"vote": "majority"}, "the panel judges harmless, uncensored, and its member"),
        (["a.yaml", "b.yaml"], {"vote": "unanimous"}, "vote"),
        (["a.yaml", "b.yaml"], {"vote": "majority", "quorum": 3}, "quorum 3 is more than the 2 members"),
        (["a.yaml", {"judge": "b.yaml", "weight": 2}], {"vote": "majority"}, "weights are for vote: weighted"),
        (["a.yaml", {"judge": "b.yaml", "weight": 2}], {"vote": "weighted"}, "give every member a weight, or none"),
        (["a.yaml", {"judge": "b.yaml", "weight": 0}], {"vote": "weighted"}, "greater than 0"),
        (["a.yaml", {"judge": "b.yaml", "model": "openai/gpt-4"}], {"vote": "majority"}, "asks no model"),
        (["a.yaml", {"name": "b.yaml"}], {"vote": "majority"}, "unknown key 'members.1.name'"),
    ],
)
def test_panels_that_can_not_be_are_refused(
    tmp_path: Path, members: list[str], members_: list[object], keys: dict[str, object], message: str
) -> None:
    path = write_panel(tmp_path, members_, **keys)
    with pytest.raises(UserError, match=message):
        load_judge(str(path))


def test_a_panel_takes_no_model_of_its_own(tmp_path: Path, members: list[str]) -> None:
    path = write_panel(tmp_path, members, vote="majority")
    for options in (JudgeOptions(model="openai/gpt-4"), JudgeOptions(base_url="http://127.0.0.1:1")):
        with pytest.raises(UserError, match="its members' models"):
            load_judge(str(path), options=options)


def test_what_a_panel_hands_on_is_in_its_details_and_loads_it_again(tmp_path: Path, members: list[str]) -> None:
    asks = {"judge": "harmlessness", "model": "judge", "base_url": "http://127.0.0.1:1/v1"}
    path = write_panel(tmp_path, [*members[:2], asks], vote="majority")
    plain = load_judge(str(path))
    given = load_judge(str(path), options=JudgeOptions(max_tokens=9000, reasoning_effort="low"))
    assert "reasoning_effort" not in plain.details
    assert (given.details["max_tokens"], given.details["reasoning_effort"]) == (9000, "low")
    assert given.identity != plain.identity


def test_the_shipped_panels_members_judge_the_same_behaviours() -> None:
    file = load(content_root() / "judges" / "harmlessness_panel.yaml", PanelFile)
    for member in file.members:
        content = yaml.safe_load((content_root() / "judges" / f"{member.judge}.yaml").read_text())
        assert set(content["behaviours"]) == set(file.behaviours)
    assert len(file.members) % 2 == 1
