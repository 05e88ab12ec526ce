"""A compliance task of a user's own, in files, and a model that says what it is told to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inspect_ai.model import (
    ChatMessage,
    ChatMessageSystem,
    GenerateConfig,
    Model,
    ModelOutput,
    ModelUsage,
    get_model,
)

from cst_bench.compliance.compliance_task import ComplianceTask, load_task

Row = dict[str, Any]


def write_task(
    folder: Path, rows: list[Row], configurations: dict[str, Any] | None = None, **data: Any
) -> tuple[ComplianceTask, Path]:
    """A task file with its rows and its judge beside it."""
    task = {
        "name": "mine",
        "version": 1,
        "title": "Mine",
        "description": "A test.",
        "source": "made up",
        "judge": "judge.yaml",
        "wording": "first",
        "configurations": configurations or {"yes": says("yes"), "no": says("no")},
        "generation": {"max_tokens": 4},
        "data": {"file": "rows.jsonl", **data},
    }
    judge = {
        "name": "mine",
        "version": 1,
        "kind": "rules",
        "description": "A test.",
        "behaviours": ["yes", "no"],
        "rules": [
            {"behaviour": "yes", "when": {"contains": "yes"}},
            {"behaviour": "no", "when": {"contains": "no"}},
        ],
    }
    (folder / "mine.yaml").write_text(json.dumps(task))  # JSON is YAML
    (folder / "judge.yaml").write_text(json.dumps(judge))
    write_rows(folder / "rows.jsonl", rows)
    return load_task(str(folder / "mine.yaml"))


def write_rows(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def says(behaviour: str, **wordings: str) -> dict[str, Any]:
    """A configuration that asks for a behaviour."""
    texts = wordings or {"first": f"Say {behaviour}."}
    return {
        "behaviour": behaviour,
        "wordings": {name: {"system": text, "source": "made up"} for name, text in texts.items()},
    }


def model(reply: Callable[[str | None, str], str]) -> Model:
    """A model that answers by a function of system prompt and prompt."""

    def output(messages: list[ChatMessage], tools: Any, choice: Any, config: GenerateConfig) -> ModelOutput:
        system = next((one.text for one in messages if isinstance(one, ChatMessageSystem)), None)
        made = ModelOutput.from_content("mockllm/model", reply(system, messages[-1].text))
        made.usage = ModelUsage(input_tokens=2, output_tokens=1, total_tokens=3)  # else it is counted, by a download
        return made

    return get_model("mockllm/model", custom_outputs=output, memoize=False)
