"""`cst-bench run`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cst_bench.cli.shared_options import (
    card_options,
    checkpoint_options,
    data_dir_option,
    generate_options,
    json_option,
    judge_options,
    out_folder_option,
    parse_counts,
    seed_option,
    suite_option,
    task_data_option,
    task_limit_option,
    task_option,
)

if TYPE_CHECKING:
    from cst_bench.checkpoint import CheckpointOptions, EngineOptions
    from cst_bench.judging import JudgeOptions

EPILOG = """\b
Examples:
  cst-bench run                                    the embedded checkpoint on the tiny suite
  cst-bench run teknium/OpenHermes-2.5-Mistral-7B --suite paper
  cst-bench run ./my-adapter --suite paper --limit 20
  cst-bench run ./my-model --suite paper --documents hellaswag=1000 --documents mmlu=20
  cst-bench run hf/google/gemma-2-2b-it --system-as user-prefix --task harmful_behaviors
  cst-bench run ./my-model --suite paper --samples 5 --temperature 0.7 --wordings all
  cst-bench run ./model.gguf --suite paper --data-dir ./data
  cst-bench run ./my-model --suite paper --generate-with vllm
  cst-bench run ./my-model --suite paper --generate-url http://localhost:8000/v1
  cst-bench run openai/gpt-4o --task truthy --data truthy=truthy-dpo.parquet
  cst-bench run ./my-model --suite paper --judge-model openai/llama3 --judge-base-url http://localhost:11434/v1

CHECKPOINT is a local folder (a model or a PEFT adapter), a GGUF file, a model on the Hub, or an Inspect model name
with its provider's prefix (openai/…, vllm/…); hf/ORG/NAME is always the Hub. The same command continues an
interrupted run."""


@click.command(epilog=EPILOG)
@checkpoint_options
@generate_options
@suite_option
@task_option
@click.option(
    "--judge",
    "judges",
    multiple=True,
    metavar="JUDGE",
    help="Judge to use instead of a task's default, for every task it supports; repeatable.",
)
@judge_options
@card_options()
@click.option(
    "--wordings",
    "--wording",
    "wordings",
    multiple=True,
    show_default="each task's own",
    metavar="WORDING",
    help="Wording of the system prompts, one that the task names, or `all` for those that training has not seen; "
    "repeatable.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=1,
    metavar="K",
    help="Number of responses to each prompt, averaged within the prompt.",
)
@click.option(
    "--reference/--no-reference",
    default=True,
    help="Answer each prompt with no system prompt, too, which is described and never scored: a third to a half of the "
    "responses.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    show_default="each task's own",
    metavar="T",
    help="Sampling temperature of the responses.",
)
@task_data_option
@data_dir_option
@click.option(
    "--split", default="test", metavar="SPLIT", help="Split to evaluate; use `validation` for model selection."
)
@task_limit_option
@click.option(
    "--documents",
    multiple=True,
    metavar="TASK=N",
    callback=parse_counts,
    help="Use N random documents of each (sub)task of a capability, the same in every run; repeatable.",
)
@click.option(
    "--trust-task-code",
    is_flag=True,
    help="Run Python functions that a task file of yours leads to by its lm-eval definitions (!function). Use it only "
    "for code that you have read.",
)
@seed_option("sampling; each sample's seed is derived from it")
@click.option(
    "--kl-base",
    metavar="CHECKPOINT",
    show_default="not measured",
    help="Measure the KL divergence from this base on ordinary prompts; `auto` is the base that CHECKPOINT was trained "
    "on. Both are in memory at once.",
)
@out_folder_option("Run folder.", "runs/CHECKPOINT-SUITE")
@click.option("--show-text", is_flag=True, help="Show prompts and responses in the report.")
@json_option("scores.json")
def command(
    *,
    checkpoint: CheckpointOptions,
    engine: EngineOptions,
    suite: str | None,
    tasks: tuple[str, ...],
    judges: tuple[str, ...],
    judge_options: JudgeOptions,
    judge_card: Path | None,
    min_judge_f1: float,
    wordings: tuple[str, ...],
    samples: int,
    reference: bool,
    temperature: float | None,
    data: Mapping[str, Path],
    data_dir: Path | None,
    split: str,
    limit: int | None,
    documents: Mapping[str, int],
    trust_task_code: bool,
    seed: int,
    kl_base: str | None,
    out: Path | None,
    show_text: bool,
    as_json: bool,
) -> None:
    """Evaluate CHECKPOINT (the embedded one by default); write a run folder with scores.json and report.md."""
    from cst_bench.cli.console import ConsoleProgress, print_result, quiet_libraries
    from cst_bench.runs import RunOptions, run

    quiet_libraries()
    options = RunOptions(
        checkpoint=checkpoint,
        engine=engine,
        suite=suite,
        tasks=tasks,
        judges=judges,
        judge_options=judge_options,
        judge_card=judge_card,
        min_judge_f1=min_judge_f1,
        wordings=wordings,
        samples=samples,
        reference=reference,
        temperature=temperature,
        data=data,
        data_dir=data_dir,
        split=split,
        limit=limit,
        documents=documents,
        trust_task_code=trust_task_code,
        seed=seed,
        kl_base=kl_base,
        out=out,
        show_text=show_text,
    )
    progress = ConsoleProgress()
    result = run(options, progress)
    if result.was_finished:
        progress.note(f"this run is finished, nothing to do: {result.folder}")
    print_result(result, as_json=as_json)
