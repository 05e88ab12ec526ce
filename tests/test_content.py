"""Content files: everything shipped is valid, and each fault in a file of one's own is one message that finds it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from cst_bench import content
from cst_bench.capabilities import load_capability
from cst_bench.compliance.compliance_task import ComplianceTask, load_task
from cst_bench.errors import UserError
from cst_bench.judging import find_judge, load_judge, read_judge_file
from cst_bench.judging.rules import RulesFile
from cst_bench.reproduce.steps import Reproduction
from cst_bench.runs.suite import load_suite

JUDGE = """\
name: mine
version: 1
kind: rules
description: A test.
behaviours: [yes_, no_]
rules:
  - behaviour: yes_
    when: {contains: "yes"}
"""

TASK = """\
name: mine
version: 1
title: Mine
description: A test.
source: made up
judge: refusal_rules
wording: only
configurations:
  S1:
    behaviour: harmless
    wordings:
      only:
        system: Be careful.
        source: made up
generation:
  max_tokens: 4
data:
  file: rows.jsonl
  splits:
    test: {where: {split: test}}
"""


def fault(tmp_path: Path, text: str | bytes, schema: type[content.Content] = RulesFile) -> str:
    """Return the message for a file, without the path it begins with."""
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        content.load(path, schema)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


@pytest.mark.parametrize("name", content.names("tasks/compliance"))
def test_shipped_compliance_task_loads_with_its_judge_which_knows_every_behaviour_asked_for(name: str) -> None:
    task, path = load_task(name)
    assert task.name == name
    judge = read_judge_file(find_judge(task.judge, beside=path))
    assert set(task.asked.values()) <= set(judge.behaviours)
    assert task.version in task.changelog


@pytest.mark.parametrize("name", content.names("judges"))
def test_shipped_judge_loads(name: str) -> None:
    assert read_judge_file(find_judge(name)).name == name


@pytest.mark.parametrize("name", content.names("tasks/capabilities"))
def test_shipped_capability_task_loads(name: str) -> None:
    assert load_capability(name)[0].name == name


@pytest.mark.parametrize("name", content.names("tasks/suites"))
def test_shipped_suite_loads_and_names_tasks_that_are_there(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name
    configurations = {c for task in suite.compliance for c in load_task(task)[0].configurations}
    assert set(suite.average) <= configurations
    for task in suite.capabilities:
        load_capability(task)


def test_no_shipped_yaml_is_left_out_of_these_tests() -> None:
    root = content.content_root()
    # attack suites are loaded in tests/calibration/test_attack.py, label sets in test_label_sets.py beside it, starters
    # in tests/test_starters.py
    here = ("tasks/compliance", "tasks/capabilities", "tasks/suites", "judges")
    folders = (*here, "judges/attacks", "judges/label_sets", "tasks/starter", "judges/starter")
    tested = {path for folder in folders for path in (root / folder).glob("*.yaml")}
    lm_eval = set((root / "tasks/capabilities/tiny").glob("*.yaml"))  # lm-eval's own format, read by lm-eval
    assert {path for folder in ("tasks", "judges") for path in (root / folder).rglob("*.yaml")} == tested | lm_eval


@pytest.mark.parametrize(
    ("text", "line", "key", "nearest"),
    [
        (JUDGE + "ignore_cases: true\n", 9, "ignore_cases", "ignore_case"),
        (JUDGE.replace("contains", "contain"), 8, "rules.0.when.contain", "contains"),
        (JUDGE.replace('contains: "yes"', "any: [{matchs: a}]"), 8, "rules.0.when.any.0.matchs", "matches"),
        (JUDGE.replace('contains: "yes"', "not: {al: []}"), 8, "rules.0.when.not.al", "all"),
        (JUDGE.replace("- behaviour: yes_", "- behaviour: yes_\n    wen: 1"), 8, "rules.0.wen", "when"),
    ],
)
def test_unknown_key_gives_line_key_and_the_nearest(
    tmp_path: Path, text: str, line: int, key: str, nearest: str
) -> None:
    message = fault(tmp_path, text)
    assert message.startswith(f":{line}: unknown key '{key}': did you mean ")
    assert nearest in message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("        system: Be", "        sytem: Be", ":13: unknown key 'configurations.S1.wordings.only.sytem'"),
        ("max_tokens: 4", "max_token: 4", ":16: unknown key 'generation.max_token': did you mean max_tokens?"),
        ("{where:", "{were:", ":20: unknown key 'data.splits.test.were': did you mean where?"),
    ],
)
def test_unknown_key_deep_in_mappings_of_free_names(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert fault(tmp_path, TASK.replace(old, new), ComplianceTask).startswith(message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  splits:", "  divisions:", ":19: key 'data.divisions' is now called 'splits'"),
        ("  file: rows.jsonl", "  hub: a/b\n  split: test", ":19: key 'data.split' is now called 'hub_split'"),
    ],
)
def test_renamed_key_gives_its_present_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert fault(tmp_path, TASK.replace(old, new), ComplianceTask) == message


def test_renamed_keys_of_a_reproduction_give_their_present_names(tmp_path: Path) -> None:
    text = content.find("training/reproductions", "tiny", "reproduction").read_text(encoding="utf-8")
    assert "key 'arms' is now called 'variants'" in fault(
        tmp_path, text.replace("\nvariants:", "\narms:"), Reproduction
    )
    message = fault(tmp_path, text.replace("], variants: [", "], arms: ["), Reproduction)
    assert "key 'sets.sealed.arms' is now called 'variants'" in message


def test_a_former_name_means_nothing_where_its_present_one_is_unknown(tmp_path: Path) -> None:
    assert fault(tmp_path, JUDGE + "arms: 1\n").startswith(":9: unknown key 'arms': ")


def test_missing_key(tmp_path: Path) -> None:
    assert fault(tmp_path, JUDGE.replace("kind: rules\n", "")) == ": key 'kind' is missing"
    text = JUDGE.replace('    when: {contains: "yes"}\n', "")
    assert fault(tmp_path, text) == ":7: key 'rules.0.when' is missing"


def test_wrong_type_gives_line_key_and_what_was_given(tmp_path: Path) -> None:
    message = fault(tmp_path, JUDGE.replace("version: 1", "version: one"))
    assert message.startswith(":2: version: ")
    assert message.endswith("(given: 'one')")


def test_wrong_type_is_told_by_the_files_own_keys(tmp_path: Path) -> None:
    assert fault(tmp_path, JUDGE.replace('"yes"', "5")).startswith(":8: rules.0.when.contains: ")
    assert fault(tmp_path, JUDGE + "changelog:\n  1: a\n  2: 5\n").startswith(":11: changelog.2: ")
    assert fault(tmp_path, JUDGE + "changelog:\n  1: a\n  b: c\n").startswith(":11: changelog.b: ")


def test_key_given_twice_gives_both_lines(tmp_path: Path) -> None:
    assert fault(tmp_path, JUDGE + "name: again\n") == ":9: key 'name' given twice (first on line 1)"
    text = JUDGE.replace('{contains: "yes"}', "{contains: a, contains: b}")
    assert fault(tmp_path, text) == ":8: key 'contains' given twice (first on line 8)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [a\nb: c\n", ":2: not valid YAML: "),
        ("a: 1\n\tb: 2\n", ":2: not valid YAML: "),
        ("a: 1\n---\nb: 2\n", ":2: not valid YAML: "),
        ("a: &x [*x]\n", ": not valid YAML: "),
        ("a: *b\n", ":1: not valid YAML: "),
        ('a: "\x00"\n', ": not valid YAML: "),
        ("name: 2024-13-45\n", ": not valid YAML: month"),
        ("a: 1\nname: !!python/object:os.system {}\n", ":2: not valid YAML: "),
        ("a: 1\nname: {{x}}\n", ":2: a key must be text"),
        ("a: !!binary aGVsbG8=\n", ":1: not valid YAML: a value with the tag tag:yaml.org,2002:binary"),
        ('a: 1\nname: "\\ud800"\n', ":2: holds half of a character"),
        ("a: 1\nname: 1234567890123456789\n", ":2: a number of more than 18 digits"),
        (
            "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}]\n" for p, n in pairwise("abcdefghijklmnopqrst")),
            ": more than 100,000",
        ),
        ("a: {x: 1}\n" + "# text\n" * 2**18, ": 1,835,018 characters, more than 1,048,576"),
        ("[a]: b\n", ":1: a key must be text"),
        (b"name: \xff\n", ": not UTF-8 text (byte 6)"),
        ("", ": must be a mapping"),
        ("# nothing\n", ": must be a mapping"),
        ("- a\n- b\n", ": must be a mapping"),
        ("text\n", ": must be a mapping"),
    ],
)
def test_broken_file_is_one_message(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert fault(tmp_path, text).startswith(message)


def test_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + JUDGE.encode())
    assert content.load(path, RulesFile).name == "mine"


def test_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown compliance task 'tiny_seeled': did you mean tiny_sealed"):
        load_task("tiny_seeled")
    with pytest.raises(UserError, match=r"unknown judge 'zzz': known: .*identity_rules.*tiny_village"):
        load_judge("zzz")


def test_names_leave_their_folder_by_a_path_only() -> None:
    with pytest.raises(UserError, match="judge file not found"):
        load_judge("../tasks/compliance/tiny_sealed")


def test_a_path_to_a_file_of_ones_own_works_where_a_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text(JUDGE)
    (tmp_path / "mine.yml").write_text(JUDGE)
    monkeypatch.chdir(tmp_path)
    for name in ("mine.yaml", "./mine.yaml", "mine.yml", str(tmp_path / "mine.yaml")):
        assert load_judge(name).name == "mine"
    with pytest.raises(UserError, match=r"judge file not found: \./other\.yaml"):
        load_judge("./other.yaml")


def test_content_cannot_be_changed() -> None:
    task, _ = load_task("tiny_sealed")
    with pytest.raises(ValueError, match="frozen"):
        task.version = 2
