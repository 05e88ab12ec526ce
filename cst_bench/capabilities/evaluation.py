"""Runs one capability task through lm-eval, over the checkpoint that the run has loaded."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cst_bench.capabilities.capability_task import CapabilityTask
from cst_bench.capabilities.results import CapabilityResult, make_result
from cst_bench.checkpoint import Checkpoint
from cst_bench.errors import UserError

_RANDOM_SEED, _SEED = 0, 1234
"""lm-eval's own defaults, so that its command line gives the same numbers."""
_BATCH = 8
"""For what is left to stock `hf`, whose `auto` is slower, and picks a size, and so last digits, by what else runs."""

Report = Callable[[int, int], None]
"""Called with how many log-likelihoods are done, and of how many."""


def evaluate_capability(
    checkpoint: Checkpoint,
    task: CapabilityTask,
    path: Path,
    *,
    data: Path | None = None,
    limit: int | None = None,
    progress: Report | None = None,
) -> CapabilityResult:
    """Runs lm-eval's task of that name, with its own shots, prompts and metric, and no chat template.

    Args:
        checkpoint: Used as it is loaded.
        task: What to run; `path` is the file it stands in.
        path: The task file.
        data: A local folder that mirrors the task's hub data set (its README's `configs:` and files), in its place.
        limit: Only the first so many documents of each (sub)task.
        progress: Told how far it is.

    Raises:
        UserError: the data can't be had, or doesn't have the columns of the task.
    """
    from datasets.exceptions import DatasetsError
    from jinja2 import UndefinedError
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    definitions = task.definitions_folder(path)
    model = scoring_model(checkpoint, progress)
    try:
        with _definitions(task, definitions, data) as (folders, name):
            loaded = TaskManager(include_path=folders, include_defaults=False).load([name])
        raw = _evaluate(model, loaded, task.num_fewshot, limit)
    except (OSError, DatasetsError) as error:
        raise UserError(_no_data(task, data, error)) from error
    except (UndefinedError, KeyError, ValueError) as error:
        if data is None:
            raise
        raise UserError(f"--data {task.name}={data}: not the columns or splits of the task: {error}") from error
    return make_result(task, raw, fallback=model.fallback_reason)


def _evaluate(model: Any, loaded: Any, num_fewshot: int, limit: int | None) -> dict[str, Any]:
    """What lm-eval's `simple_evaluate` does with its default seeds, less its look at git, packages and hardware."""
    import random

    import numpy
    import torch
    from lm_eval.evaluator import evaluate

    from cst_bench.capabilities.likelihoods import compiled_templates

    random.seed(_RANDOM_SEED)
    numpy.random.seed(_SEED)
    torch.manual_seed(_SEED)
    for one in loaded["tasks"].values():
        if one.get_config("num_fewshot") != 0:
            one.set_config(key="num_fewshot", value=num_fewshot)
        one.set_fewshot_seed(seed=_SEED)
    with compiled_templates():
        results: dict[str, Any] = evaluate(lm=model, task_dict=loaded, limit=limit, log_samples=True)
    seeds = {"random_seed": _RANDOM_SEED, "numpy_seed": _SEED, "torch_seed": _SEED, "fewshot_seed": _SEED}
    return {**results, "config": {"model": "cst-hf", "limit": limit, "use_cache": None, **seeds}}


def scoring_model(checkpoint: Checkpoint, progress: Report | None = None) -> Any:
    """The lm-eval model that scores with a loaded checkpoint: `cst-hf`, whose numbers are those of `hf`."""
    from cst_bench.capabilities.likelihoods import CstHFLM

    class Counting(CstHFLM):
        """Tells how many requests are scored, where lm-eval would draw a bar of its own."""

        def _loglikelihood_tokens(
            self, requests: Sequence[Any], disable_tqdm: bool = False, override_bs: int | None = None
        ) -> list[tuple[float, bool]]:
            if progress is not None:
                self.set_cache_hook(_Counter(progress, len(requests)))
            return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

    return Counting(
        pretrained=checkpoint.model,
        tokenizer=checkpoint.tokenizer,
        batch_size=checkpoint.options.batch_size or _BATCH,
        max_length=checkpoint.context_length,
    )


class _Counter:
    """Stands where lm-eval puts its cache, which is told of every answer. (We never use that cache: its key leaves
    the model out.)"""

    def __init__(self, progress: Report, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def add_partial(self, attribute: str, request: Any, answer: Any) -> None:
        self._done += 1
        self._progress(self._done, self._total)


@contextmanager
def _definitions(task: CapabilityTask, definitions: Path, data: Path | None) -> Iterator[tuple[list[str], str]]:
    """The folders in which lm-eval finds the task, and its name there: its own, or one with another data source."""
    if data is None:
        yield [str(definitions)], task.lm_eval
        return
    if task.definitions is not None:
        raise UserError(f"--data {task.name}={data}: this task brings its own data; copy its definitions to change it")
    if not data.is_dir() or not any(data.iterdir()):
        raise UserError(f"--data {task.name}={data}: must be a folder that mirrors the data set on the hub")
    # lm-eval hands overrides on only to the members of a group that stands in a file of an included folder
    member = {"group" if task.is_group else "task": task.lm_eval, "dataset_path": str(data.resolve())}
    name = f"{task.name}_with_local_data"
    with TemporaryDirectory() as folder:
        (Path(folder) / f"{name}.yaml").write_text(json.dumps({"group": name, "task": [member]}), encoding="utf-8")
        yield [str(definitions), folder], name


def _no_data(task: CapabilityTask, data: Path | None, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if data is not None:
        return f"--data {task.name}={data}: can't be read as a data set: {reason}"
    return (
        f"the data of {task.name} can't be had from the hub ({reason}); "
        f"give a local mirror of it with --data {task.name}=FOLDER"
    )
