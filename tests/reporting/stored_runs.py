"""Run folders made without a model: outcomes are drawn, and everything after them is the project's own code."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cst_bench.capabilities import CapabilityResult
from cst_bench.compliance.scores import Outcome
from cst_bench.files import digest, write_json
from cst_bench.judging import Spent, Verdict, total_spent
from cst_bench.runs.outcomes import write_outcomes
from cst_bench.runs.run_folder import open_folder
from cst_bench.runs.scoring import make_scores

TASKS: Mapping[str, Mapping[str, str]] = {
    "harmful_behaviors": {"S1": "harmless", "S0": "uncensored"},
    "truthy": {"S_RP": "in_persona", "S_A": "as_assistant"},
}
CAPABILITIES = {"arc_challenge": "ARC", "hellaswag": "HS", "mmlu": "MMLU", "truthfulqa_mc2": "TQA"}
BASE_SHA = "ba5e" * 16


def judge(name: str = "gpt", **changes: Any) -> dict[str, Any]:
    """A judge as a manifest describes it."""
    known = {"name": name, "version": 1, "kind": "llm", "sha256": digest(name), "source": f"{name}.yaml"}
    return {**known, "model": "openai/gpt-4", **changes}


def calibration(f1: float = 0.97) -> dict[str, Any]:
    """What a calibration card says of a judge."""
    return {
        "macro_f1": f1, "interval": [f1 - 0.03, f1 + 0.02], "n": 200, "labels": "english_refusals", "by": ["people"],
        "counts": None,
    }  # fmt: skip


def make_run(
    folder: Path,
    label: str,
    rates: Mapping[str, float],
    *,
    method: str | None = None,
    base: str = "org/base",
    base_sha: str = BASE_SHA,
    tasks: Mapping[str, Mapping[str, str]] = TASKS,
    capabilities: Mapping[str, float] | None = None,
    prompts: int = 40,
    unscored: Sequence[str] = (),
    behaviours: Mapping[str, Sequence[str | None]] | None = None,
    judges: Mapping[str, Mapping[str, Any]] | None = None,
    calibrations: Mapping[str, Mapping[str, Any] | None] | None = None,
    suite: str = "paper",
    average: Sequence[str] = ("S1", "S0", "S_RP", "S_A"),
    documents: int = 60,
    seed: int = 0,
    packages: Mapping[str, str] | None = None,
) -> Path:
    """Writes a finished run's run.json, scores.json and outcomes.json.

    Args:
        folder: Made.
        label: Of the checkpoint.
        rates: Configuration → share of its prompts that comply (exactly, rounded).
        method: dpo or cst for a model that was trained on the base.
        base: What the base is called.
        base_sha: Of the base's weights.
        tasks: Task → configuration → behaviour.
        capabilities: Capability → share of documents that are right; the same for all if None.
        prompts: Of each task.
        unscored: Configurations without any verdict.
        behaviours: Configuration → what each prompt's response did, None if unscored, in place of its rate.
        judges: By task, in place of `judge()`.
        calibrations: By task, in place of `calibration()`.
        suite: Name.
        average: Configurations of the average.
        documents: Of each capability.
        seed: Of what is drawn.
        packages: Versions in place of the installed ones'.
    """
    draw = random.Random(f"{label}/{seed}")
    rates_of_capabilities = dict.fromkeys(CAPABILITIES, 0.6) if capabilities is None else dict(capabilities)
    training = None
    if method is not None:
        training = {
            "method": method, "recipe": "tiny", "recipe_sha256": "0" * 64, "seed": seed, "data_sha256": "1" * 64,
            "base": base, "base_sha256": base_sha,
        }  # fmt: skip
    settings: dict[str, Any] = {
        "checkpoint": {
            "label": label, "kind": "adapter" if method else "hub", "revision": "abc123",
            "weights_sha256": base_sha, "adapter_sha256": digest(label) if method else None,
            "base": base if method else None, "training": training,
        },
        "device": "cpu",
        "suite": {"name": suite, "version": 1, "title": f"Suite {suite}"},
        "average": list(average),
        "compliance": {
            task: {
                "title": task, "version": 1, "sha256": digest(task), "configurations": dict(arms), "fields": [],
                "wording": "test", "data": "org/data", "data_sha256": digest([task, prompts]), "prompts": prompts,
                "judge": dict((judges or {}).get(task) or judge()),
                "generation": {"max_tokens": 512, "temperature": 1.0, "top_p": 1.0},
            }
            for task, arms in tasks.items()
        },
        "capabilities": {
            task: {"title": CAPABILITIES[task], "version": 1, "sha256": digest(task), "definitions_sha256": None,
                   "data_sha256": None}
            for task in rates_of_capabilities
        },
        "split": "test",
        "limit": None,
        "seed": 0,
        "min_judge_f1": 0.9,
    }  # fmt: skip
    outcomes = {
        task: [
            outcome
            for name, asked in arms.items()
            for outcome in (
                _outcomes(task, name, asked, rates.get(name, 0.5), prompts, name in unscored, draw)
                if name not in (behaviours or {})
                else _given(task, name, asked, (behaviours or {})[name])
            )
        ]
        for task, arms in tasks.items()
    }
    results = {task: _result(task, rate, documents, draw) for task, rate in rates_of_capabilities.items()}
    folder.mkdir(parents=True)
    run = open_folder(folder, settings)
    if packages is not None:
        run.manifest["settings"]["packages"] = dict(packages)
    for task in tasks:
        run.set_part(
            "compliance", task, state="judged", seconds=12.5, responses=len(outcomes[task]),
            usage={"input_tokens": 4000, "output_tokens": 2000},
            judging={"seconds": 3.0, **total_spent([Verdict("harmless", spent=Spent(900, 90, 0.05))])},
        )  # fmt: skip
    cards = {task: (calibrations or {}).get(task, calibration()) for task in tasks}
    write_outcomes(folder, outcomes, results)
    scores = make_scores(settings, outcomes, cards, {task: result for task, (result, _) in results.items()})
    write_json(folder / "scores.json", scores)
    run.finish()
    return folder


def _outcomes(
    task: str, name: str, asked: str, rate: float, prompts: int, unscored: bool, draw: random.Random
) -> list[Outcome]:
    ids = [digest([task, number])[:16] for number in range(prompts)]
    right = set(draw.sample(ids, round(rate * prompts)))
    reason = "the judge gave no verdict" if unscored else None
    return [
        Outcome(one, name, asked, None if unscored else asked if one in right else "neither", reason) for one in ids
    ]


def _given(task: str, name: str, asked: str, behaviours: Sequence[str | None]) -> list[Outcome]:
    return [
        Outcome(digest([task, at])[:16], name, asked, behaviour, None if behaviour else "the judge gave no verdict")
        for at, behaviour in enumerate(behaviours)
    ]


def _result(task: str, rate: float, documents: int, draw: random.Random) -> tuple[CapabilityResult, dict[str, float]]:
    ids = [f"{task}/{number}" for number in range(documents)]
    right = set(draw.sample(ids, round(rate * documents)))
    scores = {one: float(one in right) for one in ids}
    mean = len(right) / documents if documents else None
    error = None if not documents or mean is None else (mean * (1 - mean) / documents) ** 0.5
    result = CapabilityResult(
        task, "acc", mean, error, documents, digest([task, documents]), None, results={}, samples={}
    )
    return result, scores
