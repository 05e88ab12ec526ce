"""Mixes: weights, tasks and columns of several sources."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from cst_bench.compliance.compliance_task import load_task
from cst_bench.compliance.data import load_prompts
from cst_bench.errors import UserError
from cst_bench.preferences import read_training_rows
from cst_bench.preferences.mixing import MixSource, mix
from tests.cli.invoke import invoke
from tests.test_published_data import DATA


def source(folder: Path, name: str, n: int, **columns: str) -> Path:
    path = folder / f"{name}.jsonl"
    names = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", **columns}
    rows = [{names[key]: f"{name} {key} {i}" for key in ("prompt", "chosen", "rejected")} for i in range(n)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_a_weight_is_a_share_or_a_number_of_copies(tmp_path: Path) -> None:
    first, second = source(tmp_path, "one", 10), source(tmp_path, "two", 8)
    result = mix([MixSource(str(first), 0.5), MixSource(str(second), 2.25)], seed=1)
    assert result.by_source == {str(first): 5, str(second): 18}
    assert result.by_task == {"one": 5, "two": 18}
    assert result.repeated == 10
    copies = Counter(row.prompt for row in result.rows if row.task == "two")
    assert sorted(copies.values()) == [2] * 6 + [3] * 2
    assert mix([MixSource(str(first), 0.5), MixSource(str(second), 2.25)], seed=1) == result
    assert mix([MixSource(str(first), 0.5), MixSource(str(second), 2.25)], seed=2).rows != result.rows


def test_a_task_column_is_kept_and_columns_can_be_named(tmp_path: Path) -> None:
    path = source(tmp_path, "x", 2, chosen="good", rejected="bad")
    with pytest.raises(UserError, match=r"no column for chosen .* among prompt, good, bad"):
        mix([MixSource(str(path))])
    result = mix([MixSource(str(path), columns={"chosen": "good", "rejected": "bad"}, task="mine")])
    assert result.by_task == {"mine": 2}
    with pytest.raises(UserError, match="no column 'goood': did you mean good"):
        mix([MixSource(str(path), columns={"chosen": "goood", "rejected": "bad"})])
    with pytest.raises(UserError, match="unknown column 'chose': did you mean chosen"):
        mix([MixSource(str(path), columns={"chose": "good"})])


def test_a_weight_that_makes_more_rows_than_fit_in_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    with pytest.raises(UserError, match=r"1e\+12 rows, more than 10,000,000: give a smaller weight"):
        mix([MixSource(str(path), 1e12)])


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_must_be_above_zero(weight: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="weight must be a number above 0"):
        mix([MixSource(str(source(tmp_path, "one", 3)), weight)])


def test_a_hub_data_set_that_could_not_be_loaded_is_one_message() -> None:
    with pytest.raises(UserError, match=r"could not load data set jondurbin/truthy-dpo-v0\.1 from the Hub"):
        mix([MixSource("jondurbin/truthy-dpo-v0.1")])


def test_the_verb_writes_one_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, out = source(tmp_path, "one", 4), source(tmp_path, "two", 4), tmp_path / "mixed.jsonl"
    done = invoke(capsys, monkeypatch, "data", "mix", str(first), f"{second}=0.5", "--out", str(out))
    assert done.status == 0
    assert "6 rows" in done.err
    assert Counter(row.task for row in read_training_rows(out)) == {"one": 4, "two": 2}
    bad = invoke(capsys, monkeypatch, "data", "mix", f"{second}=many", "--out", str(tmp_path / "no.jsonl"))
    assert (bad.status, (tmp_path / "no.jsonl").exists()) == (2, False)
    assert "is not a weight" in bad.err


@pytest.mark.skipif(not DATA.is_dir(), reason="the published data is not at hand")
def test_the_released_file_loads_as_it_is() -> None:
    result = mix([MixSource(str(DATA / "configurable-system-prompt-multitask.json"))])
    assert result.by_task == {"harmless": 936, "truthfulness": 1016}


def test_rows_of_test_prompts_can_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, path = load_task("tiny_sealed")
    prompts = {name: load_prompts(task, path, split=name).prompts[:3] for name in ("test", "train")}
    rows = [
        {"prompt": prompt.text.upper(), "chosen": "a", "rejected": "b"} for some in prompts.values() for prompt in some
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    out = tmp_path / "mixed.jsonl"
    mixing = ("data", "mix", str(source), "--without-held-out", f"{source}=tiny_sealed", "--out", str(out))
    done = invoke(capsys, monkeypatch, *mixing)
    assert done.status == 0
    assert f"left out of {source}, held-out prompts: 3" in " ".join(done.err.split())
    assert {row.prompt for row in read_training_rows(out)} == {prompt.text.upper() for prompt in prompts["train"]}
    source.write_text("".join(f"{json.dumps(row)}\n" for row in rows[:3]))
    done = invoke(capsys, monkeypatch, *mixing)
    assert done.status == 2
    assert "all its rows have held-out prompts" in " ".join(done.err.split())
    done = invoke(capsys, monkeypatch, *mixing, "--without-held-out", "other.jsonl=tiny_sealed")
    assert (done.status, "other.jsonl is not a source of this mix" in done.err) == (2, True)


def test_the_part_of_a_source_does_not_depend_on_the_others(tmp_path: Path) -> None:
    part, others = source(tmp_path, "part", 20), [source(tmp_path, name, 9) for name in ("a", "b")]
    drawn = [
        {
            row.prompt
            for row in mix([MixSource(str(other), weight), MixSource(str(part), 0.3)]).rows
            if row.task == "part"
        }
        for other, weight in zip(others, (1.0, 0.5))
    ]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 6
