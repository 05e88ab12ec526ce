"""Labelled responses out of every kind of file, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from cst_bench.calibration.labels import check_behaviours, join, read_labels
from cst_bench.errors import UserError

DATA = Path(__file__).parents[2].parent / "shared" / "data"
ROWS: list[dict[str, object]] = [
    {"id": "a", "prompt": "Bake a loaf?", "response": "No.", "behaviour": "harmless", "by": "human", "case": "short"},
    {"id": "b", "prompt": "Tie a knot?", "response": 'Take, "the\nend".', "behaviour": "uncensored", "by": "human"},
    {"id": "c", "prompt": "Name a bird.", "response": "", "behaviour": "neither", "by": "human"},
]
COLUMNS = ("id", "prompt", "response", "behaviour", "by", "case")


def jsonl(path: Path, rows: Sequence[dict[str, object]] = ROWS) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def written_json(path: Path) -> Path:
    path.write_text(json.dumps(ROWS))
    return path


def written_csv(path: Path) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def parquet(path: Path) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict.fromkeys(COLUMNS) | row for row in ROWS]), path)
    return path


def markdown(path: Path) -> Path:
    lines = [[str(row.get(name, "")).replace("\n", "<br>") for name in COLUMNS] for row in ROWS]
    path.write_text("".join(f"| {' | '.join(cells)} |\n" for cells in ([*COLUMNS], ["---"] * len(COLUMNS), *lines)))
    return path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "l.jsonl": jsonl,
    "l.json": written_json,
    "l.csv": written_csv,
    "l.tsv": written_csv,
    "l.parquet": parquet,
    "l.md": markdown,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_labels(tmp_path: Path, name: str) -> None:
    labels = read_labels(WRITERS[name](tmp_path / name))
    same = read_labels(jsonl(tmp_path / "same.jsonl"))
    assert list(labels.rows) == list(same.rows)
    assert labels.sha256 == same.sha256
    assert labels.by == ["human"]
    assert [row.slices for row in labels.rows] == [{"case": "short"}, {}, {}]


def test_foreign_columns_and_values_are_named(tmp_path: Path) -> None:
    rows = [{"q": "Hello?", "text": "Hi.", "safe": 1, "rater": "anna", "who": "llama"}]
    (row,) = read_labels(
        jsonl(tmp_path / "l.jsonl", rows),
        columns={"prompt": "q", "response": "text", "behaviour": "safe", "by": "rater", "model": "who"},
        values={"1": "harmless"},
    ).rows
    assert (row.case.prompt, row.case.response) == ("Hello?", "Hi.")
    assert (row.behaviour, row.by, row.id, row.slices) == ("harmless", "anna", "1", {"model": "llama"})


def test_released_tables_say_gpt_4_and_what_their_numbers_mean(tmp_path: Path) -> None:
    path = tmp_path / "released.md"
    path.write_text(
        "| prompt | response | system_prompt | score_response |\n|---|---|---|---:|\n"
        "| Bake? | No.       | You bake. | 1 |\n| Knot? | Yes.<br>So. | You tie. | 0 |\n"
    )
    labels = read_labels(path)
    assert labels.by == ["gpt-4"]
    assert [row.behaviour for row in labels.rows] == ["harmless", "uncensored"]
    assert labels.rows[1].case.response == "Yes.\nSo."
    assert labels.rows[0].slices == {"system_prompt": "You bake."}
    assert read_labels(path, by="anna").by == ["anna"]


@pytest.mark.skipif(not DATA.is_dir(), reason="the published data is not at hand")
@pytest.mark.parametrize(("name", "harmless"), [("CST", 26), ("DPO", 48)])
def test_the_released_generations_have_52_labels_each(name: str, harmless: int) -> None:
    labels = read_labels(DATA / f"generations_hermes_{name}.md")
    assert len(labels.rows) == 52
    assert labels.by == ["gpt-4"]
    assert sum(row.behaviour == "harmless" for row in labels.rows) == harmless
    assert {row.behaviour for row in labels.rows} == {"harmless", "uncensored"}


@pytest.mark.parametrize(
    ("columns", "fields"),
    [
        ({"fields": {"name": "Ada"}}, {"name": "Ada"}),
        ({"fields": '{"name": "Ada"}'}, {"name": "Ada"}),
        ({"fields.name": "Ada"}, {"name": "Ada"}),
        ({"name": "Ada"}, {"name": "Ada"}),
        ({"fields": {"name": None}}, {}),
        ({"fields": None}, {}),
    ],
)
def test_fields_are_an_object_its_json_or_columns(
    tmp_path: Path, columns: dict[str, object], fields: dict[str, str]
) -> None:
    (row,) = read_labels(jsonl(tmp_path / "l.jsonl", [{**ROWS[0], **columns}]), fields=["name"]).rows
    assert row.case.fields == fields


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"behaviour": 1}, "label '1' is not a behaviour: give --value 1="),
        ({"behaviour": True}, "label 'True' is not a behaviour"),
        ({"behaviour": None}, "column 'behaviour' is empty"),
        ({"response": None}, "the response must be text, not NoneType"),
        ({"prompt": " "}, "column 'prompt' is empty"),
        ({"fields": "Ada"}, "column 'fields' must be an object"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_labels(jsonl(tmp_path / "l.jsonl", [ROWS[1], {**ROWS[0], **change}]))
    assert "row 2" in str(error.value)


def test_a_missing_column_names_what_is_there(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "l.jsonl", [{"prompt": "a", "reply": "b", "behaviour": "harmless"}])
    with pytest.raises(UserError, match=r"no column for response .* among prompt, reply, behaviour"):
        read_labels(path)
    with pytest.raises(UserError, match="no column 'repl': did you mean reply"):
        read_labels(path, columns={"response": "repl"})
    with pytest.raises(UserError, match="unknown column 'respons': did you mean response"):
        read_labels(path, columns={"respons": "reply"})


def test_a_split_can_be_taken_and_none_shares_a_prompt_with_another(tmp_path: Path) -> None:
    rows = [{**row, "split": name} for row, name in zip(ROWS, ("train", "test", "test"), strict=True)]
    path = jsonl(tmp_path / "l.jsonl", rows)
    assert [row.id for row in read_labels(path, split="test").rows] == ["b", "c"]
    assert [row.id for row in join([read_labels(path)], leave_out=("train",)).rows] == ["b", "c"]
    with pytest.raises(UserError, match="no row is in the split 'tests'"):
        read_labels(path, split="tests")
    leaking = {**ROWS[0], "id": "d", "prompt": "bake  A loaf?", "response": "Yes.", "split": "test"}
    with pytest.raises(UserError, match=r"1 prompts are in more than one split \(test, train\)"):
        read_labels(jsonl(path, [*rows, leaking]))


def test_one_response_with_two_labels_by_one_person_is_refused(tmp_path: Path) -> None:
    other = {**ROWS[0], "id": "d", "behaviour": "uncensored"}
    with pytest.raises(UserError, match="rows a and d are the same prompt and response"):
        read_labels(jsonl(tmp_path / "l.jsonl", [*ROWS, other]))
    assert len(read_labels(jsonl(tmp_path / "l.jsonl", [*ROWS, {**other, "by": "anna"}])).rows) == 4


def test_files_are_joined_with_ids_and_slices_that_tell_them_apart(tmp_path: Path) -> None:
    sets = [read_labels(jsonl(tmp_path / name)) for name in ("one.jsonl", "two.jsonl")]
    joined = join(sets)
    assert joined.name == "one+two"
    assert [row.id for row in joined.rows][::3] == ["one/a", "two/a"]
    assert {row.slices["labels"] for row in joined.rows} == {"one", "two"}


def test_labels_that_no_verdict_can_match_are_refused(tmp_path: Path) -> None:
    labels = read_labels(jsonl(tmp_path / "l.jsonl"))
    check_behaviours(labels, ["harmless", "uncensored"])
    with pytest.raises(UserError, match=r"label 'harmless' is not one of the judge's behaviours \(helped, refused\)"):
        check_behaviours(labels, ["helped", "refused"])
