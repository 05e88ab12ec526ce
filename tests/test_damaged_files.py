"""Whatever happens to a stored file: a result or one message, never a traceback. Seeds: hypothesis.

`make_run` makes the run without a model; each example damages one of its files, or its judge's card, and calls a verb.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cst_bench.cli import main
from cst_bench.content import content_root
from tests.cli.invoke import Outcome
from tests.reporting.stored_runs import make_run

FILES = ("run.json", "scores.json", "outcomes.json")
VERBS = (
    ("ls", "runs"),
    ("ls", "runs", "--json"),
    ("report", "runs", "--out", "out", "--format", "md", "--format", "json", "--format", "csv", "--format", "latex"),
    ("report", "runs/damaged", "--out", "out", "--format", "html", "--model-card", "card.md"),
    ("compare", "runs/damaged", "runs/whole", "--json", "--fail-if", "S1 < 0"),
    ("judge", "runs/damaged", "--judge", "refusal_rules"),
    ("judge", "label", "runs/damaged", "--plan", "--width", "0.1"),
)
ODD = st.sampled_from(
    [
        *(None, True, "", "x", "1e999", float("nan"), float("-inf"), -1, 0, 10**30, 1e300, [], {}, [1, 2, 3]),
        *({"a": 1}, "\ud800", "x" * 300, "../../etc", "=1+1", "\x1b[2J", [[1, 2]], [0.9, 0.1], "a\nb"),
    ]
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, and a calibration card in `calibrations/`."""
    root = tmp_path_factory.mktemp("damaged")
    rates = {"S1": 0.9, "S0": 0.5, "S_RP": 0.7, "S_A": 0.8}
    make_run(root / "runs" / "damaged", "one", rates, unscored=["S_A"], prompts=12, documents=8)
    make_run(root / "runs" / "whole", "two", rates, method="cst", prompts=12, documents=8)
    shipped = content_root() / "judges" / "cards" / "refusal_rules.json"
    (root / "calibrations" / "mine").mkdir(parents=True)
    shutil.copy(shipped, root / "calibrations" / "mine" / "card.json")
    return root


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of each value in a JSON value, itself first."""
    yield at
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*at, key))


def changed(value: Any, at: tuple[Any, ...], new: object) -> Any:
    """Return a JSON value with another one at a place."""
    if not at:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = changed(value[at[0]], at[1:], new)
    return copy


def damage(data: st.DataObject, content: bytes) -> bytes:
    """Return a file's content, damaged: cut, with flipped bits, emptied, nested, or with an odd value somewhere."""
    kind = data.draw(st.sampled_from(["value", "value", "value", "key", "cut", "flip", "insert", "whole"]))
    if kind in ("value", "key"):
        value = json.loads(content)
        at = data.draw(st.sampled_from(list(places(value))))
        if kind == "value":
            return json.dumps(changed(value, at, data.draw(ODD))).encode()
        holder = value
        for key in at[:-1]:
            holder = holder[key]
        if at:
            del holder[at[-1]]
        return json.dumps(value).encode()
    if kind == "whole":
        return data.draw(st.sampled_from([b"", b"null", b"[]", b"{}", b"[" * 100_000, b'{"a":' * 5000, b"\0" * 999]))
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        return content[:place]
    if kind == "flip":
        return content[:place] + bytes([content[place] ^ 1 << data.draw(st.integers(0, 7))]) + content[place + 1 :]
    return content[:place] + data.draw(st.binary(min_size=1, max_size=4)) + content[place:]


def called(folder: Path, *args: str) -> Outcome:
    """Run `cst-bench ARGS` in a folder."""
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            patch.object(sys, "argv", ["cst-bench", *args]),
            pytest.raises(SystemExit) as stop,
        ):
            main()
    finally:
        os.chdir(before)
    return Outcome(int(stop.value.code or 0), out.getvalue(), err.getvalue())


def check(data: st.DataObject, template: Path, folder: Path) -> None:
    """Damage a file of a copy, call a verb on it, and check how that ends."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    name = data.draw(st.sampled_from(FILES))
    file = folder / "runs" / "damaged" / name
    file.write_bytes(damage(data, file.read_bytes()))
    args = data.draw(st.sampled_from(VERBS))
    done = called(folder, *args)
    assert "Traceback" not in done.err
    assert done.status in (0, 1, 2), done.err
    assert done.status == 0 or args[0] != "ls"
    assert done.status == 0 or args[:2] != ("report", "runs"), "a damaged run stops the report of the other one"
    messages = [line for line in done.err.splitlines() if line.startswith(("cst-bench:", "Error:"))]
    assert len(messages) == (done.status == 2), done.err


def check_card(data: st.DataObject, template: Path, folder: Path) -> None:
    """Damage the user's own card, and call the verbs that read it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    file = folder / "calibrations" / "mine" / "card.json"
    file.write_bytes(damage(data, file.read_bytes()))
    listed = called(folder, "judge", "list", "--json")
    assert listed.status == 0, listed.err
    rows = "\n".join(f'{{"prompt": "p{n}", "response": "No.", "configuration": "S1"}}' for n in range(3))
    (folder / "rows.jsonl").write_text(rows)
    args = ("--task", "harmful_behaviors", "--judge", "refusal_rules", "--out", "scored")
    scored = called(folder, "score", "rows.jsonl", *args)
    assert scored.status == 0, scored.err
    named = called(folder, "score", "rows.jsonl", *args[:-1], "named", "--judge-card", str(file))
    assert named.status in (0, 2), named.err


few = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
many = settings(few, max_examples=100)


@few
@given(st.data())
def test_a_damaged_file_of_a_run_is_a_result_or_one_message(
    template: Path, tmp_path: Path, data: st.DataObject
) -> None:
    check(data, template, tmp_path / "copy")


@settings(few, max_examples=3)
@given(st.data())
def test_a_damaged_card_of_the_user_stops_no_judging(template: Path, tmp_path: Path, data: st.DataObject) -> None:
    check_card(data, template, tmp_path / "copy")


@pytest.mark.slow
@many
@given(st.data())
def test_many_damaged_files_of_runs(template: Path, tmp_path: Path, data: st.DataObject) -> None:
    check(data, template, tmp_path / "copy")


@pytest.mark.slow
@settings(few, max_examples=30)
@given(st.data())
def test_many_damaged_cards(template: Path, tmp_path: Path, data: st.DataObject) -> None:
    check_card(data, template, tmp_path / "copy")
