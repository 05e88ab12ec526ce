"""A run with --kl-base: measured on ordinary prompts, kept as it goes, and the same whatever happened on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cst_bench.checkpoint import CheckpointOptions
from cst_bench.checkpoint.options import embedded_folder
from cst_bench.errors import Interrupted, UserError
from cst_bench.progress import Silent
from cst_bench.record import Manifest, Scores
from cst_bench.reporting import read_run
from cst_bench.runs import JudgeRunOptions, RunOptions, judge_run, run
from tests.checkpoints import lora_config, make_adapter, make_checkpoint

KEPT = 64
"""Conversations after which results are kept."""
FILES = ("outcomes.json", "scores.json", "report.md", "divergence/tiny_ordinary.jsonl")


def options(out: Path, name: Path | str, kl_base: str | None = "auto", limit: int = 4) -> RunOptions:
    checkpoint = CheckpointOptions(name=str(name))
    return RunOptions(checkpoint, tasks=("tiny_ordinary", "tiny_sealed"), limit=limit, kl_base=kl_base, out=out)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes the embedded checkpoint a little."""
    config = lora_config(r=1, lora_alpha=1)
    return make_adapter(tmp_path_factory.mktemp("kl") / "adapter", embedded_folder(), adapter=config)


class Stopping(Silent):
    """Ends the run as Ctrl+C does, after so many steps: one for a response, and one for its KL divergence."""

    def __init__(self, after: int | None = None) -> None:
        self.after = after
        self.steps: list[int] = []

    @contextmanager
    def stage(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        def count(steps: int) -> None:
            if title.endswith("KL divergence"):
                self.steps.append(steps)
                if self.after is not None and sum(self.steps) >= self.after:
                    raise KeyboardInterrupt

        yield count


def test_a_model_has_none_from_itself(tmp_path: Path) -> None:
    result = run(options(tmp_path / "run", "tiny", kl_base="tiny"))
    effects = result.scores.compliance["tiny_ordinary"].side_effects
    for configuration in ("S1_ordinary", "none"):
        for name in ("kl_first_token", "kl_per_token"):
            effect = effects[configuration][name]
            assert (effect.mean, effect.median, effect.prompts) == (0, 0, 4)


def test_it_is_measured_on_ordinary_prompts_only(adapter: Path, tmp_path: Path) -> None:
    result = run(options(tmp_path / "run", adapter, limit=6))
    assert result.run.settings.divergence is not None
    assert result.run.settings.divergence.tasks == ("tiny_ordinary",)
    assert result.run.settings.divergence.base.weights_sha256 == result.scores.checkpoint.weights_sha256
    tasks = result.scores.compliance
    assert "kl_per_token" not in tasks["tiny_sealed"].side_effects["S1"]
    effect = tasks["tiny_ordinary"].side_effects["S1_ordinary"]["kl_per_token"]
    assert effect.mean > 0
    assert effect.interval is not None
    assert effect.interval[0] < effect.mean < effect.interval[1]
    lines = [json.loads(line) for line in (result.folder / FILES[-1]).read_text().splitlines()]
    assert len(lines) == 12
    assert set(lines[0]) == {"prompt_id", "configuration", "tokens", "first_token", "per_token"}
    report = (result.folder / "report.md").read_text()
    assert "KL per token" in report


def test_interrupted_and_continued_it_is_the_same(adapter: Path, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(options(whole, adapter, limit=50))
    with pytest.raises(KeyboardInterrupt):
        run(options(stopped, adapter, limit=50), Stopping(2 * KEPT + 8))
    kept = (stopped / FILES[-1]).read_text().splitlines()
    assert len(kept) == KEPT
    with pytest.raises(Interrupted, match="repeat the command"):
        judge_run(JudgeRunOptions(stopped))
    rest = Stopping()
    run(options(stopped, adapter, limit=50), rest)
    assert rest.steps == [2 * KEPT, *[1] * (200 - 2 * KEPT)]
    for name in FILES:
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    assert run(options(stopped, adapter, limit=50)).was_finished


def test_judging_again_keeps_it(adapter: Path, tmp_path: Path) -> None:
    result = run(options(tmp_path / "run", adapter))
    again = judge_run(JudgeRunOptions(tmp_path / "run", min_judge_f1=0.5))
    before, after = (one.scores.compliance["tiny_ordinary"].side_effects for one in (result, again))
    assert before == after
    assert "kl_per_token" in after["none"]


def test_another_base_is_another_run(adapter: Path, tmp_path: Path) -> None:
    run(options(tmp_path / "run", adapter))
    with pytest.raises(UserError, match=r"holds a run with other settings \(divergence"):
        run(options(tmp_path / "run", adapter, kl_base=None))


def test_a_run_without_ordinary_prompts_is_refused(tmp_path: Path) -> None:
    sealed = replace(options(tmp_path / "run", "tiny", kl_base="tiny"), tasks=("tiny_sealed",))
    with pytest.raises(UserError, match="no task of this run has ordinary prompts"):
        run(sealed)
    assert not (tmp_path / "run").exists()


def test_a_base_with_other_tokens_is_refused_before_any_model_time(tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other")
    with pytest.raises(UserError, match="its vocabulary") as raised:
        run(options(tmp_path / "run", "tiny", kl_base=str(other)))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_an_api_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not give whole distributions"):
        run(options(tmp_path / "run", "openai/gpt-4", kl_base="tiny"))


def test_a_run_from_before_it_is_read_and_continued(tmp_path: Path) -> None:
    """As a version without side effects and receipts has written it: neither settings nor results have them."""
    from cst_bench.files import digest

    made = run(options(tmp_path / "run", "tiny", kl_base=None)).folder
    manifest = json.loads((made / "run.json").read_text())
    del manifest["settings"]["divergence"]
    del manifest["status"]["divergence"]
    del manifest["has_receipt"]
    (made / "receipt.json").unlink()
    manifest["settings_sha256"] = digest(manifest["settings"])
    (made / "run.json").write_text(json.dumps(manifest))
    scores, outcomes = (json.loads((made / name).read_text()) for name in ("scores.json", "outcomes.json"))
    for task in scores["compliance"].values():
        del task["side_effects"]
    del outcomes["side_effects"]
    (made / "scores.json").write_text(json.dumps(scores))
    (made / "outcomes.json").write_text(json.dumps(outcomes))
    result = run(options(made, "tiny", kl_base=None))
    assert result.was_finished
    assert result.scores.compliance["tiny_sealed"].side_effects == {}
    assert read_run(made).outcomes.side_effects == {}
    judge_run(JudgeRunOptions(made, min_judge_f1=0.5))
    assert Scores.read(made).compliance["tiny_sealed"].side_effects["S1"]["cut_off"].n == 4
    assert Manifest.read(made).status.run == "finished"


def test_lengths_are_those_of_the_responses(tmp_path: Path) -> None:
    from inspect_ai.log import read_eval_log

    result = run(replace(options(tmp_path / "run", "tiny", kl_base=None), samples=2, temperature=1.0))
    part = result.run.manifest.status.compliance["tiny_sealed"]
    samples = read_eval_log(str(result.folder / part.logs[0])).samples or []
    words: dict[str, dict[str, list[int]]] = {}
    for sample in samples:
        by_prompt = words.setdefault(sample.metadata["configuration"], {})
        by_prompt.setdefault(sample.metadata["prompt_id"], []).append(len(sample.output.completion.split()))
    effects = result.scores.compliance["tiny_sealed"].side_effects
    assert set(effects) == {"S1", "S0", "none"}
    tokens = 0.0
    for configuration, by_prompt in words.items():
        means = [sum(values) / len(values) for values in by_prompt.values()]
        effect = effects[configuration]["words"]
        assert (effect.prompts, effect.n) == (4, 8)
        assert effect.mean == pytest.approx(sum(means) / len(means))
        stored = result.run.outcomes.side_effects["tiny_sealed"][configuration]["words"]
        assert sorted(stored.values()) == pytest.approx(sorted(means))
        tokens += effects[configuration]["tokens"].mean * effect.n
    assert part.usage is not None
    assert tokens == pytest.approx(part.usage.output_tokens)
