"""A self-critique job: a folder with the log of what was said, the pairs, and a data card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cst_bench.checkpoint import CheckpointOptions
from cst_bench.checkpoint.subject import Subject
from cst_bench.compliance.compliance_task import check_judge, load_task
from cst_bench.compliance.data import held_out, load_prompts
from cst_bench.compliance.logs import generate, usage
from cst_bench.content import content_root
from cst_bench.errors import Interrupted, UserError
from cst_bench.files import digest, file_digest, slug, write_json, write_text
from cst_bench.judging import JudgeOptions, JudgeUnavailable, find_judge, judge_name, load_judge
from cst_bench.preferences.filters import make_pairs
from cst_bench.preferences.preference_pairs import write_pairs
from cst_bench.preferences.self_critique import critique_task, drafting, load_critique, read_turns
from cst_bench.progress import Progress, Silent
from cst_bench.reporting.run_markdown import markdown_environment
from cst_bench.runs.run_folder import PACKAGES, differences, locked, package_versions
from cst_bench.runs.run_plan import judge_settings

SCHEMA = 1
CARD = "critique.json"
_CHECKPOINT = ("label", "revision", "weights_sha256", "adapter_sha256")
"""What each pair says of the checkpoint that wrote it."""


@dataclass(frozen=True)
class CritiqueOptions:
    """What the user asks for. The names are those of the command line."""

    checkpoint: CheckpointOptions
    task: str
    out: Path | None = None
    critique: str = "harmless"
    """Name or path of a critique file."""
    wording: str | None = None
    data: Path | None = None
    """Prompts from a local file, in place of the task's data set."""
    split: str = "train"
    limit: int | None = None
    judge: str | None = None
    judge_options: JudgeOptions = field(default_factory=JudgeOptions)
    seed: int = 0


@dataclass(frozen=True)
class CritiqueResult:
    """Where the pairs are and what became of the prompts."""

    pairs: Path
    card: Mapping[str, Any]


def critique(options: CritiqueOptions, progress: Progress | None = None) -> CritiqueResult:
    """Makes preference pairs by self-critique, into a folder that the same call continues if it was killed.

    Raises:
        UserError: something in the options is wrong, or the folder holds a job with other settings.
        Interrupted: an API or the judge failed for some; the same call tries those again.
    """
    progress = progress or Silent()
    task, path = load_task(options.task)
    asked = load_critique(options.critique)
    configuration = drafting(task, asked)
    if options.split == "test":
        raise UserError("pairs are not made from the test split: it is what the trained models are measured on")
    prompts = load_prompts(task, path, data=options.data, limit=options.limit, split=options.split)
    source = find_judge(options.judge) if options.judge else find_judge(task.judge, beside=path)
    judge = load_judge(str(source), options=options.judge_options)
    check_judge(judge, task.name, (asked.draft, asked.rewrite), task.data.fields)
    tested = held_out(task, path)  # before anything is generated
    subject = Subject(options.checkpoint, progress)
    settings: dict[str, Any] = {
        "checkpoint": subject.identity,
        "task": {"name": task.name, "version": task.version, "sha256": digest(task.model_dump(mode="json"))},
        "configuration": configuration,
        "wording": options.wording or task.wording,
        "critique": {"name": asked.name, "version": asked.version, "sha256": digest(asked.model_dump(mode="json"))},
        "generation": asked.generation.model_dump(),
        "data": prompts.origin,
        "data_sha256": prompts.sha256,
        "split": options.split,
        "prompts": len(prompts.prompts),
        "judge": judge_settings(judge, judge_name(source)),
        "seed": options.seed,
        "packages": package_versions(PACKAGES),
    }
    built = critique_task(task, prompts, asked, options.wording, options.seed)
    out = options.out or Path("runs") / f"{slug(subject.label)}-{slug(task.name)}-{slug(asked.name)}"
    with locked(out):
        card = _open(out, settings)
        if "log" not in card:
            try:
                subject.pass_gate()
                with progress.stage(f"{task.title}: drafts, critiques, rewrites", len(built.dataset)) as count:
                    log = generate(built, subject.inspect_model(), out / "log", count)
            finally:
                subject.close()
            card |= {"log": str(log.relative_to(out.resolve())), "usage": usage(log)}
            write_json(out / CARD, card)
        turns = read_turns(out / str(card["log"]))
        try:
            with progress.stage(f"{task.title}: verdicts", 2 * len(turns)) as count:
                found = make_pairs(turns, asked, judge, held_out=tested, count=count)
        except JudgeUnavailable as error:
            raise Interrupted(f"{error}; what was generated is kept, and the same command asks for the rest") from None
        if not found.pairs:
            why = "; ".join(f"{reason}: {number}" for reason, number in found.left_out.items())
            raise UserError(f"none of the {len(turns)} prompts gave a pair ({why}): try another critique or checkpoint")
        pairs = out / "pairs.jsonl"
        made_with = {
            "checkpoint": {name: value for name in _CHECKPOINT if (value := subject.identity.get(name)) is not None},
            **{name: settings[name] for name in ("configuration", "wording", "critique")},
            "sampling": {**settings["generation"], "seed": settings["seed"]},
        }
        write_pairs(pairs, (replace(pair, meta={**pair.meta, **made_with}) for pair in found.pairs))
        card |= {
            "pairs": len(found.pairs),
            "pairs_sha256": file_digest([pairs]),
            "left_out": found.left_out,
            "rows_not_used": {
                reason: number
                for reason, number in (("another split", prompts.left_out), ("duplicate prompt", prompts.duplicates))
                if number
            },
            "judging": found.spent,
        }
        write_json(out / CARD, card)
        _write_card(out, card, title=task.title, behaviours=(asked.draft, asked.rewrite))
    return CritiqueResult(pairs, card)


def _open(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The card of a job in this folder: a new one, or the one that an earlier call with the same settings left."""
    card_path = path / CARD
    if not card_path.is_file():
        if any(entry.name != ".lock" for entry in path.iterdir()):
            raise UserError(f"{path} holds files and is no folder of a self-critique: give another with --out")
        card: dict[str, Any] = {"schema": SCHEMA, "settings": settings}
        write_json(card_path, card)
        return card
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
        found = card["settings"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{card_path} is not a card that cst-bench wrote: give another folder with --out") from None
    if found != settings:
        raise UserError(
            f"{path} holds a self-critique with other settings ({', '.join(differences(found, settings))}): "
            "give another folder with --out, or delete this one"
        )
    return card


def _write_card(folder: Path, card: Mapping[str, Any], *, title: str, behaviours: tuple[str, str]) -> None:
    """`README.md`, the data card: what the pairs are, where they come from, what was left out."""
    template = markdown_environment(content_root() / "training").get_template("data_card.md.j2")
    text = template.render(card=card, title=title, behaviours=behaviours)
    write_text(folder / "README.md", text)
