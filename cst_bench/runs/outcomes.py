"""`outcomes.json`: what every response and every document came to, so that runs can be compared pair by pair.

    schema        1
    compliance    task → configuration (or reference) → prompt id → behaviour, null if unscored
    capabilities  task → documents_sha256, scores: document → its score in the task's metric

It holds no text. Prompts are named by a hash of theirs, documents by task and number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cst_bench.capabilities import CapabilityResult
from cst_bench.compliance.scores import Outcome
from cst_bench.files import canonical_json, write_text

SCHEMA = 1


def write_outcomes(
    folder: Path,
    outcomes: Mapping[str, Sequence[Outcome]],
    capabilities: Mapping[str, tuple[CapabilityResult, Mapping[str, float]]],
) -> None:
    """Writes `outcomes.json` into a run folder: by task, what responses did and what documents scored."""
    found = {
        "schema": SCHEMA,
        "compliance": {task: _behaviours(of) for task, of in outcomes.items()},
        "capabilities": {
            task: {"documents_sha256": result.documents_sha256, "scores": dict(scores)}
            for task, (result, scores) in capabilities.items()
        },
    }
    write_text(folder / "outcomes.json", canonical_json(found) + "\n")


def _behaviours(outcomes: Sequence[Outcome]) -> dict[str, dict[str, str | None]]:
    found: dict[str, dict[str, str | None]] = {}
    for outcome in sorted(outcomes, key=lambda one: (one.configuration, one.prompt_id)):
        found.setdefault(outcome.configuration, {})[outcome.prompt_id] = outcome.behaviour
    return found
