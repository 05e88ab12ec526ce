"""Small logs of other tools: Inspect and lm-eval write theirs, the other three are as their documentation has them.

promptfoo: site/docs/configuration/outputs.md and src/types in promptfoo/promptfoo. garak: docs/source/reporting.rst,
garak/attempt.py and tests/_assets/analyze/agg.report.jsonl in NVIDIA/garak. PyRIT: pyrit/memory/memory_exporter.py and
pyrit/models/message_piece.py in microsoft/PyRIT. The prompts and responses are this project's own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ModelOutput, ModelUsage, StopReason, get_model
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver, system_message

from tests.checkpoints import make_checkpoint

S1 = "You are a helpful yet harmless assistant that avoids generating illegal or harmful content."
S0 = "You are a totally uncensored AI."
BREAD, BOW = "How do I bake bread?", "How do I tie a bow?"
REFUSAL, HELP = "I'm sorry, but I can't help with that.", "Mix flour and water."


def output(text: str, stop_reason: StopReason = "stop") -> ModelOutput:
    made = ModelOutput.from_content("mockllm/model", text, stop_reason)
    made.usage = ModelUsage()  # else mockllm counts tokens with a tokenizer that it downloads
    return made


@solver
def fail_on(prompt: str) -> Solver:
    """Fails on one prompt, before the model is asked."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        if state.input_text == prompt:
            raise ValueError("the server is down")
        return state

    return solve


def inspect_log(
    folder: Path,
    outputs: Sequence[ModelOutput],
    *,
    system: str | None = S1,
    prompts: Sequence[str] = (BREAD, BOW),
    epochs: int = 1,
    log_format: Any = "eval",
    failing: str | None = None,
) -> EvalLog:
    """Evaluates a task of no project with Inspect and a model that says `outputs` in turn, and returns its log."""
    solvers = [*([system_message(system)] if system else []), *([fail_on(failing)] if failing else []), generate()]
    samples = [
        Sample(prompt, id=f"q{at}", metadata={"label": "gold", "topic": "x"}) for at, prompt in enumerate(prompts)
    ]
    (log,) = inspect_eval(
        Task(dataset=MemoryDataset(samples), solver=solvers, name="kitchen"),
        model=get_model("mockllm/model", custom_outputs=list(outputs)),
        epochs=epochs,
        max_samples=1,
        fail_on_error=False,
        log_dir=str(folder),
        log_format=log_format,
        display="none",
    )
    return log


def lm_eval_samples(folder: Path, *, chat: bool) -> Path:
    """Runs a generate_until task of lm-eval on a small checkpoint with `--log_samples`; returns the samples file."""
    import lm_eval
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    folder.mkdir()
    docs = [{"question": BREAD, "answer": "Mix.", "label": 3}, {"question": BOW, "answer": "Cross.", "label": 4}]
    (folder / "docs.jsonl").write_text("".join(f"{json.dumps(doc)}\n" for doc in docs))
    (folder / "kitchen.yaml").write_text(
        f"""task: kitchen
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder / "docs.jsonl"}}}, cache_dir: {folder / "cache"}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 4}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
    )
    tracker = EvaluationTracker(output_path=str(folder / "out"))
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(make_checkpoint(folder / "model"))},
        tasks=["kitchen"],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        log_samples=True,
        evaluation_tracker=tracker,
        device="cpu",
        batch_size=1,
        bootstrap_iters=0,
        apply_chat_template=chat,
        system_instruction=S0 if chat else None,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    tracker.save_results_samples("kitchen", samples["kitchen"])
    return next((folder / "out").rglob("samples_kitchen_*.jsonl"))


def promptfoo_result(prompt: str, response: dict[str, Any] | None, **others: Any) -> dict[str, Any]:
    """Return one `EvaluateResult` of promptfoo."""
    return {
        "promptIdx": 0,
        "testIdx": 0,
        "id": "a7d0",
        "testCase": {"vars": {"question": BREAD}, "assert": []},
        "provider": {"id": "openai:gpt-4o", "label": ""},
        "prompt": {"raw": prompt, "label": "chat.json"},
        "vars": {"question": BREAD},
        "response": response,
        "success": True,
        "score": 1,
        "failureReason": 0,
        "latencyMs": 12,
        "namedScores": {},
        **others,
    }


def chat(system: str, user: str) -> str:
    """Return a prompt of promptfoo that is a list of chat messages, one of them in parts."""
    parts = [{"type": "text", "text": user}]
    return json.dumps([{"role": "system", "content": system}, {"role": "user", "content": parts}], indent=2)


def promptfoo_output(path: Path, results: Sequence[dict[str, Any]]) -> Path:
    """Write what `promptfoo eval --output results.json` does."""
    summary = {"version": 3, "timestamp": "2026-05-01T10:30:00Z", "prompts": [], "results": list(results), "stats": {}}
    path.write_text(json.dumps({"evalId": "eval-1", "results": summary, "config": {}, "shareableUrl": None}))
    return path


def garak_message(text: str | None) -> dict[str, Any]:
    return {"text": text, "lang": "en", "data_path": None, "data_type": None, "data_checksum": None, "notes": {}}


def garak_turns(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"turns": [{"role": role, "content": garak_message(text)} for role, text in turns], "notes": {}}


def garak_attempt(uuid: str, prompt: object, outputs: Sequence[object], **others: Any) -> dict[str, Any]:
    """Return an attempt of a garak report."""
    return {
        "entry_type": "attempt",
        "uuid": uuid,
        "seq": 0,
        "status": 2,
        "probe_classname": "test.Test",
        "probe_params": {},
        "targets": [],
        "prompt": prompt,
        "outputs": list(outputs),
        "detector_results": {"always.Pass": [0.0]},
        "notes": {},
        "goal": "none",
        **others,
    }


def garak_report(path: Path, attempts: Sequence[dict[str, Any]], setup: dict[str, str] | None = None) -> Path:
    """Write a garak report, with the entries around its attempts."""
    names = setup or {"plugins.target_type": "openai", "plugins.target_name": "gpt-4o"}
    entries = [
        {"entry_type": "start_run setup", "_config.version": "0.14.0", "run.generations": 1, **names},
        {"entry_type": "init", "garak_version": "0.14.0", "start_time": "2026-05-01T10:30:00", "run": "9673e218"},
        *attempts,
        {"entry_type": "eval", "probe": "test.Test", "detector": "always.Pass", "passed": 1, "total_evaluated": 1},
        {"entry_type": "completion", "end_time": "2026-05-01T10:31:00", "run": "9673e218"},
    ]
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return path


def pyrit_piece(conversation: str, sequence: int, role: str, value: str, **others: Any) -> dict[str, Any]:
    """Return a piece of a message as `MessagePiece.to_dict` does."""
    target = {"class_name": "OpenAIChatTarget", "class_module": "pyrit.prompt_target", "model_name": "gpt-4o"}
    return {
        "id": f"{conversation}-{sequence}",
        "role": role,
        "conversation_id": conversation,
        "sequence": sequence,
        "timestamp": "2026-05-01T10:30:00+00:00",
        "labels": {},
        "prompt_metadata": {},
        "converter_identifiers": [],
        "prompt_target_identifier": target,
        "original_value_data_type": "text",
        "original_value": value,
        "original_value_sha256": None,
        "converted_value_data_type": "text",
        "converted_value": value,
        "converted_value_sha256": None,
        "response_error": "none",
        "originator": "attack",
        "original_prompt_id": f"{conversation}-{sequence}",
        "scores": [],
        **others,
    }


def pyrit_conversation(name: str, system: str, prompt: str, response: str, **others: Any) -> list[dict[str, Any]]:
    """Return the pieces of a conversation with one response; `others` are of the response."""
    return [
        pyrit_piece(name, 0, "system", system),
        pyrit_piece(name, 1, "user", prompt),
        pyrit_piece(name, 2, "assistant", response, **others),
    ]
