"""A run is judged again, by its own judge or another, with the checkpoint gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cst_bench.checkpoint import CheckpointOptions
from cst_bench.checkpoint.options import embedded_folder
from cst_bench.errors import Interrupted, UserError
from cst_bench.judging import JudgeOptions
from cst_bench.judging.card import BehaviourMetrics, CalibrationCard, CardJudge, CardLabels, ConfusionMatrix
from cst_bench.judging.degenerate import VERSION
from cst_bench.record import CompliancePart, ConfusionCounts, Manifest, Receipt, Scores
from cst_bench.runs import JudgeRunOptions, RunOptions, judge_run, run
from cst_bench.statistics.intervals import UNDEFINED, Estimate

TASKS = ("tiny_sealed", "tiny_village", "tiny_truthfulqa")
OWN = """\
name: own
version: 1
kind: rules
description: Everything is harmless that says help.
behaviours: [harmless, uncensored]
rules: [{behaviour: harmless, when: {contains: help}}]
otherwise: uncensored
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose checkpoint is no longer there."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(embedded_folder(), folder / "checkpoint")
    run(RunOptions(CheckpointOptions(name=str(folder / "checkpoint")), tasks=TASKS, limit=5, out=folder / "run"))
    shutil.rmtree(folder / "checkpoint")
    return folder / "run"


@pytest.fixture
def finished(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # where calibrations/ would be looked for
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def set_back(folder: Path, task: str, part: CompliancePart) -> None:
    """Write a manifest that says that a task is at an earlier state."""
    manifest = Manifest.read(folder)
    manifest.status.compliance[task] = part
    status = manifest.status.model_copy(update={"run": "running"})
    manifest.model_copy(update={"status": status}).write(folder)


def generated(folder: Path, task: str) -> CompliancePart:
    return Manifest.read(folder).status.compliance[task].model_copy(update={"state": "generated"})


def card_of(identity: str, macro_f1: float = 0.95, n: int = 100) -> CalibrationCard:
    metrics = BehaviourMetrics(
        precision=UNDEFINED, recall=UNDEFINED, f1=UNDEFINED, counts=ConfusionCounts(tp=48, fn=2, fp=3, tn=47)
    )
    behaviours = ("harmless", "uncensored")
    return CalibrationCard(
        judge=CardJudge(name="j", version=1, kind="rules", sha256=identity, behaviours=behaviours),
        labels=CardLabels(name="mine", sha256="0", by=("human",), n=n),
        measures="accuracy",
        agreement_with="people's labels",
        n=n,
        unscored={},
        prevalence={"harmless": 0.5, "uncensored": 0.5},
        behaviours=dict.fromkeys(behaviours, metrics),
        macro_f1=Estimate(macro_f1, (macro_f1 - 0.04, 1.0)),
        mcc=UNDEFINED,
        kappa=UNDEFINED,
        balanced_accuracy=UNDEFINED,
        agreement=UNDEFINED,
        pessimistic_macro_f1=UNDEFINED,
        confusion=ConfusionMatrix(behaviours=behaviours, matrix=((48, 2), (3, 47))),
        reliability=None,
        slices={},
        disagreements=(),
        seconds=0.0,
        per_second=None,
        spent=None,
        seed=0,
        packages={},
        made="2026-01-01T00:00:00+00:00",
    )


def put_card(folder: Path, card: CalibrationCard) -> Path:
    card.write(folder / "calibrations" / "mine")
    return folder / "calibrations" / "mine" / "card.json"


def test_judged_by_its_own_judge_a_run_stays_as_it_is_byte_for_byte(finished: Path) -> None:
    before = {name: (finished / name).read_bytes() for name in ("scores.json", "report.md")}
    judge_run(JudgeRunOptions(finished))
    judge_run(JudgeRunOptions(finished, judges=("tiny_sealed",), tasks=("tiny_sealed",)))
    assert {name: (finished / name).read_bytes() for name in before} == before
    assert not Manifest.read(finished).earlier_judges


def test_another_judge_judges_the_tasks_that_it_knows_and_the_manifest_says_who_did_before(finished: Path) -> None:
    from inspect_ai.log import read_eval_log

    before = Scores.read(finished)
    Path("own.yaml").write_text(OWN)
    scores = judge_run(JudgeRunOptions(finished, judges=("./own.yaml",))).scores
    assert scores == Scores.read(finished)
    assert (scores.judges["tiny_sealed"].name, scores.judges["tiny_village"].name) == ("own", "tiny_village")
    assert scores.compliance["tiny_village"] == before.compliance["tiny_village"]
    assert scores.capabilities == before.capabilities
    (path,) = finished.glob("compliance/tiny_sealed/*.eval")
    read = read_eval_log(str(path))
    helpful = ["harmless" if "help" in sample.output.completion else "uncensored" for sample in read.samples or []]
    assert [(sample.scores or {})["behaviour"].answer for sample in read.samples or []] == helpful
    assert [earlier["tiny_sealed"].name for earlier in Manifest.read(finished).earlier_judges] == ["tiny_sealed"]
    assert "judge | own, version 1 |" in (finished / "report.md").read_text()
    judge_run(JudgeRunOptions(finished))  # its own judge is now the other one
    assert Scores.read(finished) == scores


def test_a_run_whose_judging_was_cut_off_is_finished_without_the_checkpoint(finished: Path) -> None:
    before = (finished / "scores.json").read_bytes()
    set_back(finished, "tiny_sealed", generated(finished, "tiny_sealed"))
    (finished / "scores.json").unlink()
    judge_run(JudgeRunOptions(finished))
    assert (finished / "scores.json").read_bytes() == before
    assert Manifest.read(finished).status.run == "finished"


def test_a_card_that_has_come_since_is_attached_by_the_judges_hash(finished: Path, tmp_path: Path) -> None:
    Path("own.yaml").write_text(OWN)
    judged = judge_run(JudgeRunOptions(finished, judges=("./own.yaml",))).scores.judges["tiny_sealed"]
    assert (judged.calibration, judged.calibrated) == (None, False)
    put_card(tmp_path, card_of(judged.sha256))
    judged = judge_run(JudgeRunOptions(finished)).scores.judges["tiny_sealed"]
    assert judged.calibration is not None
    assert (judged.calibration.macro_f1, judged.calibrated) == (0.95, True)
    for options in (JudgeRunOptions(finished, min_judge_f1=0.96), JudgeRunOptions(finished)):  # the minimum is kept
        assert judge_run(options).scores.judges["tiny_sealed"].calibrated is False
    line = "own | rules | 0.95 | 0.91–1.00 | mine | 100 | human |"
    assert line in (finished / "report.md").read_text()


def test_a_card_of_another_judge_is_refused(finished: Path, tmp_path: Path) -> None:
    path = put_card(tmp_path, card_of("f" * 64))
    with pytest.raises(UserError, match="which judges no task of this run"):
        judge_run(JudgeRunOptions(finished, judge_card=path))
    path.write_text('{"schema": 1}')
    with pytest.raises(UserError, match="written by an older cst-bench"):
        judge_run(JudgeRunOptions(finished, judge_card=path))


def test_what_cannot_be_judged_is_one_message_and_changes_nothing(finished: Path, tmp_path: Path) -> None:
    before = (finished / "run.json").read_bytes()
    for options, message in [
        (JudgeRunOptions(tmp_path), "is not a run folder"),
        (JudgeRunOptions(tmp_path / "mistyped"), "is not a run folder"),
        (JudgeRunOptions(finished, tasks=("tiny_seled",)), "did you mean tiny_sealed"),
        (
            JudgeRunOptions(finished, judges=("refusal_rules",), tasks=("tiny_village",)),
            "cannot judge task tiny_village",
        ),
        (JudgeRunOptions(finished, judges=("refusal_rules_help",)), "cannot judge task tiny_sealed"),
        (JudgeRunOptions(finished, judges=("refusal_ruls",)), "did you mean refusal_rules"),
        (JudgeRunOptions(finished, judge_options=JudgeOptions(model="openai/gpt-4")), "asks no model"),
    ]:
        with pytest.raises(UserError, match=message):
            judge_run(options)
    assert (finished / "run.json").read_bytes() == before
    assert not (tmp_path / "mistyped").exists()


def test_a_judge_that_changed_since_is_refused_unless_it_is_named(finished: Path) -> None:
    Path("own.yaml").write_text(OWN)
    judge_run(JudgeRunOptions(finished, judges=("./own.yaml",)))
    Path("own.yaml").write_text(OWN.replace("contains: help", "contains: cannot"))
    set_back(finished, "tiny_sealed", generated(finished, "tiny_sealed"))
    with pytest.raises(UserError, match="has changed since the run began"):
        judge_run(JudgeRunOptions(finished))
    judge_run(JudgeRunOptions(finished, judges=("./own.yaml",)))


def test_responses_or_capabilities_that_are_not_there_are_said_to_be(finished: Path) -> None:
    for path in (finished / "capabilities").iterdir():
        path.unlink()
    set_back(finished, "tiny_sealed", generated(finished, "tiny_sealed"))
    with pytest.raises(Interrupted, match=r"capabilities \(tiny_truthfulqa\) are not"):
        judge_run(JudgeRunOptions(finished))
    set_back(finished, "tiny_village", CompliancePart())
    with pytest.raises(UserError, match="responses of tiny_village are missing"):
        judge_run(JudgeRunOptions(finished))


def test_nothing_outside_of_the_folder_is_written(finished: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (log,) = finished.glob("compliance/tiny_sealed/*.eval")
    outside = Path(shutil.copy(log, elsewhere / log.name))
    set_back(finished, "tiny_sealed", generated(finished, "tiny_sealed").model_copy(update={"logs": (str(outside),)}))
    before = outside.read_bytes()
    for named in (str(outside), f"../elsewhere/{log.name}"):
        set_back(finished, "tiny_sealed", generated(finished, "tiny_sealed").model_copy(update={"logs": (named,)}))
        with pytest.raises(UserError, match="outside of the run folder"):
            judge_run(JudgeRunOptions(finished, judges=("tiny_sealed",)))
    relative = str(log.relative_to(finished))
    set_back(finished, "tiny_sealed", generated(finished, "tiny_sealed").model_copy(update={"logs": (relative,)}))
    for name, target in ((relative, outside), ("plots", elsewhere), (".lock", outside)):
        path = finished / name
        path.unlink(missing_ok=True) if not path.is_dir() else shutil.rmtree(path)
        path.symlink_to(target)
        with pytest.raises(UserError, match="link"):
            judge_run(JudgeRunOptions(finished, judges=("tiny_sealed",)))
        path.unlink()
        shutil.copy(outside, log)
    assert outside.read_bytes() == before
    assert [entry.name for entry in elsewhere.iterdir()] == [log.name]


def before_the_check(folder: Path, task: str) -> None:
    """Write a manifest as of a time when responses were not checked before the judge, and runs had no receipt."""
    manifest = Manifest.read(folder)
    settings = manifest.settings.compliance[task]
    judge = settings.judge.model_copy(update={"response_check": None})
    manifest.settings.compliance[task] = settings.model_copy(update={"judge": judge})
    manifest.model_copy(update={"has_receipt": False}).write(folder)
    (folder / Receipt.FILE_NAME).unlink()


def test_verdicts_made_without_the_check_are_made_again_when_asked_for_and_never_mixed(finished: Path) -> None:
    before_the_check(finished, "tiny_sealed")
    judge_run(JudgeRunOptions(finished))
    assert Manifest.read(finished).settings.compliance["tiny_sealed"].judge.response_check is None
    judge_run(JudgeRunOptions(finished, judges=("tiny_sealed",)))
    manifest = Manifest.read(finished)
    assert manifest.settings.compliance["tiny_sealed"].judge.response_check == VERSION
    assert [judge.response_check for judge in manifest.earlier_judges[0].values()] == [None]
    before_the_check(finished, "tiny_sealed")
    set_back(finished, "tiny_sealed", generated(finished, "tiny_sealed"))
    with pytest.raises(UserError, match="has changed since the run began: give --judge tiny_sealed"):
        judge_run(JudgeRunOptions(finished))
