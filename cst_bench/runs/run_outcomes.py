"""From the outcomes of responses and documents to `outcomes.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cst_bench.capabilities import CapabilityResult
from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.record import ConfigurationLabels, DocumentScores, Outcomes
from cst_bench.runs.corrected_scores import majority
from cst_bench.runs.label_file import RunLabels
from cst_bench.runs.side_effects import Values, all_values, prompt_means


def make_outcomes(
    outcomes: Mapping[str, Sequence[Outcome]],
    capabilities: Mapping[str, tuple[CapabilityResult, Mapping[str, float]]],
    labels: RunLabels | None = None,
    divergences: Mapping[str, Values] | None = None,
) -> Outcomes:
    """Return the record of a run's outcomes, by task: what responses did, what documents scored, what people said."""
    return Outcomes(
        compliance={task: _behaviours(responses) for task, responses in outcomes.items()},
        capabilities={
            task: DocumentScores(documents_sha256=result.documents_sha256, scores=dict(scores))
            for task, (result, scores) in capabilities.items()
        },
        labels={
            task: by_configuration
            for task, responses in outcomes.items()
            if labels is not None and (by_configuration := _labels(task, responses, labels))
        },
        side_effects={
            task: means
            for task, values in all_values(outcomes, divergences or {}).items()
            if (means := prompt_means(values))
        },
    )


def _labels(task: str, outcomes: Sequence[Outcome], labels: RunLabels) -> dict[str, ConfigurationLabels]:
    shown: dict[str, dict[str, bool | None]] = {}
    drawn_from: dict[str, dict[str, str]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: (outcome.configuration, outcome.prompt_id)):
        key = (task, outcome.prompt_id, outcome.configuration)
        if outcome.asked is None:
            continue
        if key in labels.votes:
            shown.setdefault(outcome.configuration, {})[outcome.prompt_id] = majority(labels.votes[key], outcome.asked)
        if key in labels.strata:
            drawn_from.setdefault(outcome.configuration, {})[outcome.prompt_id] = labels.strata[key]
    return {
        name: ConfigurationLabels(shown=by_prompt, drawn_from=drawn_from.get(name, {}))
        for name, by_prompt in shown.items()
    }


def _behaviours(outcomes: Sequence[Outcome]) -> dict[str, dict[str, str | tuple[str | None, ...] | None]]:
    wordings = {name: at for at, name in enumerate(dict.fromkeys(outcome.wording for outcome in outcomes))}
    behaviours: dict[str, dict[str, list[str | None]]] = {}
    for outcome in sorted(outcomes, key=lambda o: (o.configuration, o.prompt_id, wordings[o.wording], o.epoch)):
        behaviours.setdefault(outcome.configuration, {}).setdefault(outcome.prompt_id, []).append(outcome.behaviour)
    return {
        name: {prompt: tuple(values) if len(values) > 1 else values[0] for prompt, values in by_prompt.items()}
        for name, by_prompt in behaviours.items()
    }
