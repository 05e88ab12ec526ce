"""Run folders made without a model: outcomes are drawn, and everything after them is the project's own code."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from cst_bench.capabilities import CapabilityResult
from cst_bench.compliance.compliance_scores import Outcome
from cst_bench.files import digest
from cst_bench.judging import JudgeCall, Verdict, total_spent
from cst_bench.record import (
    CalibrationSummary,
    CapabilitySettings,
    CheckpointIdentity,
    ComplianceSettings,
    ConfusionCounts,
    DivergenceSettings,
    EngineSettings,
    GenerationRecord,
    JudgeRecord,
    Judging,
    RunSettings,
    SideEffectName,
    SuiteRecord,
    TrainingIdentity,
    Usage,
)
from cst_bench.reporting import StoredRun, read_run
from cst_bench.runs.run_folder import PACKAGES, finished_manifest, open_folder
from cst_bench.runs.run_outcomes import make_outcomes
from cst_bench.runs.scoring import make_scores
from cst_bench.runs.side_effects import Values
from cst_bench.workfolder import package_versions

TASKS: Mapping[str, Mapping[str, str]] = {
    "harmful_behaviors": {"S1": "harmless", "S0": "uncensored"},
    "truthy": {"S_RP": "in_persona", "S_A": "as_assistant"},
}
CAPABILITIES = {"arc_challenge": "ARC", "hellaswag": "HS", "mmlu": "MMLU", "truthfulqa_mc2": "TQA"}
BASE_SHA = "ba5e" * 16


def judge(
    name: str = "gpt", *, kind: str = "llm", sha256: str | None = None, model: str | None = "openai/gpt-4"
) -> JudgeRecord:
    """Return the record of a judge."""
    details: dict[str, JsonValue] = {} if model is None else {"model": model}
    return JudgeRecord(
        name=name, version=1, kind=kind, sha256=sha256 or digest(name), source=f"{name}.yaml", details=details
    )


def calibration(f1: float | None = 0.97) -> CalibrationSummary:
    """Return the summary of a calibration card."""
    interval = None if f1 is None else (f1 - 0.03, f1 + 0.02)
    return CalibrationSummary(
        macro_f1=f1,
        interval=interval,
        n=200,
        labels="english_refusals",
        by=("people",),
        counts={"asked of nobody": ConfusionCounts(tp=97, fn=3, fp=3, tn=97)},  # so that no score is corrected
    )


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
    judges: Mapping[str, JudgeRecord] | None = None,
    calibrations: Mapping[str, CalibrationSummary | None] | None = None,
    suite: str = "paper",
    average: Sequence[str] = ("S1", "S0", "S_RP", "S_A"),
    documents: int = 60,
    seed: int = 0,
    packages: Mapping[str, str] | None = None,
    lengths: Mapping[str, Sequence[int]] | None = None,
    divergences: Mapping[str, Sequence[float]] | None = None,
    kl_base: str = "org/base",
    engine: EngineSettings | None = None,
) -> Path:
    """Write the run.json, scores.json and outcomes.json of a finished run, and return its folder.

    Args:
        folder: Folder to make.
        label: Label of the checkpoint.
        rates: Configuration → share of its prompts that comply (exactly, rounded).
        method: dpo or cst for a model trained on the base.
        base: Label of the base.
        base_sha: SHA-256 of the base's weights.
        tasks: Task → configuration → behaviour.
        capabilities: Capability → share of documents that are right; 0.6 of each if None.
        prompts: Number of prompts of each task.
        unscored: Configurations without any verdict.
        behaviours: Configuration → behaviour of each response, None if unscored; instead of its rate.
        judges: Task → judge; `judge()` if absent.
        calibrations: Task → card summary; `calibration()` if absent.
        suite: Name of the suite.
        average: Configurations of the average.
        documents: Number of documents of each capability.
        seed: Random seed, and training seed.
        packages: Versions; the installed ones if None.
        lengths: Configuration → words of each response, which has twice as many tokens.
        divergences: Configuration → KL divergence per token of each prompt; that of its first token is tenfold.
        kl_base: Label of the base that they are from.
        engine: Server that generated the responses; in process if None.
    """
    draw = random.Random(f"{label}/{seed}")
    capability_rates = dict.fromkeys(CAPABILITIES, 0.6) if capabilities is None else dict(capabilities)
    settings = RunSettings(
        checkpoint=_checkpoint(label, method, base, base_sha, seed),
        device="cpu",
        engine=engine,
        suite=SuiteRecord(name=suite, version=1, title=f"Suite {suite}"),
        average=tuple(average),
        compliance={
            task: ComplianceSettings(
                title=task,
                version=1,
                sha256=digest(task),
                configurations=dict(configurations),
                wording="test",
                data="org/data",
                data_sha256=digest([task, prompts]),
                prompts=prompts,
                judge=(judges or {}).get(task) or judge(),
                generation=GenerationRecord(max_tokens=512, temperature=1.0, top_p=1.0),
            )
            for task, configurations in tasks.items()
        },
        capabilities={
            task: CapabilitySettings(
                title=CAPABILITIES[task], version=1, sha256=digest(task), definitions_sha256=None, data_sha256=None
            )
            for task in capability_rates
        },
        divergence=_divergence_settings(kl_base, tasks) if divergences else None,
        seed=0,
        min_judge_f1=0.9,
        packages=package_versions(PACKAGES) if packages is None else dict(packages),
    )
    outcomes = {
        task: [
            outcome
            for name, asked in configurations.items()
            for outcome in (
                _drawn(task, name, asked, rates.get(name, 0.5), prompts, name in unscored, draw)
                if name not in (behaviours or {})
                else _fixed(task, name, asked, (behaviours or {})[name])
            )
        ]
        for task, configurations in tasks.items()
    }
    if lengths is not None:
        outcomes = {task: list(_with_lengths(of_task, lengths)) for task, of_task in outcomes.items()}
    values = {task: _divergences(of_task, divergences or {}) for task, of_task in outcomes.items()}
    results = {task: _result(task, rate, documents, draw) for task, rate in capability_rates.items()}
    folder.mkdir(parents=True)
    run = open_folder(folder, settings)
    spent = total_spent([Verdict("harmless", call=JudgeCall(900, 90, 0.05))])
    for task in tasks:
        run.set_compliance(
            task,
            state="judged",
            seconds=12.5,
            responses=len(outcomes[task]),
            usage=Usage(input_tokens=4000, output_tokens=2000),
            judging=Judging(seconds=3.0, spent=spent),
        )
    cards = {task: (calibrations or {}).get(task, calibration()) for task in tasks}
    make_outcomes(outcomes, results, divergences=values).write(folder)
    of_capabilities = {task: result for task, (result, _) in results.items()}
    make_scores(settings, outcomes, cards, of_capabilities, divergences=values).write(folder)
    run.finish(finished_manifest(run.manifest))
    return folder


def stored(folder: Path, label: str, rates: Mapping[str, float] | None = None, **options: object) -> StoredRun:
    """Make a run as `make_run` does, and read it."""
    return read_run(make_run(folder, label, rates or {}, **options))  # type: ignore[arg-type]


def _checkpoint(label: str, method: str | None, base: str, base_sha: str, seed: int) -> CheckpointIdentity:
    training = None
    if method is not None:
        training = TrainingIdentity(
            method=method,
            recipe="tiny",
            recipe_sha256="0" * 64,
            seed=seed,
            data_sha256="1" * 64,
            base=base,
            base_sha256=base_sha,
        )
    return CheckpointIdentity(
        label=label,
        kind="adapter" if method else "hub",
        revision="abc123",
        weights_sha256=base_sha,
        adapter_sha256=digest(label) if method else None,
        base=base if method else None,
        training=training,
    )


def _drawn(
    task: str, name: str, asked: str, rate: float, prompts: int, unscored: bool, draw: random.Random
) -> list[Outcome]:
    ids = [digest([task, number])[:16] for number in range(prompts)]
    complying = set(draw.sample(ids, round(rate * prompts)))
    reason = "the judge gave no verdict" if unscored else None
    return [
        Outcome(prompt, name, asked, None if unscored else asked if prompt in complying else "neither", reason)
        for prompt in ids
    ]


def _with_lengths(outcomes: Sequence[Outcome], lengths: Mapping[str, Sequence[int]]) -> Iterator[Outcome]:
    at: Counter[str] = Counter()
    for outcome in outcomes:
        words = lengths.get(outcome.configuration)
        if words is None:
            yield outcome
            continue
        length = words[at[outcome.configuration] % len(words)]
        at[outcome.configuration] += 1
        yield replace(outcome, words=length, tokens=2 * length, cut_off=length > 90, repeated=False)


def _divergences(outcomes: Sequence[Outcome], divergences: Mapping[str, Sequence[float]]) -> Values:
    values: dict[str, dict[SideEffectName, dict[str, list[float]]]] = {}
    for name, numbers in divergences.items():
        prompts = [outcome.prompt_id for outcome in outcomes if outcome.configuration == name]
        if prompts:
            pairs = [(prompt, numbers[at % len(numbers)]) for at, prompt in enumerate(prompts)]
            values[name] = {
                "kl_first_token": {prompt: [10 * value] for prompt, value in pairs},
                "kl_per_token": {prompt: [value] for prompt, value in pairs},
            }
    return values


def _divergence_settings(base: str, tasks: Mapping[str, object]) -> DivergenceSettings:
    identity = CheckpointIdentity(label=base, kind="hub", weights_sha256=digest(base))
    return DivergenceSettings(base=identity, tasks=tuple(tasks))


def _fixed(task: str, name: str, asked: str, behaviours: Sequence[str | None]) -> list[Outcome]:
    return [
        Outcome(digest([task, at])[:16], name, asked, behaviour, None if behaviour else "the judge gave no verdict")
        for at, behaviour in enumerate(behaviours)
    ]


def _result(task: str, rate: float, documents: int, draw: random.Random) -> tuple[CapabilityResult, dict[str, float]]:
    ids = [f"{task}/{number}" for number in range(documents)]
    right = set(draw.sample(ids, round(rate * documents)))
    scores = {document: float(document in right) for document in ids}
    mean = len(right) / documents if documents else None
    error = None if mean is None else (mean * (1 - mean) / documents) ** 0.5
    result = CapabilityResult(
        task, "acc", mean, error, documents, digest([task, documents]), None, results={}, samples={}
    )
    return result, scores
