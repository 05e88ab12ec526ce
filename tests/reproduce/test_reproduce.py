"""Reproductions: what their files may say, the steps they come down to, tables, and the whole chain, killed and not."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from rich.console import Console

from cst_bench.checkpoint.options import embedded_folder
from cst_bench.content import content_root
from cst_bench.errors import UserError
from cst_bench.files import prompt_hash
from cst_bench.interruption import announce
from cst_bench.reporting import StoredRun, read_run
from cst_bench.reporting.score_cells import Cell, ScoreTable
from cst_bench.reporting.terminal import score_tables
from cst_bench.reproduce import ReproduceOptions, load_reproduction, reproduce
from cst_bench.reproduce.chain import report_text, table_as_json
from cst_bench.reproduce.ingredients import ingredients, with_data_of
from cst_bench.reproduce.paper_tables import flags_in, make_tables
from cst_bench.reproduce.steps import Step, steps
from cst_bench.reproduce.workers import StepFailed, run_steps
from cst_bench.table_files import read_any
from tests.calibration.labelled import rows, write_rows
from tests.cli.interrupted import running
from tests.cli.invoke import command, invoke
from tests.judging.servers import JudgeServer, by_response, serving
from tests.mirrors import MIRRORS
from tests.reporting.stored_runs import make_run
from tests.test_published_data import DATA

SMALL: dict[str, Any] = {
    "name": "small",
    "version": 1,
    "title": "A small chain",
    "description": "One task, one seed.",
    "source": "made up",
    "tuned": "Nothing.",
    "models": {"tiny": {"title": "the embedded one", "checkpoint": "tiny", "recipe": "quick.yaml"}},
    "critiques": {"tiny_sealed": "tiny_harmless"},
    "variants": {"dpo": {"title": "DPO", "method": "dpo"}, "cst": {"title": "CST", "method": "cst"}},
    "sets": {"one": {"title": "one", "pairs": ["tiny_sealed"], "variants": ["dpo", "cst"], "tasks": ["tiny_sealed"]}},
    "seeds": [0],
    "tables": [{"title": "Table I", "set": "one", "columns": ["S1", "S0"]}],
}
QUICK = {"trl": {"max_steps": 2, "gradient_checkpointing": False, "per_device_train_batch_size": 2}}


def write_small(folder: Path, **changes: Any) -> Path:
    """A reproduction file, and the recipe that it names."""
    recipe = {"name": "quick", "version": 1, "title": "quick", "base": "tiny", "lora": {"r": 2}, **QUICK}
    (folder / "quick.yaml").write_text(yaml.safe_dump(recipe))
    plan = {**SMALL, **changes}
    plan["models"] = {name: {**of, "recipe": str(folder / "quick.yaml")} for name, of in plan["models"].items()}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {"base": {"title": "x", "method": "cst"}}}, "no such variant|can't be called base"),
        ({"sets": {"one": {**SMALL["sets"]["one"], "variants": ["cts"]}}}, "no such variant: did you mean cst"),
        (
            {"sets": {"one": {**SMALL["sets"]["one"], "pairs": ["tiny_village"]}}},
            "give either a critique or released pairs",
        ),
        ({"released": {"tiny_sealed": "pairs.jsonl"}}, "give either a critique or released pairs for task tiny_sealed"),
        ({"sets": {"one": {**SMALL["sets"]["one"], "suite": "tiny"}}}, "give either suite or tasks"),
        ({"tables": [{"title": "T", "set": "on", "columns": ["S1"]}]}, "T: no such set: did you mean one"),
        ({"tables": [{**SMALL["tables"][0], "published": "table_4"}]}, "nothing published: did you mean table_"),
        ({"seeds": []}, "seeds"),
        ({"epochs": 3}, "epochs"),
    ],
)
def test_a_fault_in_a_reproduction_file_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_reproduction(str(write_small(tmp_path, **changes)))


def test_models_of_ones_own_take_the_place_of_the_files(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({"models": {"solar": {"title": "x", "checkpoint": "./x", "recipe": "tiny"}}}))
    found = load_reproduction("paper", mine)
    assert found.models["solar"].checkpoint == "./x"
    assert found.models["openhermes"] == load_reproduction("paper").models["openhermes"]
    mine.write_text(yaml.safe_dump({"models": {"solr": {"title": "x", "checkpoint": "./x", "recipe": "tiny"}}}))
    with pytest.raises(UserError, match="paper has no model 'solr': did you mean solar"):
        load_reproduction("paper", mine)


@pytest.mark.parametrize("name", ["tiny", "paper", "smollm2"])
def test_every_variant_of_a_set_is_made_of_the_same_pairs_by_the_same_recipe(name: str, tmp_path: Path) -> None:
    plan = load_reproduction(name)
    todo = list(steps(plan, tmp_path, limit=None, data={}, options={}))
    names = [step.name for step in todo]
    assert len(set(names)) == len(names)
    for step in todo:  # each after those that it needs
        assert set(step.after) <= set(names[: names.index(step.name)])
    trainings = [step for step in todo if step.command[0] == "train"]
    variants = sum(len(of.variants) for of in plan.sets.values())
    assert len(trainings) == len(plan.models) * variants * len(plan.seeds)
    for model in plan.models.values():
        of_model = [step for step in trainings if step.command[3] == model.checkpoint]
        assert {step.command[1] for step in of_model} == {model.recipe}
        assert not [part for step in of_model for part in step.command if part in ("--set", "--method")]
    runs = [step for step in todo if step.command[0] == "run"]
    assert len(runs) == len(trainings) + len(plan.models) * len(plan.sets)
    mixes = [step.command for step in todo if step.command[:2] == ("data", "mix")]
    extra = sum(len(of.rows) * len(of.variants) for of in plan.sets.values()) * len(plan.models)
    assert sum(command.count("--without-held-out") for command in mixes) == extra


def test_released_pairs_replace_self_critique(tmp_path: Path) -> None:
    rows = [{"source": "org/rows", "task": "tiny_village", "weight": 0.5}]
    changes = {
        "critiques": {},
        "released": {"tiny_sealed": "org/pairs"},
        "sample": 7,
        "documents": {"tiny_arc": 9, "mmlu": 5},
        "dtype": "bfloat16",
        "reference": False,
        "sets": {
            "one": {
                **SMALL["sets"]["one"],
                "rows": rows,
                "tasks": ["tiny_sealed", "tiny_arc"],
                "judges": ["local", "identity_rules"],
            },
            "two": {**SMALL["sets"]["one"], "judges": ["local"]},
        },
    }
    plan = load_reproduction(str(write_small(tmp_path, **changes)))
    data = {"org/pairs": "mine.json"}
    commands = {step.name: step for step in steps(plan, tmp_path, limit=None, data=data, options={})}
    assert not [step for step in commands.values() if step.command[:2] == ("data", "critique")]
    for method in ("dpo", "cst"):
        flip = commands[f"flip tiny tiny_sealed {method}"]
        assert flip.after == ()
        assert flip.command[2:9] == ("mine.json", "--task", "tiny_sealed", "--method", method, "--sample", "7")
        assert "org/rows=0.5" in commands[f"rows tiny one {method}"].command
    run = " ".join(commands["run tiny one base"].command)
    assert "--documents tiny_arc=9 --judge local --judge identity_rules --no-reference --dtype bfloat16" in run
    assert "mmlu" not in run
    assert [part for part in commands["run tiny two base"].command if part in ("local", "identity_rules")] == ["local"]
    (tmp_path / "mine.json").write_text("[]")
    with_data = ingredients(plan, {"org/pairs": str(tmp_path / "mine.json")})
    assert with_data.keys() - ingredients(plan, {}).keys() == {"data org/pairs"}


def test_one_folder_holds_the_data_of_tasks_rows_and_pairs(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for name in ("arc", "mmlu"):
        (folder / name).mkdir(parents=True)
    for name in ("truthy.jsonl", "configurable-system-prompt-multitask.json", "xstest_prompts.csv"):
        (folder / name).write_text("[]")
    found = with_data_of(load_reproduction("smollm2"), {"mmlu": "mine"}, folder)
    assert {name: Path(path).name for name, path in found.items()} == {
        "truthy": "truthy.jsonl",
        "jondurbin/truthy-dpo-v0.1": "truthy.jsonl",
        "vicgalle/configurable-system-prompt-multitask": "configurable-system-prompt-multitask.json",
        "xstest_safe": "xstest_prompts.csv",
        "xstest_unsafe": "xstest_prompts.csv",
        "arc_challenge": "arc",
        "mmlu": "mine",
    }
    with pytest.raises(UserError, match="has no data for any task of this run"):
        with_data_of(load_reproduction("tiny"), {}, folder)


def test_dpo_with_as_many_steps_sees_its_rows_twice(tmp_path: Path) -> None:
    mixes = {
        step.name: step.command
        for step in steps(load_reproduction("tiny"), tmp_path, limit=None, data={}, options={})
        if step.command[:2] == ("data", "mix")
    }
    weights = {
        variant: [
            part.rpartition("=")[2] for part in mixes[f"rows tiny multi {variant}"] if part.startswith(str(tmp_path))
        ]
        for variant in ("dpo", "dpo_steps", "cst")
    }
    assert [of[:2] for of in weights.values()] == [["1", "1"], ["2", "2"], ["1", "1"]]


VILLAGE = {"tiny_sealed": {"S1": "harmless", "S0": "uncensored"}}
Runs = dict[tuple[str, str, str], list[StoredRun]]


def run_of(folder: Path, s1: float, s0: float, **options: Any) -> StoredRun:
    """Make a stored run of one task with these shares of 20 prompts, and no capabilities."""
    made = {"tasks": VILLAGE, "capabilities": {}, "prompts": 20, "average": ("S1", "S0"), **options}
    return read_run(make_run(folder, folder.name, {"S1": s1, "S0": s0}, **made))


def cells_of(table: ScoreTable, row: int) -> list[Cell]:
    return [table.rows[row].cells[column.key] for column in table.columns]


def test_flags_of_a_run_are_in_the_tables(tmp_path: Path) -> None:
    plan = load_reproduction(str(write_small(tmp_path)))
    plain = run_of(tmp_path / "plain", 0.9, 0.9)
    doubtful = run_of(tmp_path / "doubtful", 0.9, 0.9, behaviours={"S1": ["harmless", *[None] * 19]})
    runs: Runs = {("tiny", "one", variant): [plain] for variant in ("base", "dpo")}
    runs["tiny", "one", "cst"] = [plain, doubtful]
    (table,) = make_tables(plan, runs)
    assert [cell.flags for cell in cells_of(table, 0)] == [(), (), ()]
    assert [cell.flags for cell in cells_of(table, 2)] == [("unscored",), (), ("unscored",)]
    shown = io.StringIO()
    Console(file=shown, width=80).print(score_tables([table], flags_in([table], runs)))
    assert shown.getvalue().count("(x)") == 3  # two scores and the flag's meaning
    assert "(x) unscored: more than 2%" in shown.getvalue()


def seeds_of(folder: Path, rates: Sequence[tuple[float, float]]) -> Runs:
    """Make the runs of a base, and of DPO and CST with a seed for each of DPO's rates."""
    return {
        ("tiny", "one", "base"): [run_of(folder / "base", 0.7, 0.8)],
        ("tiny", "one", "dpo"): [
            run_of(folder / f"dpo-{seed}", *rate, method="dpo", seed=seed) for seed, rate in enumerate(rates)
        ],
        ("tiny", "one", "cst"): [
            run_of(folder / f"cst-{seed}", 1.0, 1.0, method="cst", seed=seed) for seed in range(len(rates))
        ],
    }


def test_tables_of_few_seeds_hold_means_ranges_and_every_seed(tmp_path: Path) -> None:
    plan = load_reproduction(str(write_small(tmp_path)))
    rates = [(0.9, 0.2), (0.8, 0.1), (0.95, 0.0)]
    runs = seeds_of(tmp_path, rates)
    (table,) = make_tables(plan, runs)
    assert [(row.title, row.runs) for row in table.rows] == [("the embedded one", 1), ("+ DPO", 3), ("+ CST", 3)]
    assert [column.title for column in table.columns] == ["S1", "S0", "Avg."]
    base, dpo, cst = (cells_of(table, at) for at in range(3))
    assert [cell.score for cell in base] == pytest.approx([0.7, 0.8, 0.75])
    (base_run,) = runs["tiny", "one", "base"]
    assert base[0].interval == base_run.scores.compliance["tiny_sealed"].configurations["S1"].interval
    for at, values in enumerate([[a for a, _ in rates], [b for _, b in rates], [(a + b) / 2 for a, b in rates]]):
        assert dpo[at].score == pytest.approx(statistics.fmean(values))
        assert dpo[at].interval is None
        assert dpo[at].seed_range == pytest.approx((min(values), max(values)))
        assert [cells_of_seed[table.columns[at].key].score for cells_of_seed in seed_cells(table, 1)] == values
        difference = dpo[at].difference
        assert difference is not None
        assert difference.difference == pytest.approx(statistics.fmean(values) - (base[at].score or 0))
        assert (difference.interval, difference.p) == (None, None)
    assert cst[0].seed_range == (1.0, 1.0)


def seed_cells(table: ScoreTable, row: int) -> list[Mapping[str, Cell]]:
    assert [seed.seed for seed in table.rows[row].seeds] == list(range(table.rows[row].runs))
    return [seed.cells for seed in table.rows[row].seeds]


def test_five_seeds_have_intervals_over_seeds_and_prompts_of_scores_and_differences(tmp_path: Path) -> None:
    plan = load_reproduction(str(write_small(tmp_path)))
    rates = [(0.9, 0.2), (0.8, 0.1), (0.95, 0.0), (0.9, 0.3), (0.85, 0.1)]
    runs = seeds_of(tmp_path, rates)
    (table,) = make_tables(plan, runs)
    for row in (1, 2):
        for cell, column in zip(cells_of(table, row), table.columns, strict=True):
            widths = [
                high - low for low, high in (cells[column.key].interval or (0, 1) for cells in seed_cells(table, row))
            ]
            assert cell.interval is not None
            assert cell.interval[0] <= (cell.score or 0) <= cell.interval[1]
            assert cell.interval[1] - cell.interval[0] >= min(widths) > 0
            assert cell.difference is not None
            assert cell.difference.interval is not None
            assert cell.difference.p is not None
    s0 = cells_of(table, 1)[1].difference
    assert s0 is not None
    assert s0.p is not None
    assert s0.p < 0.01  # 0.8 for the base, 0 to 0.3 for the seeds


def test_the_report_and_its_figures_name_every_seed(tmp_path: Path) -> None:
    plan = load_reproduction(str(write_small(tmp_path))).model_copy(update={"seeds": [0, 1, 2]})
    (table,) = make_tables(plan, seeds_of(tmp_path, [(0.9, 0.2), (0.8, 0.1), (0.95, 0.0)]))
    written = table_as_json(table)["rows"]
    assert isinstance(written, list)
    dpo: Any = written[1]
    assert [seed["scores"] for seed in dpo["seeds"]] == [
        [0.9, 0.2, pytest.approx(0.55)],
        [0.8, 0.1, 0.45],
        [0.95, 0.0, 0.475],
    ]
    assert dpo["ranges"][1] == [0.0, 0.2]
    assert dpo["intervals"] == [None, None, None]
    assert dpo["differences"][1]["difference"] == pytest.approx(-0.7)
    text = report_text(plan, [table], {}, {}, None)
    assert "| + DPO | 1 | 0.80 | 0.10 | 0.45 |" in text
    assert "0.00–0.20, range of 3 seeds" in text
    assert "too few for an interval or a test" in text
    assert "Student" not in text


def test_published_values_stand_beside_the_papers_models(tmp_path: Path) -> None:
    plan = load_reproduction("paper")
    run = read_run(make_run(tmp_path / "run", "run", {}))
    runs: Runs = {
        (model, name, variant): [run]
        for model in plan.models
        for name, data_set in plan.sets.items()
        for variant in ("base", *data_set.variants)
    }
    first, second, third = make_tables(plan, runs)
    assert [[cell.published for cell in cells_of(first, at)] for at in range(3)] == [
        [0.73, 0.85],
        [0.96, 0.12],
        [1.0, 1.0],
    ]
    assert [cell.published for cell in cells_of(second, 5)] == [0.96, 0.96, 0.94, 0.97, 0.96]
    assert [cell.published for cell in cells_of(third, 1)] == [None] * 5  # no DPO in Table III
    assert [cell.published for cell in cells_of(third, 2)] == [66.0, 84.3, 62.4, 61.7, 68.6]
    assert "Published for other models" not in report_text(plan, [first, second, third], {}, {}, None)


def test_published_values_of_other_models_follow_the_table(tmp_path: Path) -> None:
    table = {"title": "Table I", "set": "one", "columns": ["S1", "S0"], "published": "table_1"}
    plan = load_reproduction(str(write_small(tmp_path, tables=[table])))
    text = report_text(plan, make_tables(plan, seeds_of(tmp_path, [(0.9, 0.2)])), {}, {}, None)
    assert "| + DPO | 0.96 | 0.12 | – |" in text
    assert text.count("upstage/SOLAR-10.7B-Instruct-v1.0") == 1


def test_a_step_that_fails_shows_what_it_said(tmp_path: Path) -> None:
    bad = Step("run x", ("run", "no-such-checkpoint-anywhere"), tmp_path / "x")
    with pytest.raises(StepFailed, match=r"step 'run x' ended with status 2: .*\n(.*\n)*.*no-such-checkpoint-anywhere"):
        run_steps([bad], tmp_path / "logs", workers=1, done=lambda step, seconds: None)


def test_another_plan_in_the_same_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    path = write_small(tmp_path, models={"tiny": {"title": "x", "checkpoint": str(tmp_path / "empty"), "recipe": "y"}})
    out = str(tmp_path / "out")
    assert invoke(capsys, monkeypatch, "reproduce", str(path), "--out", out).status == 2
    again = invoke(capsys, monkeypatch, "reproduce", str(path), "--out", out, "--seed", "3")
    assert again.status == 2
    assert "a reproduction with other settings (reproduction.seeds: [0], not [3])" in " ".join(again.err.split())
    recipe = tmp_path / "quick.yaml"
    recipe.write_text(recipe.read_text().replace("r: 2", "r: 3"))
    again = invoke(capsys, monkeypatch, "reproduce", str(path), "--out", out)
    assert again.status == 2
    assert "a reproduction with other settings (sha256.recipe" in " ".join(again.err.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "tiny_sealedd=x.jsonl"), "did you mean tiny_sealed"),
        (("--data", "tiny_sealed=none.jsonl"), "no such file or folder"),
        (("--seed", "0", "--seed", "0"), "give each seed once"),
    ],
)
def test_bad_options_are_refused_before_anything_is_made(
    tmp_path: Path,
    arguments: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = invoke(
        capsys, monkeypatch, "reproduce", str(write_small(tmp_path)), "--out", str(tmp_path / "o"), *arguments
    )
    assert done.status == 2
    assert said in " ".join(done.err.split())
    assert not (tmp_path / "o").exists()


def left(folder: Path) -> dict[str, bytes]:
    """What a reproduction comes to."""
    return {name: (folder / name).read_bytes() for name in ("report.md", "tables.json")}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_chain_ends_as_one_that_never_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path / "cache"))
    path = write_small(tmp_path)
    whole = reproduce(ReproduceOptions(str(path), tmp_path / "whole", limit=16, workers=2))
    assert {row.title for table in whole.tables for row in table.rows} == {"the embedded one", "+ DPO", "+ CST"}
    out = tmp_path / "killed"
    given = ["reproduce", str(path), "--out", str(out), "--limit", "16", "--workers", "2"]
    first, second = out / "runs/tiny/one-base/run.json", out / "models/tiny/one-dpo-0/training.json"
    for made, kill in ((first, os.killpg), (second, os.kill)):  # with its steps, and alone
        process = subprocess.Popen(
            command(*given), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _wait_for(made, process)
        kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (out / "report.md").exists()
    seconds = json.loads((out / "reproduce.json").read_text())["seconds"]
    assert "pairs tiny tiny_sealed" in seconds
    done = subprocess.run(command(*given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pairs tiny tiny_sealed:" not in done.stderr  # not made again
    assert left(out) == left(tmp_path / "whole")


@pytest.mark.slow
def test_an_interrupted_chain_leaves_no_step_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    args = ("reproduce", str(write_small(tmp_path)), "--out", str(out), "--workers", "2")
    for number, twice in ((signal.SIGTERM, False), (signal.SIGINT, True)):
        with running(*args, cwd=tmp_path) as process:
            process.wait_until(lambda: (out / "runs/tiny/one-base/run.json").is_file())
            steps_running = psutil.Process(process.process.pid).children()
            assert len(steps_running) == 2
            process.interrupt(number, twice=twice)
            assert process.status() == 3, process.said
        assert not [step for step in steps_running if step.is_running()]
        assert "interrupted: finishing what is in flight in " in process.said
        assert f"the same command continues: cst-bench reproduce {tmp_path}" in process.said
    assert not (out / "report.md").exists()


@pytest.mark.slow
@pytest.mark.parametrize("twice", [False, True])
def test_a_signal_is_passed_on_to_the_steps_once(twice: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps wait for a judge's endpoint, and are in sessions of their own, so that no Ctrl-C reaches them."""
    monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    labels = write_rows(tmp_path / "labels.jsonl", rows())
    logs, said = tmp_path / "logs", list[str]()
    released = threading.Event()

    def reply(server: JudgeServer, handler: BaseHTTPRequestHandler, text: str, before: int) -> None:
        while not released.is_set() and not server.stopping.wait(0.02):
            pass
        by_response(choose)(server, handler, text, before)

    def interrupt(server: JudgeServer) -> None:
        wait_until(lambda: sum(server.asked.values()) == 16)
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: all("judge calls in flight (8)" in path.read_text() for path in logs.iterdir()))
        if twice:
            os.kill(os.getpid(), signal.SIGINT)
        else:
            released.set()

    others = set(psutil.Process().children())  # the process that renders chat templates
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    token = announce.set(said.append)
    try:
        with serving(reply) as server, ThreadPoolExecutor(1) as thread:
            asked = ("--judge-model", "judge", "--judge-base-url", server.url)
            verb = ("judge", "calibrate", "harmlessness", "--labels", str(labels), *asked)
            outs = {name: tmp_path / name for name in ("1", "2")}
            steps = [Step(name, (*verb, "--out", str(out)), out / "report.md") for name, out in outs.items()]
            interrupting = thread.submit(interrupt, server)
            with pytest.raises(KeyboardInterrupt):
                run_steps(steps, logs, workers=2, done=lambda step, seconds: None)
            interrupting.result()
            assert set(psutil.Process().children()) <= others
            assert said == ["interrupted: finishing what is in flight in 1, 2; again to stop at once"]
            assert sum(server.asked.values()) == 16
    finally:
        announce.reset(token)
        signal.signal(signal.SIGINT, before)
    for path in logs.iterdir():
        assert path.read_text().count("interrupted: finishing") == 1
        assert "interrupted; the same command continues" in path.read_text()


def wait_until(ready: Callable[[], bool]) -> None:
    for _ in range(6000):
        if ready():
            return
        time.sleep(0.05)
    raise AssertionError("waited too long")


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    for _ in range(3000):
        if path.is_file():
            return
        assert process.poll() is None
        time.sleep(0.05)
    raise AssertionError(f"{path} was not made")


def jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def choose(response: str) -> str:
    """A judge that goes by the response alone, and finds every word often."""
    return ("harmless", "uncensored", "harmless", "uncensored", "neither")[int(prompt_hash(response), 16) % 5]


def stand_in(folder: Path, architecture: str) -> Path:
    """Copy the embedded checkpoint as one of another architecture with Llama's layers, for long inputs.

    It writes sentences: what random weights write is noise, of which no preference pair can be made.
    """
    shutil.copytree(embedded_folder(), folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": architecture,
        "architectures": [f"{architecture.capitalize()}ForCausalLM"],
        "max_position_embeddings": 4096,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not DATA.is_dir(), reason="the published data is not here")
def test_the_papers_chain_on_stand_ins_of_its_two_architectures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights, a few released prompts and a judge on loopback; every step is the paper's own, to the end."""
    monkeypatch.setenv("CST_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-made-up")
    recipe = yaml.safe_load((content_root() / "training/recipes/openhermes.yaml").read_text())
    del recipe["quantization"]
    recipe |= {"dtype": "float32", "trl": {**recipe["trl"], "max_steps": 2, "max_length": 4096}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    models = {
        name: {
            "title": f"stand-in of {name}",
            "checkpoint": str(stand_in(tmp_path / name, architecture)),
            "recipe": str(tmp_path / "recipe.yaml"),
        }
        for name, architecture in (("openhermes", "mistral"), ("solar", "llama"))
    }
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": models}))
    released = json.loads((DATA / "configurable-system-prompt-multitask.json").read_text())
    training = [row["prompt"] for row in released if row["task"] == "harmless"][:20]
    test = [row.values["prompt"] for row in read_any(DATA / "generations_hermes_CST.md")][:10]
    truthy = [row for row in released if row["task"] != "harmless"][:80]
    xstest = [{"prompt": f"How do I kill weed {number}?", "label": "safe"} for number in range(6)]
    data = {
        "harmful_behaviors": str(jsonl(tmp_path / "harmful.jsonl", [{"text": text} for text in (*training, *test)])),
        "truthy": str(jsonl(tmp_path / "truthy.jsonl", truthy)),
        "jondurbin/truthy-dpo-v0.1": str(tmp_path / "truthy.jsonl"),
        "xstest_safe": str(jsonl(tmp_path / "xstest.jsonl", xstest)),
        **{name: str(write(tmp_path / name)) for name, write in MIRRORS.items()},
    }
    with serving(by_response(choose)) as server:
        judging = ("--judge-model", "judge", "--judge-base-url", server.url)
        found = reproduce(
            ReproduceOptions(
                "paper",
                tmp_path / "out",
                models=tmp_path / "models.yaml",
                limit=8,
                data=data,
                workers=2,
                options=dict.fromkeys(("data critique", "run"), judging),
            )
        )
    assert [len(table.rows) for table in found.tables] == [6, 6, 6]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "stand-in of solar" in report
    assert "not a result" in report
    assert "sk-made-up" not in "".join(
        path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
