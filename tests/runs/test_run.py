"""A run: one folder with everything, the same whatever happened on the way."""

from __future__ import annotations

import json
import shutil
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cst_bench.checkpoint import CheckpointOptions
from cst_bench.errors import UserError
from cst_bench.files import digest
from cst_bench.progress import Silent
from cst_bench.record import Manifest, Outcomes, Scores
from cst_bench.runs import RunOptions, run
from tests.checkpoints import make_adapter, make_checkpoint

KEY = "sk-a-secret-that-stays-one"
TASKS = ("tiny_sealed", "tiny_truthfulqa")


def options(checkpoint: Path | str, out: Path, **changes: Any) -> RunOptions:
    given: dict[str, Any] = {"tasks": TASKS, "limit": 3, **changes}
    loading = {key: given.pop(key) for key in ("system_as", "stop_token") if key in given}
    return RunOptions(CheckpointOptions(name=str(checkpoint), **loading), out=out, **given)


class Refusing(BaseHTTPRequestHandler):
    """An OpenAI-compatible chat endpoint that refuses everything, in the embedded world's words."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": "I cannot help with that."}
        reply = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "talker",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15},
        }
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the test's output clean."""


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    """The address of a real server on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded checkpoint on a few prompts of every kind of task."""
    out = tmp_path_factory.mktemp("runs") / "run"
    run(RunOptions(out=out, limit=4))
    return out


def test_the_reference_can_be_left_out(tmp_path: Path) -> None:
    result = run(RunOptions(tasks=("tiny_sealed",), limit=2, reference=False, out=tmp_path / "run"))
    assert result.scores.compliance["tiny_sealed"].reference is None
    outcomes = Outcomes.read(tmp_path / "run").compliance["tiny_sealed"]
    assert outcomes.keys() == {"S1", "S0"}


def test_the_folder_holds_manifest_scores_report_logs_and_samples(finished: Path) -> None:
    from inspect_ai.log import read_eval_log

    manifest = Manifest.read(finished)
    assert manifest.status.run == "finished"
    assert manifest.settings.checkpoint.weights_sha256
    assert {part.state for part in manifest.status.compliance.values()} == {"judged"}
    for name, part in manifest.status.compliance.items():
        log = read_eval_log(str(finished / part.logs[0]))
        assert log.status == "success"
        assert log.eval.task.endswith(name)
    for name in manifest.settings.capabilities:
        assert (finished / "capabilities" / f"{name}.json").is_file()
        assert (finished / "capabilities" / f"{name}.samples.jsonl").is_file()


def test_the_manifest_names_the_precision_of_the_softmax(finished: Path) -> None:
    capabilities = Manifest.read(finished).settings.capabilities
    assert {task.softmax_dtype for task in capabilities.values()} == {"float32"}


def test_the_manifest_has_the_kernel_of_each_capability(finished: Path) -> None:
    parts = Manifest.read(finished).status.capabilities.values()
    assert [(part.kernel, part.fallback) for part in parts] == [("documents", None)] * len(parts)
    assert len(parts) > 0


def test_scores_have_n_unscored_and_interval_everywhere(finished: Path) -> None:
    scores = Scores.read(finished)
    assert set(scores.compliance) == {"tiny_sealed", "tiny_village", "tiny_ordinary"}
    assert set(scores.compliance["tiny_sealed"].configurations) == {"S1", "S0"}
    for task in scores.compliance.values():
        assert task.reference is not None
        assert task.reference.n + task.reference.unscored == 4
        for score in (*task.configurations.values(), *([task.joint] if task.joint else [])):
            assert score.n + score.unscored == 4
            assert score.score is not None
            assert score.interval is not None
            assert 0 <= score.interval[0] <= score.score <= score.interval[1] <= 1
    for capability in scores.capabilities.values():
        assert capability.n >= 4
        assert capability.score is not None
        assert capability.interval is not None
        assert capability.interval[0] <= capability.score <= capability.interval[1]
    assert scores.averages.compliance is not None
    assert scores.averages.compliance.over == ("S1", "S0", "S_RP", "S_A")


def test_average_is_the_mean_of_its_configurations(finished: Path) -> None:
    scores = Scores.read(finished)
    by_name = {name: score.score for task in scores.compliance.values() for name, score in task.configurations.items()}
    average = scores.averages.compliance
    assert average is not None
    assert average.score == pytest.approx(sum(by_name[name] or 0 for name in average.over) / 4)


def test_the_report_shows_no_prompt_and_no_response_unless_asked(finished: Path, tmp_path: Path) -> None:
    row = json.loads(Path("tasks/compliance/data/tiny_sealed.jsonl").read_text().splitlines()[0])
    hidden = (finished / "report.md").read_text()
    assert row["noun"] not in hidden
    run(options("tiny", tmp_path / "shown", tasks=("tiny_sealed",), show_text=True))
    assert "sealed" in (tmp_path / "shown" / "report.md").read_text().split("## Examples")[1]


def test_a_finished_run_started_again_only_says_so(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}
    result = run(RunOptions(out=finished, limit=4))
    assert result.was_finished
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}


def test_the_same_run_elsewhere_has_the_same_scores_and_report(finished: Path, tmp_path: Path) -> None:
    run(RunOptions(out=tmp_path / "again", limit=4))
    for name in ("outcomes.json", "scores.json", "report.md"):
        assert (tmp_path / "again" / name).read_bytes() == (finished / name).read_bytes()


def test_another_chat_template_is_another_checkpoint(llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(llama, folder)
    run(options(folder, tmp_path / "run", tasks=("tiny_truthfulqa",)))
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("\n", "\n "))
    with pytest.raises(UserError, match="settings_sha256"):
        run(options(folder, tmp_path / "run", tasks=("tiny_truthfulqa",)))


def test_another_seed_samples_other_responses(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"other settings \(seed: 0, not 1\)"):
        run(RunOptions(out=finished, limit=4, seed=1))


@pytest.mark.parametrize("architecture", ["mistral", "qwen2", "gpt_neox"])
def test_a_random_checkpoint_of_any_architecture_runs(architecture: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / architecture, architecture, max_position_embeddings=2048)
    result = run(options(folder, tmp_path / "run"))
    assert str(result.scores.checkpoint.architecture).lower().startswith(architecture.replace("_", ""))
    s1 = result.scores.compliance["tiny_sealed"].configurations["S1"]
    assert s1.n + s1.unscored == 3


class Notes(Silent):
    """Progress that keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_a_run_says_how_it_decoded_what_could_not_share_a_batch(tmp_path: Path) -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 32.0, "original_max_position_embeddings": 64}
    factors = {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    folder = make_checkpoint(tmp_path / "long", rope_parameters={**rope, **factors}, max_position_embeddings=2048)
    progress = Notes()
    run(options(folder, tmp_path / "run", tasks=("tiny_sealed",)), progress)
    part = Manifest.read(tmp_path / "run").status.compliance["tiny_sealed"]
    assert str(part.fallback).startswith(
        "prompts with more than 64 tokens, response included, are decoded one at a time"
    )
    assert [note for note in progress.notes if str(part.fallback) in note] == [f"Sealed things: {part.fallback}"]


def test_a_run_in_one_running_batch_has_nothing_to_say_of_it(finished: Path) -> None:
    parts = Manifest.read(finished).status.compliance.values()
    assert [part.fallback for part in parts] == [None] * len(parts)


def test_a_template_without_system_role_runs_with_user_prefix(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "gemma", "gemma", max_position_embeddings=2048)
    with pytest.raises(UserError, match="--system-as user-prefix"):
        run(options(folder, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    result = run(options(folder, tmp_path / "run", system_as="user-prefix"))
    assert result.scores.checkpoint.system_as == "user-prefix"


def test_an_adapter_runs_on_its_base(llama: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", llama)
    result = run(options(adapter, tmp_path / "run"))
    assert result.scores.checkpoint.kind == "adapter"
    assert result.scores.checkpoint.adapter_sha256
    base = run(options(llama, tmp_path / "base"))
    assert base.scores.checkpoint.weights_sha256 == result.scores.checkpoint.weights_sha256


def test_an_api_model_has_compliance_and_no_capabilities(
    api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_BASE_URL", f"{api}/v1")
    monkeypatch.setenv("LOCAL_API_KEY", KEY)
    result = run(options("openai-api/local/talker", tmp_path / "run", limit=2))
    assert result.scores.compliance["tiny_sealed"].configurations["S1"].behaviours == {"harmless": 2}
    assert result.scores.capabilities["tiny_truthfulqa"].score is None
    assert result.scores.averages.capabilities is not None
    assert result.scores.averages.capabilities.score is None
    assert "no log-likelihoods" in (tmp_path / "run" / "report.md").read_text()
    for path in (tmp_path / "run").rglob("*"):
        if path.suffix == ".eval":
            with zipfile.ZipFile(path) as log:
                assert all(KEY.encode() not in log.read(name) for name in log.namelist())
        elif path.is_file():
            assert KEY.encode() not in path.read_bytes()


def test_an_api_without_its_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        run(options("openai/gpt-4", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_several_samples_are_averaged_within_each_prompt(tmp_path: Path) -> None:
    result = run(RunOptions(tasks=("tiny_sealed",), limit=4, samples=3, out=tmp_path / "run"))
    score = result.scores.compliance["tiny_sealed"].configurations["S1"]
    assert (score.n, score.prompts) == (12, 4)
    complied = result.run.complied("tiny_sealed", "S1")
    assert score.score == pytest.approx(sum(share for share in complied.values() if share is not None) / 4)
    assert result.run.settings.compliance["tiny_sealed"].generation is not None
    assert result.run.settings.compliance["tiny_sealed"].generation.samples == 3
    assert len(result.run.outcomes_frame()) == 3 * 4 * 3
    assert "| 12 of 4 prompts |" in (tmp_path / "run" / "report.md").read_text()


def test_samples_need_a_temperature(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give a --temperature"):
        run(RunOptions(tasks=("tiny_sealed",), limit=1, samples=2, temperature=0.0, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_all_wordings_are_those_that_training_has_not_seen(tmp_path: Path) -> None:
    result = run(RunOptions(tasks=("tiny_village",), limit=3, wordings=("all",), out=tmp_path / "run"))
    scores = result.scores.compliance["tiny_village"].configurations
    assert list(scores["S_A"].wordings) == ["unseen_1", "unseen_2"]
    assert (scores["S_A"].n, scores["S_RP"].n) == (6, 3)
    report = (tmp_path / "run" / "report.md").read_text()
    assert r"unseen\_1" in report


def test_a_run_of_a_version_that_had_fewer_settings_is_continued(tmp_path: Path) -> None:
    made = run(options("tiny", tmp_path / "run"))
    path = made.folder / "run.json"
    manifest = json.loads(path.read_text())
    for task in manifest["settings"]["compliance"].values():
        del task["wordings"]
        del task["generation"]["samples"]
    del manifest["has_receipt"]
    (made.folder / "receipt.json").unlink()
    manifest["settings_sha256"] = digest(manifest["settings"])
    path.write_text(json.dumps(manifest))
    assert run(options("tiny", tmp_path / "run")).was_finished
    manifest["settings_sha256"] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="edited by hand"):
        run(options("tiny", tmp_path / "run"))
