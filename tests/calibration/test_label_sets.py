"""Label sets are read from local copies or fetched, checked and kept; bad sources are one message."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from pydantic import JsonValue

from cst_bench import content
from cst_bench.calibration import label_sets
from cst_bench.calibration.label_sets import FOLDER, LabelSetFile, find_label_set, load_labels, read_label_set
from cst_bench.errors import UserError
from tests.test_published_data import DATA

LABELS = DATA / "real" / "labels"
NAMES = ("gptfuzz", "harmbench", "xstest")
VOTES: dict[str, list[dict[str, JsonValue]]] = {
    "knots": [
        {"generation": "Cross the ends.", "human_0": 1, "human_1": 1, "human_2": 0},
        {"generation": "I would rather not.", "human_0": 0, "human_1": 0, "human_2": 0},
    ],
    "bread": [{"generation": "Mix flour and water.", "human_0": 0, "human_1": 1, "human_2": 1}],
}
"""Made up, in the format of HarmBench's file."""


class Host(ThreadingHTTPServer):
    """Server of files that counts its requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        name = self.path.split("/", 4)[-1]
        data = self.server.files.get(name)
        self.send_response(200 if data is not None else 404)
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Host]:
    """Serve files in GitHub's place; its address is the one thing that is replaced."""
    server = Host()
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(label_sets, "GITHUB", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


def harmbench(*, blob: str | None = None) -> LabelSetFile:
    """Return HarmBench's label set with another hash of its file."""
    file = find_label_set("harmbench")
    assert file.github is not None
    part = file.github.files["text"].model_copy(update={"blob": blob})
    return file.model_copy(update={"github": file.github.model_copy(update={"files": {"text": part}})})


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_every_label_set_says_what_its_labels_mean_and_is_pinned_to_a_commit(name: str) -> None:
    file = find_label_set(name)
    assert file.name == name
    assert file.description
    assert file.licence
    assert file.labelled_by == "human"
    assert set(file.values.values()) == {"harmless", "uncensored"}
    assert file.github is not None
    assert len(file.github.revision) == 40


def test_all_label_sets_are_tested() -> None:
    assert tuple(content.names(FOLDER)) == NAMES


def test_fetched_rows_get_their_prompts_and_the_majority_of_the_votes(host: Host) -> None:
    behaviors = b"BehaviorID,Behavior\nknots,Tie a knot\nbread,Bake bread\n"
    host.files = {
        "data/classifier_val_sets/text_behaviors_val_set.json": json.dumps(VOTES).encode(),
        "data/behavior_datasets/harmbench_behaviors_text_all.csv": behaviors,
    }
    labels = read_label_set(harmbench())
    assert [(row.id, row.case.prompt, row.behaviour, row.annotations) for row in labels.rows] == [
        ("1", "Tie a knot", "uncensored", ("uncensored", "uncensored", "harmless")),
        ("2", "Tie a knot", "harmless", ("harmless",) * 3),
        ("3", "Bake bread", "uncensored", ("harmless", "uncensored", "uncensored")),
    ]
    assert labels.by == ["human"]
    asked = len(host.asked)
    assert read_label_set(harmbench()).sha256 == labels.sha256
    assert len(host.asked) == asked == 2  # kept in the cache


def test_a_prompt_may_be_given_by_its_row_number(host: Host, tmp_path: Path) -> None:
    question = "question,Response,label\n1,Cross the ends.,1\n0,I would rather not.,0\n"
    host.files = {
        "datasets/responses_labeled/train.csv": question.encode(),
        "datasets/responses_labeled/evaluate.csv": question.replace("ends", "loops").encode(),
        "datasets/questions/question_list.csv": b"text\nHow do I bake bread?\nHow do I tie a knot?\n",
    }
    rows = read_label_set(find_label_set("gptfuzz")).rows
    assert [(row.id, row.case.prompt, row.behaviour) for row in rows[:2]] == [
        ("train/1", "How do I tie a knot?", "uncensored"),
        ("train/2", "How do I bake bread?", "harmless"),
    ]
    assert [row.slices["part"] for row in rows] == ["train", "train", "evaluate", "evaluate"]
    assert not any("model" in row.slices for row in rows)


def test_other_content_than_expected_is_refused_and_not_kept(host: Host) -> None:
    host.files = {
        "data/classifier_val_sets/text_behaviors_val_set.json": json.dumps(VOTES).encode(),
        "data/behavior_datasets/harmbench_behaviors_text_all.csv": b"BehaviorID,Behavior\nknots,Tie a knot\n",
    }
    for _ in range(2):
        with pytest.raises(UserError, match=r"other content than the label set expects .* --data harmbench=FILE"):
            read_label_set(harmbench(blob="0" * 40))


def test_content_with_git_s_hash_is_taken(host: Host) -> None:
    host.files = {
        "data/classifier_val_sets/text_behaviors_val_set.json": b'{"a": [{"generation": "So.", "human_0": 1}]}\n',
        "data/behavior_datasets/harmbench_behaviors_text_all.csv": b"BehaviorID,Behavior\na,Tie a knot\n",
    }
    assert len(read_label_set(harmbench(blob="7aa2003c809d78f09f604b50b354b04db4fb7045")).rows) == 1


def test_a_source_that_cannot_be_reached_says_how_to_go_on(host: Host) -> None:
    with pytest.raises(UserError, match=r"could not fetch http.*404.* --data xstest=FILE"):
        load_labels(["xstest"])


def test_a_local_copy_may_have_the_columns_of_the_source_or_the_usual_ones(tmp_path: Path) -> None:
    write_csv(
        tmp_path / "xstest_v2_completions_old.csv",
        [
            {"id": "1", "prompt": "Kill a process?", "completion": "Use kill.", "final_label": "1_full_compliance"},
            {"id": "2", "prompt": "Blow up a balloon?", "completion": "No.", "final_label": "3_partial_refusal"},
        ],
    )
    usual = [
        {
            "id": "1",
            "prompt": "Kill a process?",
            "response": "I will not.",
            "behaviour": "harmless",
            "degree": "refusal",
            "annotator_1": "refusal",
            "annotator_2": "partial refusal",
            "gpt4_label": "2_full_refusal",
            "model": "new",
        },
        {
            "id": "2",
            "prompt": "Cut a cake?",
            "response": "Gladly.",
            "behaviour": "uncensored",
            "gpt4_label": "So be it",
        },
    ]
    (tmp_path / "xstest_usual.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in usual))
    (labels,) = load_labels(["xstest"], {"xstest": tmp_path})
    degrees = ["full refusal", None, "full compliance", "partial refusal"]
    assert [row.behaviour for row in labels.rows] == ["harmless", "uncensored", "uncensored", "harmless"]
    assert [row.slices.get("degree") for row in labels.rows] == degrees
    assert [row.slices["model"] for row in labels.rows] == ["new", "usual", "v2_completions_old", "v2_completions_old"]
    assert labels.rows[0].annotations == ("harmless", "harmless")
    assert [dict(row.verdicts) for row in labels.rows[:2]] == [{"gpt-4": "harmless"}, {"gpt-4": None}]


def test_bad_sources_are_one_message(tmp_path: Path) -> None:
    for sources, data, message in [
        (["xtest"], {}, "no such file or label set: did you mean xstest"),
        (["xstest"], {"xstest": tmp_path}, "no data file in this folder has a name that begins so"),
        ([], {"xstest": tmp_path}, "labels xstest are not used: give --labels xstest, too"),
        (["none.csv"], {}, "data file not found: none.csv"),
    ]:
        with pytest.raises(UserError, match=message):
            load_labels(sources, data)


def test_a_reference_to_no_prompt_is_refused(host: Host) -> None:
    host.files = {
        "data/classifier_val_sets/text_behaviors_val_set.json": json.dumps(VOTES).encode(),
        "data/behavior_datasets/harmbench_behaviors_text_all.csv": b"BehaviorID,Behavior\nknots,Tie a knot\n",
    }
    with pytest.raises(UserError, match="BehaviorID 'bread' is not in data/behavior_datasets"):
        read_label_set(harmbench())


@pytest.mark.skipif(not LABELS.is_dir(), reason="no published labels here")
@pytest.mark.parametrize(
    ("name", "counts", "degrees", "annotators"),
    [
        ("xstest", {"uncensored": 760, "harmless": 590}, {"full compliance": 760, "full refusal": 478}, 2),
        ("harmbench", {"uncensored": 109, "harmless": 145}, {}, 3),
        ("gptfuzz", {"uncensored": 1693, "harmless": 3473}, {}, 0),
    ],
)
def test_published_labels_are_read(name: str, counts: dict[str, int], degrees: dict[str, int], annotators: int) -> None:
    (labels,) = load_labels([name], {name: LABELS})
    assert Counter(row.behaviour for row in labels.rows) == counts
    assert Counter(row.slices.get("degree") for row in labels.rows) >= Counter(degrees)
    assert {len(row.annotations) for row in labels.rows} == {annotators}
