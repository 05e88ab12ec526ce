"""Write a user's compliance task to files, and make a model that replies by a function."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from inspect_ai.model import (
    ChatMessage,
    ChatMessageSystem,
    GenerateConfig,
    Model,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.tool import ToolChoice, ToolInfo
from pydantic import JsonValue

from cst_bench.compliance.compliance_task import ComplianceTask, load_task

Json = dict[str, JsonValue]


def write_task(
    folder: Path,
    rows: Sequence[Mapping[str, JsonValue]],
    configurations: Mapping[str, JsonValue] | None = None,
    **data: JsonValue,
) -> tuple[ComplianceTask, Path]:
    """Write a task file with its rows and its judge beside it, and load it."""
    unseen = data.pop("unseen_wordings", [])
    task: Json = {
        "name": "mine",
        "version": 1,
        "title": "Mine",
        "description": "A test.",
        "source": "made up",
        "judge": "judge.yaml",
        "wording": "first",
        "unseen_wordings": unseen,
        "configurations": dict(configurations) if configurations else {"yes": says("yes"), "no": says("no")},
        "generation": {"max_tokens": 4},
        "data": {"file": "rows.jsonl", **data},
    }
    judge: Json = {
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


def write_rows(path: Path, rows: Sequence[Mapping[str, JsonValue]]) -> Path:
    """Write rows as jsonl; return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def says(behaviour: str, **wordings: str) -> Json:
    """Return a configuration that asks for a behaviour."""
    texts = wordings or {"first": f"Say {behaviour}."}
    return {
        "behaviour": behaviour,
        "wordings": {name: {"system": text, "source": "made up"} for name, text in texts.items()},
    }


def model(reply: Callable[[str | None, str], str]) -> Model:
    """Make a model that answers by a function of system prompt and prompt."""

    def output(
        messages: list[ChatMessage], tools: list[ToolInfo], choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        system = next((message.text for message in messages if isinstance(message, ChatMessageSystem)), None)
        response = ModelOutput.from_content("mockllm/model", reply(system, messages[-1].text))
        response.usage = ModelUsage(input_tokens=2, output_tokens=1, total_tokens=3)  # else a tokenizer is downloaded
        return response

    return get_model("mockllm/model", custom_outputs=output, memoize=False)
