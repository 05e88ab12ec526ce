"""A self-critique job: a work folder with the log of the conversations, the pairs, and a data card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cst_bench.checkpoint import CheckpointOptions
from cst_bench.checkpoint.evaluated_model import EvaluatedModel
from cst_bench.compliance.compliance_task import ComplianceTask, load_task
from cst_bench.compliance.data import HELD_OUT, PromptSet, held_out, load_prompts
from cst_bench.compliance.logs import generate, usage
from cst_bench.compliance.task_judge import supporting
from cst_bench.errors import Interrupted, UserError
from cst_bench.files import digest, file_digest, slug, write_json, write_text
from cst_bench.judging import (
    Judge,
    JudgeOptions,
    JudgeUnavailable,
    describe_judge,
    find_judge,
    judge_name,
    load_judge,
)
from cst_bench.preferences.filters import Filtered, make_pairs
from cst_bench.preferences.preference_pairs import write_pairs
from cst_bench.preferences.self_critique import (
    CritiqueFile,
    Turns,
    critique_task,
    drafting,
    load_critique,
    read_turns,
)
from cst_bench.progress import Progress, Silent
from cst_bench.templates import markdown_environment, training_templates
from cst_bench.workfolder import locked, open_work_folder, package_versions

SCHEMA = 1
CARD = "critique.json"
PACKAGES = ("cst-bench", "inspect-ai", "lm-eval", "peft", "torch", "transformers")
"""Packages whose versions are part of a job's settings."""
_CHECKPOINT = ("label", "revision", "weights_sha256", "adapter_sha256")
"""Keys of the checkpoint's identity that each pair carries."""


@dataclass(frozen=True)
class CritiqueOptions:
    """Options of a self-critique job, named as on the command line."""

    checkpoint: CheckpointOptions
    task: str
    """Name or path of a compliance task."""
    out: Path | None = None
    """The job's folder."""
    critique: str = "harmless"
    """Name or path of a critique file."""
    wording: str | None = None
    """Wording of the draft's system prompt; the task's default if None."""
    data: Path | None = None
    """Local file to read prompts from instead of the task's data set."""
    split: str = "train"
    limit: int | None = None
    """Number of prompts to use, from the first; all if None."""
    judge: str | None = None
    """Name or path of a judge to use instead of the task's."""
    judge_options: JudgeOptions = field(default_factory=JudgeOptions)
    seed: int = 0
    """Seed of the requests drawn and of sampling."""


@dataclass(frozen=True)
class CritiqueResult:
    """Result of a self-critique job."""

    pairs: Path
    """The pairs file."""
    card: Mapping[str, Any]
    """Content of `critique.json`: settings, and what became of the prompts."""


@dataclass(frozen=True)
class _CritiqueJob:
    """A job whose options have been checked."""

    task: ComplianceTask
    critique: CritiqueFile
    prompts: PromptSet
    judge: Judge
    held_out: Callable[[str], bool]
    """Returns whether a prompt is in a held-out split of the task."""
    model: EvaluatedModel
    settings: Mapping[str, Any]
    """Everything that decides the pairs."""


def critique(options: CritiqueOptions, progress: Progress | None = None) -> CritiqueResult:
    """Make preference pairs by self-critique; the same call continues a job that was killed.

    Raises:
        UserError: an option is wrong, the folder holds a job with other settings, or no prompt gave a pair.
        Interrupted: the model's API or the judge failed for some prompts; the same call tries them again.
    """
    progress = progress or Silent()
    job = _prepare(options, progress)
    inspect_task = critique_task(job.task, job.prompts, job.critique, options.wording, options.seed, job.model.thinking)
    name = "-".join(map(slug, (job.model.label, job.task.name, job.critique.name)))
    out = options.out or Path("runs") / name
    with locked(out):
        card = open_work_folder(out, CARD, job.settings, kind="a self-critique", schema=SCHEMA)
        if "log" not in card:
            try:
                job.model.pass_gate()
                job.model.limit_threads()
                title = f"{job.task.title}: drafts, critiques, rewrites"
                with progress.stage(title, len(inspect_task.dataset)) as count:
                    log = generate(inspect_task, job.model.inspect_model(), out / "log", count)
            finally:
                job.model.close()
            card |= {"log": str(log.relative_to(out.resolve())), "usage": usage(log).as_json()}
            write_json(out / CARD, card)
        filtered = _filter(job, read_turns(out / str(card["log"])), progress)
        pairs = out / "pairs.jsonl"
        origin = _origin(job.settings)
        write_pairs(pairs, (replace(pair, meta={**pair.meta, **origin}) for pair in filtered.pairs))
        unused = (("another split", job.prompts.left_out), ("duplicate prompt", job.prompts.duplicates))
        card |= {
            "pairs": len(filtered.pairs),
            "pairs_sha256": file_digest([pairs]),
            "left_out": filtered.left_out,
            "rows_not_used": {reason: number for reason, number in unused if number},
            "judging": {} if filtered.spent is None else filtered.spent.as_json(),
        }
        write_json(out / CARD, card)
        _write_data_card(out, card, job)
    return CritiqueResult(pairs, card)


def _prepare(options: CritiqueOptions, progress: Progress) -> _CritiqueJob:
    """Check the options and load all but the weights, so that mistakes show before anything is generated."""
    task, path = load_task(options.task)
    requests = load_critique(options.critique)
    configuration = drafting(task, requests)
    if options.split in HELD_OUT:
        raise UserError(f"pairs are not made from the {options.split} split: trained models are evaluated on it")
    prompts = load_prompts(task, path, data=options.data, limit=options.limit, split=options.split)
    source = find_judge(options.judge) if options.judge else find_judge(task.judge, beside=path)
    judge = load_judge(str(source), options=options.judge_options)
    judge = supporting(judge, task.name, (requests.draft, requests.rewrite), task.data.fields)
    is_held_out = held_out(task, path)
    model = EvaluatedModel(options.checkpoint, progress)
    settings = {
        "checkpoint": model.identity.as_json(),
        "task": _file_identity(task),
        "configuration": configuration,
        "wording": options.wording or task.wording,
        "critique": _file_identity(requests),
        "generation": requests.generation.model_dump(),
        "data": prompts.origin,
        "data_sha256": prompts.sha256,
        "split": options.split,
        "prompts": len(prompts.prompts),
        "judge": describe_judge(judge, judge_name(source)).as_json(),
        "seed": options.seed,
        "packages": package_versions(PACKAGES),
    }
    return _CritiqueJob(task, requests, prompts, judge, is_held_out, model, settings)


def _file_identity(content: ComplianceTask | CritiqueFile) -> dict[str, object]:
    return {
        "name": content.name,
        "version": content.version,
        "sha256": digest(content.model_dump(mode="json")),
    }


def _filter(job: _CritiqueJob, turns: Sequence[Turns], progress: Progress) -> Filtered:
    """Judge the responses and make pairs of them.

    Raises:
        Interrupted: the judge could not be reached for some cases.
        UserError: no prompt gave a pair.
    """
    try:
        with progress.stage(f"{job.task.title}: verdicts", 2 * len(turns)) as count:
            filtered = make_pairs(turns, job.critique, job.judge, held_out=job.held_out, count=count)
    except JudgeUnavailable as error:
        raise Interrupted(f"{error}; the responses are kept, and the same command judges the rest") from None
    if not filtered.pairs:
        reasons = "; ".join(f"{reason}: {number}" for reason, number in filtered.left_out.items())
        raise UserError(f"none of the {len(turns)} prompts gave a pair ({reasons}): try another critique or checkpoint")
    return filtered


def _origin(settings: Mapping[str, Any]) -> dict[str, object]:
    """Return what each pair says of its making: checkpoint, system prompt, critique and sampling."""
    checkpoint = settings["checkpoint"]
    return {
        "checkpoint": {name: checkpoint[name] for name in _CHECKPOINT if checkpoint[name] is not None},
        **{name: settings[name] for name in ("configuration", "wording", "critique")},
        "sampling": {**settings["generation"], "seed": settings["seed"]},
    }


def _write_data_card(folder: Path, card: Mapping[str, Any], job: _CritiqueJob) -> None:
    """Write `README.md`, the data card of the pairs: content, origin, and what was left out."""
    template = markdown_environment(training_templates()).get_template("data_card.md.j2")
    behaviours = (job.critique.draft, job.critique.rewrite)
    write_text(folder / "README.md", template.render(card=card, title=job.task.title, behaviours=behaviours))
