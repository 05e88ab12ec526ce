"""Labels by people: blind, random, resumable, and in the scores once the run is judged again."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from cst_bench.errors import UserError
from cst_bench.judging.find import find_judge, load_judge, read_judge_file
from cst_bench.record import Outcomes, Scores
from cst_bench.runs import JudgeRunOptions, RunOptions, judge_run, run
from cst_bench.runs.label_file import add_label, answered, labeller_agreement, read_run_labels
from cst_bench.runs.label_strata import LabelStrata, read_strata
from cst_bench.runs.labelling import choose, import_labels
from cst_bench.runs.run_folder import read_folder
from tests.cli.invoke import command, invoke


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "run"
    run(RunOptions(tasks=("tiny_sealed",), limit=25, out=folder))
    return folder


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("village") / "run"
    run(RunOptions(tasks=("tiny_village",), limit=3, out=folder))
    return folder


@pytest.fixture
def finished(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def test_the_draw_is_random_the_same_each_time_and_as_large_for_each_configuration(finished: Path) -> None:
    order = [one.key for one in choose(finished)]
    assert len(order) == len(set(order)) == 50
    assert order == [one.key for one in choose(finished)]
    assert order != [one.key for one in choose(finished, seed=1)]
    smaller, larger = ({one.key for one in choose(finished, n=n)} for n in (12, 20))
    assert smaller < larger
    assert Counter(key[2] for key in larger) == {"S1": 10, "S0": 10}
    assert len({first[2] == second[2] for first, second in pairwise(order)}) == 2  # it tells no configuration
    assert [key[1] for key in order] != sorted(key[1] for key in order)


def test_each_class_of_verdict_has_labels_and_the_strata_stay_when_the_verdicts_change(
    finished: Path, tmp_path: Path
) -> None:
    drawn = {one.key for one in choose(finished, n=24)}
    strata = read_strata(read_folder(finished))
    behaviours = Outcomes.read(finished).compliance["tiny_sealed"]
    asked = {"S1": "harmless", "S0": "uncensored"}
    assert strata == {
        ("tiny_sealed", prompt, name): "yes" if behaviour == asked[name] else "no"
        for name in asked
        for prompt, behaviour in behaviours[name].items()
    }
    for name in asked:
        sizes = Counter(stratum for key, stratum in strata.items() if key[2] == name)
        labels = Counter(strata[key] for key in drawn if key[2] == name)
        assert all(labels[stratum] >= min(size, 5) for stratum, size in sizes.items())
    judge = tmp_path / "other.yaml"
    judge.write_text(
        "name: other\nversion: 1\nkind: rules\ndescription: Says of all that they are harmless.\n"
        "behaviours: [harmless, uncensored]\nrules: []\notherwise: harmless\n"
    )
    judge_run(JudgeRunOptions(finished, judges=(str(judge),)))
    assert Outcomes.read(finished).compliance["tiny_sealed"] != behaviours
    assert {one.key for one in choose(finished, n=24)} == drawn
    assert read_strata(read_folder(finished)) == strata


def test_what_is_shown_holds_no_verdict_and_what_is_kept_no_text(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = iter("12us3q")
    monkeypatch.setattr("click.getchar", lambda: next(keys))
    done = invoke(capsys, monkeypatch, "judge", "label", str(finished), "--n", "6", "--labeller", "anna")
    assert done.status == 0
    chosen = choose(finished, n=6)
    rows = [json.loads(line) for line in (finished / "labels.jsonl").read_text().splitlines()]
    assert [(row["behaviour"], row["by"]) for row in rows] == [
        ("harmless", "anna"),
        (None, "anna"),
        ("neither", "anna"),
    ]
    assert [row["prompt_id"] for row in rows] == [one.key[1] for one in chosen[:3]]
    assert "3 of 6 left" in done.out
    file = read_judge_file(find_judge("tiny_sealed"))
    shown = " ".join(done.out.split())
    for key, name in enumerate(("harmless", "uncensored", "neither", "incapable"), 1):
        assert f"{key} {name}: {file.definitions[name]}" in shown
    kept = (finished / "labels.jsonl").read_text()
    assert not any(one.response in kept for one in chosen)
    assert len(answered(finished, "anna")) == 3
    again = iter("q")
    monkeypatch.setattr("click.getchar", lambda: next(again))
    arguments = ("judge", "label", str(finished), "--n", "6")
    assert "4 of 6" in invoke(capsys, monkeypatch, *arguments, "--labeller", "anna").out


def test_a_labeller_sees_what_the_judge_sees_and_not_the_configuration(
    village: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    responses = choose(village)
    keys = iter("1" * len(responses))
    monkeypatch.setattr("click.getchar", lambda: next(keys))
    shown = invoke(capsys, monkeypatch, "judge", "label", str(village)).out.partition("1 of 6")[2]
    assert all(set(one.fields) == {"name", "trade", "trait", "sense", "thing"} for one in responses)
    assert all(f"─ {name} ─" in shown and value in shown for one in responses for name, value in one.fields.items())
    by_prompt = {one.key[1]: one.fields for one in responses}
    assert all(one.fields == by_prompt[one.key[1]] for one in responses)  # the same under every configuration
    assert "S_RP" not in shown
    assert "S_A" not in shown
    assert "You are" not in shown  # how both system prompts begin
    assert json.loads((village / "labels.jsonl").read_text().splitlines()[0])["by"] is None


def test_the_definitions_of_language_model_judges_are_those_of_their_prompt() -> None:
    persona = read_judge_file(find_judge("persona"))
    assert set(persona.meanings()) == {"in_persona", "as_assistant", "neither"}
    assert persona.incapable is False
    assert set(read_judge_file(find_judge("harmlessness")).meanings()) == {
        "harmless",
        "uncensored",
        "neither",
        "incapable",
    }


def test_definitions_are_of_known_labels_and_have_one_home(tmp_path: Path) -> None:
    rules = "name: mine\nversion: 1\nkind: rules\ndescription: d\nbehaviours: [a, b]\nrules: []\notherwise: a\n"
    path = tmp_path / "mine.yaml"
    path.write_text(f"{rules}definitions: {{c: the response does c}}\n")
    with pytest.raises(UserError, match="definitions: 'c' is not among"):
        read_judge_file(path)
    path.write_text(rules)
    plain = load_judge(str(path)).identity
    path.write_text(f"{rules}definitions: {{a: the response does a}}\n")
    assert load_judge(str(path)).identity == plain  # cards and verdicts stay those of this judge
    path.write_text(f"{find_judge('persona').read_text()}definitions: {{in_persona: another meaning}}\n")
    with pytest.raises(UserError, match="kind llm has the meanings in behaviours"):
        read_judge_file(path)


def test_the_definitions_are_those_of_the_task_whoever_judges(finished: Path) -> None:
    before = choose(finished, n=1)[0]
    judge_run(JudgeRunOptions(finished, judges=("refusal_rules",)))
    assert choose(finished, n=1)[0].definitions == before.definitions
    assert before.behaviours == ("harmless", "uncensored", "neither", "incapable")


def test_undo_takes_back_the_labellers_own_label(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for labeller, typed in (("anna", "11q"), ("bo", "uq"), ("anna", "uq")):
        keys = iter(typed)
        monkeypatch.setattr("click.getchar", lambda keys=keys: next(keys))
        arguments = ("judge", "label", str(finished), "--n", "4", "--labeller", labeller)
        assert invoke(capsys, monkeypatch, *arguments).status == 0
    assert (len(answered(finished, "anna")), len(answered(finished, "bo"))) == (1, 0)


def test_two_labellers_have_their_agreement_shown_and_later_rows_of_each_win(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = choose(finished, n=30)
    for number, one in enumerate(chosen):
        add_label(finished, one, "uncensored", "anna")
        add_label(finished, one, "harmless" if number < 15 else "neither", "anna")
    for number, one in enumerate(choose(finished, n=20)):
        add_label(finished, one, None if number == 0 else "harmless", "bo")
    votes = read_run_labels(finished).votes
    assert votes[choose(finished, n=20)[0].key] in {("harmless", None), ("neither", None)}
    assert sum(len(vote) == 2 for vote in votes.values()) == 20
    agreement = labeller_agreement(finished)["tiny_sealed"]
    assert agreement.n == 19  # one of the 20 is unsure
    agreed = sum(vote == ("harmless", "harmless") for vote in votes.values())
    assert agreement.pairs[0].raw.value == pytest.approx(agreed / 19)
    keys = iter("q")
    monkeypatch.setattr("click.getchar", lambda: next(keys))
    done = invoke(capsys, monkeypatch, "judge", "label", str(finished), "--n", "20", "--labeller", "cleo")
    assert "anna and bo" in " ".join(done.out.split())
    assert f"{agreed / 19:.2f}" in done.out


def test_labels_of_other_responses_are_refused_before_a_judge_is_asked(finished: Path) -> None:
    for one in choose(finished, n=4):
        add_label(finished, one, "harmless", "anna")
    path = finished / "labels.jsonl"
    kept = path.read_text()
    rows = [json.loads(line) for line in kept.splitlines()]
    for change in ({"response_sha256": "0" * 64}, {"prompt_id": "another"}, {"task": "another"}):
        path.write_text("".join(f"{json.dumps(row)}\n" for row in [*rows[:3], {**rows[3], **change}]))
        before = (finished / "run.json").read_bytes()
        with pytest.raises(UserError, match="1 of 4 labels are of other responses than this run's"):
            judge_run(JudgeRunOptions(finished, judges=("refusal_rules",)))
        assert (finished / "run.json").read_bytes() == before
    path.write_text(kept)
    judge_run(JudgeRunOptions(finished, judges=("refusal_rules",)))


def test_a_run_judged_again_has_its_scores_corrected_by_the_labels(finished: Path) -> None:
    before = Scores.read(finished).compliance["tiny_sealed"].configurations
    for one in choose(finished, n=40):
        add_label(finished, one, "harmless", "anna")
    scores = judge_run(JudgeRunOptions(finished)).scores.compliance["tiny_sealed"].configurations
    assert scores["S1"].score == before["S1"].score
    s1, s0 = scores["S1"].corrected, scores["S0"].corrected
    assert s1 is not None
    assert s0 is not None
    assert (s1.method, s1.labelled, s1.unsure, s1.score) == ("ppi++", 20, 0, 1.0)
    assert s0.score == 0.0
    assert s0.interval is not None
    assert s0.interval[1] < 0.35
    assert "ppi++" in (finished / "report.md").read_text()


def test_labels_can_be_given_elsewhere(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "todo.jsonl"
    assert invoke(capsys, monkeypatch, "judge", "label", str(finished), "--n", "4", "--export", str(out)).status == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert all("verdict" not in row and row["behaviour"] == "" for row in rows)
    assert rows[0]["definitions"]["harmless"]
    assert set(rows[0]["fields"]) == {"verb", "adjective", "noun", "tool", "when"}
    rows[0]["behaviour"], rows[2]["behaviour"], rows[3]["behaviour"] = "harmless", "neither", "unsure"
    out.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    done = invoke(capsys, monkeypatch, "judge", "label", str(finished), "--import", str(out), "--labeller", "bo")
    assert "3 labels imported" in done.out
    votes = read_run_labels(finished).votes
    assert Counter(votes.values()) == {("harmless",): 1, ("neither",): 1, (None,): 1}
    for change, message in [
        ({"behaviour": "lovely"}, "'lovely' is not one of harmless, uncensored, neither"),
        ({"behaviour": "harmless", "response": "another"}, "its response differs from the one of this run"),
        ({"behaviour": "harmless", "prompt_id": "0"}, "this run has no response tiny_sealed, 0"),
    ]:
        out.write_text(json.dumps({**rows[1], **change}))
        with pytest.raises(UserError, match=message):
            import_labels(finished, out, "bo")
    assert read_run_labels(finished).votes == votes


def test_the_plan_says_how_many(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = invoke(capsys, monkeypatch, "judge", "label", str(finished), "--plan", "--width", "0.2")
    assert done.status == 0
    assert "S1" in done.out
    assert not (finished / "labels.jsonl").exists()
    assert not (finished / LabelStrata.FILE_NAME).exists()
    keys = iter("q")
    monkeypatch.setattr("click.getchar", lambda: next(keys))
    shown = invoke(capsys, monkeypatch, "judge", "label", str(finished), "--n", "44").out
    assert "±0." in shown.partition("1 of 44")[0]


def test_without_a_terminal_there_is_one_message(finished: Path) -> None:
    done = subprocess.run(
        command("judge", "label", str(finished), "--n", "2"),
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # without a controlling terminal
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--export" in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_input_is_one_message(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        choose(tmp_path)
    with pytest.raises(UserError, match="did you mean tiny_sealed"):
        choose(finished, tasks=("tiny_seald",))
    (finished / "labels.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"labels\.jsonl:1 is damaged: task: .*not a label"):
        read_run_labels(finished)
    choose(finished)
    kept = json.loads((finished / LabelStrata.FILE_NAME).read_text())
    kept["strata"]["tiny_sealed"]["S1"]["classes"] = {"another": "yes"}
    (finished / LabelStrata.FILE_NAME).write_text(json.dumps(kept))
    with pytest.raises(UserError, match=r"label_strata\.json is of other responses"):
        choose(finished)
