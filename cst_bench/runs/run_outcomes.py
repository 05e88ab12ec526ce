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


def _behaviours(outcomes: Sequence[Outcome]) -> dict[str, dict[str, str | tuple[str | None, ...] | None]]:
    wordings = {name: at for at, name in enumerate(dict.fromkeys(outcome.wording for outcome in outcomes))}
    behaviours: dict[str, dict[str, list[str | None]]] = {}
    for outcome in sorted(outcomes, key=lambda o: (o.configuration, o.prompt_id, wordings[o.wording], o.epoch)):
        behaviours.setdefault(outcome.configuration, {}).setdefault(outcome.prompt_id, []).append(outcome.behaviour)
    return {
        name: {prompt: tuple(values) if len(values) > 1 else values[0] for prompt, values in by_prompt.items()}
        for name, by_prompt in behaviours.items()
    }
