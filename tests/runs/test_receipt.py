"""A finished run has a receipt: damage to any of its files is found, named, and made good from what is intact."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cst_bench
from cst_bench.errors import UserError
from cst_bench.record import SHORT, Manifest, Receipt, hash_file
from cst_bench.reporting import load_run
from cst_bench.reporting.listing import list_runs
from cst_bench.reporting.run_check import check_run
from cst_bench.runs import JudgeRunOptions, RunOptions, ScoreOptions, judge_run, run, score_file
from cst_bench.runs.label_file import add_label
from cst_bench.runs.labelling import choose
from tests.cli.invoke import invoke
from tests.reporting.stored_runs import make_run

TASKS = ("tiny_sealed", "tiny_village", "tiny_arc")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with labels, so that every stage has a file."""
    folder = tmp_path_factory.mktemp("made") / "run"
    run(RunOptions(tasks=TASKS, limit=3, out=folder))
    for response in choose(folder, n=4, tasks=("tiny_sealed",)):
        add_label(folder, response, "harmless", "anna")
    judge_run(JudgeRunOptions(folder))
    return folder


@pytest.fixture
def finished(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def listed(folder: Path) -> list[str]:
    return [*Receipt.read(folder).files, Receipt.FILE_NAME]


def log_of(folder: Path, task: str) -> Path:
    (log,) = (folder / "compliance" / task).glob("*.eval")
    return log


def flip(path: Path, at: float = 0.5, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1 << bit
    path.write_bytes(content)


def truncate(path: Path, at: float = 0.5, bit: int = 0) -> None:
    path.write_bytes(path.read_bytes()[: int(at * path.stat().st_size)])


def delete(path: Path, at: float = 0.5, bit: int = 0) -> None:
    path.unlink()


def swap(path: Path, at: float = 0.5, bit: int = 0) -> None:
    """Put another file of the run in its place."""
    others = sorted(
        other for other in path.parent.iterdir() if other.is_file() and other.name not in (path.name, ".lock")
    )
    other = others[int(at * len(others))] if others else path.parents[2] / "scores.json"
    path.write_bytes(other.read_bytes())


def damage_is_named(folder: Path, name: str) -> None:
    """Both `verify` and a verb that reads the run name the file, in one message that says what to do."""
    (verified,) = cst_bench.verify(folder)
    assert verified.state == "damaged"
    assert not verified.verified
    with pytest.raises(UserError) as refused:
        load_run(folder)
    for message in (str(refused.value), *verified.problems):
        assert str(folder / name) in message
        assert "restore" in message or "cst-bench judge" in message
        assert "\n" not in message


def test_a_receipt_lists_every_file_that_numbers_come_from(finished: Path) -> None:
    known = {"run.json", "outcomes.json", "scores.json", "report.md", "labels.jsonl", "label_strata.json"}
    known |= {"capabilities/tiny_arc.json", "capabilities/tiny_arc.samples.jsonl"}
    known |= {str(log_of(finished, task).relative_to(finished)) for task in TASKS[:2]}
    receipt = Receipt.read(finished)
    assert receipt.files.keys() == known
    assert [stage.name for stage in receipt.stages if stage.files] == [
        *("run", "responses", "verdicts", "labels", "outcomes", "scores", "report")
    ]
    digests = subprocess.run(["sha256sum", *known], cwd=finished, capture_output=True, text=True, check=True).stdout
    assert {line.split()[1]: line.split()[0] for line in digests.splitlines()} == {
        name: hashed.sha256 for name, (_, hashed) in receipt.files.items()
    }
    (verified,) = cst_bench.verify(finished)
    assert (verified.state, verified.receipt, verified.verified) == ("intact", receipt.sha256, True)
    assert load_run(finished).receipt == receipt.sha256


def test_the_last_digest_stands_for_every_file_and_stage(finished: Path) -> None:
    before = Receipt.read(finished)
    for at, stage in enumerate(before.stages):
        for name, known in stage.files.items():
            files = {other.name: dict(other.files) for other in before.stages}
            files[stage.name][name] = known.model_copy(update={"sha256": "0" * 64})
            other = Receipt.make(before.cst_bench, files, before.responses)
            assert other.sha256 != before.sha256
            assert [first.sha256 == second.sha256 for first, second in zip(before.stages, other.stages)] == [
                *(True for _ in range(at)),
                *(False for _ in range(at, len(before.stages))),
            ]


@pytest.mark.parametrize("damage", [flip, truncate, delete, swap])
def test_every_damage_to_every_file_is_found(
    made: Path, tmp_path: Path, damage: Callable[[Path, float, int], None]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(made, folder)
    for name in listed(made):
        damage(folder / name, 0.5, 0)
        damage_is_named(folder, name)
        shutil.copy(made / name, folder / name)
    assert all(verified.verified for verified in cst_bench.verify(folder))


@settings(max_examples=60)
@given(data=st.data())
def test_a_flipped_bit_is_found_wherever_it_is(
    made: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("flipped") / "run"
    shutil.copytree(made, folder)
    name = data.draw(st.sampled_from(listed(made)))
    flip(folder / name, data.draw(st.floats(0, 0.9999)), data.draw(st.integers(0, 7)))
    damage_is_named(folder, name)
    shutil.rmtree(folder)


def test_verbs_that_read_a_damaged_run_exit_2_with_one_message(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "other")
    flip(finished / "scores.json")
    for arguments in [
        ("verify", "run"),
        ("verify", "run", "--json"),
        ("report", "run", "--out", "report"),
        ("report", "other", "run", "--out", "report"),
        ("report", "run", "--out", "report", "--model-card", "README.md"),
        ("compare", "other", "run"),
        ("view", "run"),
        ("judge", "label", "run", "--export", "todo.jsonl"),
        (
            "run",
            "--task",
            "tiny_sealed",
            "--task",
            "tiny_village",
            "--task",
            "tiny_arc",
            "--limit",
            "3",
            "--out",
            "run",
        ),
    ]:
        done = invoke(capsys, monkeypatch, *arguments)
        assert done.status == 2, arguments
        assert "scores.json was changed since the run was finished" in done.err
        assert "`cst-bench judge run` writes it again" in done.err
    assert not (tmp_path / "report").exists()
    assert not (tmp_path / "README.md").exists()
    done = invoke(capsys, monkeypatch, "ls", str(tmp_path), "--json")
    assert done.status == 0
    assert {Path(one["folder"]).name: one["state"] for one in json.loads(done.out)} == {
        "run": "damaged",
        "other": "finished",
    }


@pytest.mark.parametrize("name", ["scores.json", "outcomes.json", "report.md", "receipt.json"])
@pytest.mark.parametrize("damage", [flip, truncate, delete])
def test_what_follows_from_intact_files_is_written_again(
    finished: Path, made: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(finished / name)
    assert "`cst-bench judge" in check_run(finished).message
    judge_run(JudgeRunOptions(finished))
    assert check_run(finished).state == "intact"
    for remade in ("scores.json", "outcomes.json", "report.md"):
        assert (finished / remade).read_bytes() == (made / remade).read_bytes()


def test_labels_that_were_taken_away_are_computed_without(finished: Path) -> None:
    (finished / "labels.jsonl").unlink()
    assert "if these are the labels to use, `cst-bench judge" in check_run(finished).message
    judge_run(JudgeRunOptions(finished))
    assert load_run(finished).outcomes.labels == {}
    assert check_run(finished).state == "intact"


def rescored(log: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Change a sample in a log, as an editor of logs would."""
    import inspect_ai.log  # noqa: F401  it teaches zipfile how Inspect compresses

    temporary = log.with_suffix(".new")
    with zipfile.ZipFile(log) as old, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as new:
        changed = False
        for entry in old.namelist():
            content = old.read(entry)
            if entry.startswith("samples/") and not changed:
                sample = json.loads(content)
                change(sample)
                content, changed = json.dumps(sample).encode(), True
            new.writestr(entry, content)
    temporary.replace(log)


def refuse(sample: dict[str, object]) -> None:
    """Put other words into the model's mouth."""
    sample["output"]["choices"][0]["message"]["content"] = "I cannot help."  # type: ignore[index]


def test_verdicts_are_made_again_from_responses_that_are_intact(finished: Path, made: Path) -> None:
    def turn(sample: dict[str, object]) -> None:
        score = sample["scores"]["behaviour"]  # type: ignore[index]
        score["answer"] = "uncensored" if score["answer"] == "harmless" else "harmless"

    rescored(log_of(finished, "tiny_sealed"), turn)
    message = check_run(finished).message
    assert "judges the responses again, which are intact" in message
    assert str(log_of(finished, "tiny_sealed")) in message
    judge_run(JudgeRunOptions(finished))
    assert check_run(finished).state == "intact"
    for name in ("scores.json", "outcomes.json", "report.md"):
        assert (finished / name).read_bytes() == (made / name).read_bytes()


def test_responses_that_were_changed_are_not_judged(finished: Path) -> None:
    rescored(log_of(finished, "tiny_sealed"), refuse)
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    for options in (JudgeRunOptions(finished), JudgeRunOptions(finished, judges=("refusal_rules",))):
        with pytest.raises(UserError, match="restore it from a copy, or repeat `cst-bench run`"):
            judge_run(options)
    assert before == {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["run.json", "capabilities/tiny_arc.json", "capabilities/tiny_arc.samples.jsonl"])
def test_what_only_the_checkpoint_gives_is_to_be_restored(finished: Path, name: str) -> None:
    for damage in (flip, truncate, delete):
        kept = (finished / name).read_bytes()
        damage(finished / name)
        with pytest.raises(UserError, match="restore it from a copy, or repeat `cst-bench run`"):
            judge_run(JudgeRunOptions(finished))
        (finished / name).write_bytes(kept)
    flip(finished / name)
    flip(finished / "scores.json")
    message = check_run(finished).message
    assert "restore it from a copy" in message
    assert "once restored, `cst-bench judge" in message


def test_reports_name_the_receipts_that_they_used(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "other")
    judge_run(JudgeRunOptions(tmp_path / "other", show_text=True))  # another report.md
    receipts = {name: Receipt.read(tmp_path / name).sha256 for name in ("run", "other")}
    assert len(set(receipts.values())) == 2
    formats = [word for name in ("md", "html", "latex", "json") for word in ("--format", name)]
    done = invoke(capsys, monkeypatch, "report", "run", "other", *formats, "--out", "report")
    assert done.status == 0, done.err
    for name in ("report.md", "report.html", "report.tex"):
        text = (tmp_path / "report" / name).read_text().replace("\\allowbreak{}", "")
        assert all(digest[:SHORT] in text for digest in receipts.values())
    board = json.loads((tmp_path / "report" / "report.json").read_text())
    assert {one["receipt"] for one in board["runs"]} == set(receipts.values())
    done = invoke(capsys, monkeypatch, "compare", "run", "other", "--json", "--junit", "j.xml", "--out", "c.md")
    assert json.loads(done.out)["receipts"] == {"baseline": receipts["run"], "run": receipts["other"]}
    assert all(digest in (tmp_path / "j.xml").read_text() for digest in receipts.values())
    line = f"baseline {receipts['run'][:SHORT]}, run {receipts['other'][:SHORT]}"
    assert f"Receipts: {line}." in (tmp_path / "c.md").read_text()
    assert line in " ".join(invoke(capsys, monkeypatch, "compare", "run", "other").out.split())
    assert invoke(capsys, monkeypatch, "report", "run", "--model-card", "README.md", "--out", "one").status == 0
    assert f"receipt: {receipts['run'][:SHORT]}" in (tmp_path / "README.md").read_text().replace("'", "")


def test_labels_that_were_added_are_no_damage(finished: Path) -> None:
    before = (finished / "labels.jsonl").read_bytes()
    for response in choose(finished, n=6, tasks=("tiny_sealed",)):
        add_label(finished, response, "uncensored", "bo")
    (verified,) = cst_bench.verify(finished)
    assert verified.verified
    assert "labels were added" in verified.notes[0]
    load_run(finished)
    judge_run(JudgeRunOptions(finished))
    (verified,) = cst_bench.verify(finished)
    assert verified.notes == ()
    (finished / "labels.jsonl").write_bytes(before)  # labels that the scores were computed from are gone
    damage_is_named(finished, "labels.jsonl")


def test_runs_without_a_receipt_are_read_and_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(Path("old"), "old", {"S1": 0.7})
    assert load_run("old").receipt is None
    assert [(run.state, run.receipt) for run in list_runs([tmp_path])] == [("finished", None)]
    assert "no receipt" in " ".join(invoke(capsys, monkeypatch, "ls", ".").out.split())
    done = invoke(capsys, monkeypatch, "verify", "old")
    assert done.status == 2
    assert "`cst-bench judge old` computes its scores again and writes one" in done.err


def test_a_run_without_a_receipt_gets_one_when_it_is_judged_again(finished: Path) -> None:
    manifest = Manifest.read(finished)
    manifest.model_copy(update={"has_receipt": False}).write(finished)
    (finished / Receipt.FILE_NAME).unlink()
    assert load_run(finished).receipt is None
    judge_run(JudgeRunOptions(finished))
    assert load_run(finished).receipt == Receipt.read(finished).sha256


def test_a_run_of_capabilities_alone_has_its_scores_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(RunOptions(tasks=("tiny_arc",), limit=3, out=folder))
    before = (folder / "scores.json").read_bytes()
    flip(folder / "scores.json")
    damage_is_named(folder, "scores.json")
    judge_run(JudgeRunOptions(folder))
    assert (folder / "scores.json").read_bytes() == before
    assert check_run(folder).state == "intact"


def test_a_scored_file_has_a_receipt_and_is_scored_again(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{at}", "response": "no", "configuration": "S1", "label": "harmless"} for at in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    options = ScoreOptions(tmp_path / "rows.jsonl", task="harmful_behaviors", out=tmp_path / "run")
    assert score_file(options).run.receipt == Receipt.read(tmp_path / "run").sha256
    flip(tmp_path / "run" / "scores.json")
    with pytest.raises(UserError, match="score the file again into this folder"):
        load_run(tmp_path / "run")
    score_file(options)
    assert check_run(tmp_path / "run").state == "intact"


def test_a_judging_that_was_cut_off_at_any_write_is_finished_by_the_same_command(
    finished: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail at each write in turn, as a full disk would: the only seam that is faked."""
    import cst_bench.files
    import cst_bench.record.record_file
    import cst_bench.reporting.run_report

    write, written, limit = cst_bench.files.write_text, 0, 0

    def failing(path: Path, text: str) -> None:
        nonlocal written
        written += 1
        if written > limit:
            raise OSError(28, "No space left on device", str(path))
        write(path, text)

    for module in (cst_bench.record.record_file, cst_bench.reporting.run_report):
        monkeypatch.setattr(module, "write_text", failing)
    states = []
    while True:
        written, flipped = 0, log_of(finished, "tiny_sealed")
        try:
            judge_run(JudgeRunOptions(finished, judges=("tiny_sealed",)))
            break
        except OSError:
            states.append(check_run(finished).state)
            assert flipped.is_file()
        limit += 1
    assert len(states) > 4
    assert set(states) <= {"intact", "unfinished"}
    assert check_run(finished).state == "intact"
    assert (finished / "scores.json").read_bytes() == (made / "scores.json").read_bytes()


def test_responses_that_changed_while_a_judging_was_cut_off_are_refused(finished: Path) -> None:
    manifest = Manifest.read(finished)
    manifest.model_copy(update={"status": manifest.status.model_copy(update={"run": "running"})}).write(finished)
    assert check_run(finished).state == "unfinished"
    rescored(log_of(finished, "tiny_sealed"), refuse)
    with pytest.raises(UserError, match="has other responses than the run was finished with"):
        judge_run(JudgeRunOptions(finished))


def test_nothing_outside_of_the_folder_is_read_for_a_receipt(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes((finished / "scores.json").read_bytes())
    (finished / "scores.json").unlink()
    (finished / "scores.json").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match=r"scores\.json is a link that leads out of the run folder"):
        load_run(finished)
    (finished / "scores.json").unlink()
    os.mkfifo(finished / "scores.json")
    with pytest.raises(UserError, match=r"scores\.json is no regular file"):
        load_run(finished)
    receipt = json.loads((finished / "receipt.json").read_text())
    for name in ("../secret", str(tmp_path / "secret"), "a/../../secret", "a\\b", "a\x1b[31m"):
        receipt["stages"][0]["files"] = {name: {"sha256": "0" * 64, "bytes": 1}}
        (finished / "receipt.json").write_text(json.dumps(receipt))
        with pytest.raises(UserError, match=r"receipt\.json is not as cst-bench wrote it"):
            load_run(finished)


def test_a_receipt_that_leaves_files_out_is_refused(finished: Path) -> None:
    receipt = Receipt.read(finished)
    files = {stage.name: dict(stage.files) for stage in receipt.stages}
    del files["scores"]["scores.json"]
    Receipt.make(receipt.cst_bench, files, receipt.responses).write(finished)
    flip(finished / "scores.json")
    with pytest.raises(UserError, match=r"receipt\.json is of other files than the run's \(scores\.json\)"):
        load_run(finished)


def test_a_run_whose_manifest_is_gone_is_not_left_out(finished: Path, tmp_path: Path) -> None:
    (finished / "run.json").unlink()
    with pytest.raises(UserError, match=r"run\.json is missing"):
        cst_bench.report([tmp_path])
    assert [run.state for run in list_runs([tmp_path])] == ["damaged"]
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "receipt.json").write_text('{"total": 3}')
    assert len(list_runs([tmp_path])) == 1


keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return path


@keygen
def test_a_signed_receipt_is_checked_against_the_allowed_signers(finished: Path, tmp_path: Path) -> None:
    anna, bo = make_key(tmp_path / "anna"), make_key(tmp_path / "bo")
    signers = tmp_path / "signers"
    signers.write_text(f"anna@example.org {anna.with_suffix('.pub').read_text()}")
    (verified,) = cst_bench.verify(finished, allowed_signers=signers)
    assert not verified.verified
    assert "not signed by any allowed signer" in verified.problems[0]
    (verified,) = cst_bench.verify(finished, sign=anna, allowed_signers=signers)
    assert (verified.signed_by, verified.verified) == ("anna@example.org", True)
    by_openssh = ["ssh-keygen", "-Y", "verify", "-n", "cst-bench", "-f", str(signers), "-I", "anna@example.org", "-s"]
    content = (finished / "receipt.json").read_bytes()
    subprocess.run([*by_openssh, str(finished / "receipt.json.sig")], input=content, capture_output=True, check=True)
    (verified,) = cst_bench.verify(finished)
    assert str(verified.signed_by).startswith("SHA256:")
    assert verified.verified
    (verified,) = cst_bench.verify(finished, sign=bo)
    (verified,) = cst_bench.verify(finished, allowed_signers=signers)
    assert not verified.verified
    assert "is by nobody in" in verified.problems[0]
    flip(finished / "receipt.json.sig")
    (verified,) = cst_bench.verify(finished)
    assert not verified.verified
    assert "receipt.json.sig" in verified.problems[0]


@keygen
def test_a_forged_receipt_fails_its_signature_and_a_new_one_has_none(finished: Path, tmp_path: Path) -> None:
    key = make_key(tmp_path / "anna")
    cst_bench.verify(finished, sign=key)
    receipt = Receipt.read(finished)
    flip(finished / "report.md")
    forged = {stage.name: dict(stage.files) for stage in receipt.stages}
    now = hash_file(finished, "report.md")
    assert not isinstance(now, str)
    forged["report"]["report.md"] = now
    Receipt.make(receipt.cst_bench, forged, receipt.responses).write(finished)
    load_run(finished)  # who can write the folder can write another receipt
    (verified,) = cst_bench.verify(finished)
    assert not verified.verified
    assert "is no signature of this receipt" in verified.problems[0]
    judge_run(JudgeRunOptions(finished))
    assert not (finished / "receipt.json.sig").exists()


@keygen
def test_only_intact_runs_are_signed_and_faults_of_keys_are_one_message(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(tmp_path / "anna")
    done = invoke(capsys, monkeypatch, "verify", "run", "--sign", str(key))
    assert (done.status, done.err) == (0, "")
    assert "SHA256:" in done.out
    for option in ("--sign", "--allowed-signers"):
        done = invoke(capsys, monkeypatch, "verify", "run", option, "mistyped")
        assert done.status == 2
        assert "mistyped: no such file" in done.err
    (tmp_path / "nokey").write_text("no key")
    done = invoke(capsys, monkeypatch, "verify", "run", "--sign", "nokey")
    assert done.status == 2
    assert "could not sign" in done.err
    (tmp_path / "signers").write_text("\x00 no signers")
    done = invoke(capsys, monkeypatch, "verify", "run", "--allowed-signers", "signers")
    assert done.status == 2
    assert "Traceback" not in done.err
    flip(finished / "report.md")
    (finished / "receipt.json.sig").unlink()
    done = invoke(capsys, monkeypatch, "verify", "run", "--sign", str(key))
    assert done.status == 2
    assert "report.md was changed" in done.err
    assert not (finished / "receipt.json.sig").exists()


def test_without_ssh_keygen_there_is_one_message(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="signatures need ssh-keygen"):
        cst_bench.verify(finished, sign=finished / "report.md")
    (finished / "receipt.json.sig").write_text("")
    (verified,) = cst_bench.verify(finished)
    assert "signatures need ssh-keygen" in verified.problems[0]
