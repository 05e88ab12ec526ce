"""From the outcomes of responses and documents to `outcomes.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cst_bench.capabilities import CapabilityResult
from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.record import DocumentScores, Outcomes


def make_outcomes(
    outcomes: Mapping[str, Sequence[Outcome]],
    capabilities: Mapping[str, tuple[CapabilityResult, Mapping[str, float]]],
) -> Outcomes:
    """Return the record of a run's outcomes: by task, what responses did and what documents scored."""
    return Outcomes(
        compliance={task: _behaviours(responses) for task, responses in outcomes.items()},
        capabilities={
            task: DocumentScores(documents_sha256=result.documents_sha256, scores=dict(scores))
            for task, (result, scores) in capabilities.items()
        },
    )


def _behaviours(outcomes: Sequence[Outcome]) -> dict[str, dict[str, str | None]]:
    behaviours: dict[str, dict[str, str | None]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: (outcome.configuration, outcome.prompt_id)):
        behaviours.setdefault(outcome.configuration, {})[outcome.prompt_id] = outcome.behaviour
    return behaviours
