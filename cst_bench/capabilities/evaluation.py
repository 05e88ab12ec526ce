"""Run one capability task through lm-eval, on the checkpoint that the run has loaded."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cst_bench.capabilities.capability_task import CapabilityTask
from cst_bench.capabilities.definition_code import without_code
from cst_bench.capabilities.results import CapabilityResult, LmEvalResults, make_result
from cst_bench.checkpoint import Checkpoint
from cst_bench.errors import UserError
from cst_bench.files import folder_digest

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task

    from cst_bench.capabilities.likelihoods import CstHFLM
    from cst_bench.capabilities.likelihoods.cst_hf import TokenRequest
    from cst_bench.capabilities.likelihoods.scorer import Scored
    from cst_bench.capabilities.served import ServedLM
    from cst_bench.checkpoint.server_engine import ServerEngine

_RANDOM_SEED, _SEED = 0, 1234
"""lm-eval's own default seeds, so that its command line gives the same numbers."""
_BATCH = 8
"""Batch size of stock `hf`: its `auto` is slower, and picks a size, and so last digits, by the memory in use."""
SOFTMAX_DTYPE = "float32"
"""Type of the softmax over the vocabulary, for every model and dtype, scored packed or by stock `hf`."""

Report = Callable[[int, int], None]
"""Receiver of the number of finished log-likelihoods and the total."""
Documents = Mapping[str, list[int]]
"""(Sub)task → numbers of documents."""
Draw = Callable[[Mapping[str, "Task"]], Documents | None]
"""Choice of the documents of the loaded (sub)tasks; None for the first ones up to the limit."""


def evaluate_capability(
    checkpoint: Checkpoint | ServerEngine,
    task: CapabilityTask,
    path: Path,
    *,
    data: Path | None = None,
    limit: int | None = None,
    documents: int | None = None,
    trust_code: bool = False,
    progress: Report | None = None,
) -> CapabilityResult:
    """Run lm-eval's task of that name, with its own shots, prompts and metric, and no chat template.

    Args:
        checkpoint: Model to score with, used as it is loaded; or the connected engine of a server that has it.
        task: Task to run.
        path: The task file.
        data: Local folder that mirrors the task's Hub data set (its README's `configs:` and files), to use instead.
        limit: Limit to the first N documents of each (sub)task.
        documents: Use N random documents of each (sub)task instead, the same in every run.
        trust_code: Run Python functions that the definitions of a user's task file name.
        progress: Receiver of progress.

    Raises:
        UserError: the data could not be loaded, or does not have the columns of the task; or code is not trusted; or
            the server gives no log-likelihoods.
        Interrupted: the server did not answer.
    """
    model: CstHFLM | ServedLM
    if isinstance(checkpoint, Checkpoint):
        model = scoring_model(checkpoint, progress)
    else:
        from cst_bench.capabilities.served import ServedLM  # it loads lm-eval

        model = ServedLM(checkpoint, progress)

    def draw(parts: Mapping[str, Task]) -> Documents | None:
        if documents is None:
            return None
        return {name: draw_documents(range(len(part.eval_docs)), documents) for name, part in parts.items()}

    raw = evaluate_documents(
        model, task, path, data=data, limit=limit, documents=documents, draw=draw, trust_code=trust_code
    )
    return make_result(task, raw, kernel=model.kernel, fallback=model.fallback_reason)


def evaluate_documents(
    model: CstHFLM | ServedLM,
    task: CapabilityTask,
    path: Path,
    *,
    data: Path | None,
    limit: int | None,
    documents: int | None,
    draw: Draw,
    trust_code: bool,
) -> LmEvalResults:
    """Return lm-eval's results of a task; the arguments are those of `evaluate_capability`, and what draws documents.

    Raises:
        UserError: as `evaluate_capability`.
    """
    from datasets.exceptions import DatasetsError
    from jinja2 import UndefinedError
    from jinja2.exceptions import SecurityError
    from lm_eval.tasks import TaskManager

    from cst_bench.capabilities.likelihoods import compiled_templates

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    definitions = task.definitions_folder(path)
    try:
        guard = nullcontext() if trust_code else without_code(task, path)
        with compiled_templates(), _definitions(task, definitions, data) as (folders, name):
            with guard:
                loaded = TaskManager(include_path=folders, include_defaults=False).load([name])
            raw = _evaluate(model, loaded, task.num_fewshot, limit, documents, draw(loaded["tasks"]))
    except SecurityError as error:
        raise UserError(f"task {task.name}: a template of its definitions does what none may do: {error}") from error
    except (OSError, DatasetsError) as error:
        raise UserError(_no_data(task, data, error)) from error
    except (UndefinedError, KeyError, ValueError) as error:
        if data is None:
            raise
        raise UserError(f"--data {task.name}={data}: columns or splits do not match the task: {error}") from error
    return raw


def _evaluate(
    model: CstHFLM | ServedLM,
    loaded: Mapping[str, Mapping[str, Task]],
    num_fewshot: int,
    limit: int | None,
    documents: int | None,
    drawn: Documents | None,
) -> LmEvalResults:
    """Evaluate as lm-eval's `simple_evaluate` does with its default seeds, without looking up git and hardware."""
    import random

    import numpy
    import torch
    from lm_eval.evaluator import evaluate

    random.seed(_RANDOM_SEED)
    numpy.random.seed(_SEED)
    torch.manual_seed(_SEED)
    for part in loaded["tasks"].values():
        if part.get_config("num_fewshot") != 0:
            part.set_config(key="num_fewshot", value=num_fewshot)
        part.set_fewshot_seed(seed=_SEED)
    results: LmEvalResults = evaluate(
        lm=model, task_dict=loaded, limit=limit if drawn is None else None, samples=drawn, log_samples=True
    )
    seeds = {"random_seed": _RANDOM_SEED, "numpy_seed": _SEED, "torch_seed": _SEED, "fewshot_seed": _SEED}
    return {
        **results,
        "config": {"model": model.NAME, "limit": limit, "documents": documents, "use_cache": None, **seeds},
    }


def draw_documents(known: Sequence[int], count: int) -> list[int]:
    """Return random ones of these numbers of documents, in order; all if there are no more."""
    import random

    return sorted(random.Random(_SEED).sample(known, min(count, len(known))))


def scoring_model(checkpoint: Checkpoint, progress: Report | None = None) -> CstHFLM:
    """Make the lm-eval model of a loaded checkpoint: `cst-hf`, with the numbers of `hf` at this softmax dtype."""
    from cst_bench.capabilities.likelihoods import CstHFLM

    class Counting(CstHFLM):
        """Model that reports progress instead of lm-eval's own bar."""

        def _loglikelihood_tokens(
            self, requests: Sequence[TokenRequest], disable_tqdm: bool = False, override_bs: int | None = None
        ) -> list[Scored]:
            if progress is not None:
                self.set_cache_hook(_Counter(progress, len(requests)))
            return super()._loglikelihood_tokens(requests, disable_tqdm=True, override_bs=override_bs)

        def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Scored]:
            return super().loglikelihood(requests, disable_tqdm=True)

    return Counting(**model_arguments(checkpoint))


def model_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the arguments that make a `CstHFLM` of a loaded checkpoint."""
    return {
        "pretrained": checkpoint.model,
        "tokenizer": checkpoint.tokenizer,
        "batch_size": checkpoint.options.batch_size or _BATCH,
        "max_length": checkpoint.context_length,
        "softmax_dtype": SOFTMAX_DTYPE,
    }


class _Counter:
    """Counter in the place of lm-eval's cache, which receives every answer.

    We never use that cache, since its key does not include the model.
    """

    def __init__(self, progress: Report, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def add_partial(self, attribute: str, request: object, answer: object) -> None:
        self._done += 1
        self._progress(self._done, self._total)


@contextmanager
def _definitions(task: CapabilityTask, definitions: Path, data: Path | None) -> Iterator[tuple[list[str], str]]:
    """Yield the folders in which lm-eval finds the task and its name there; `data` replaces its data source."""
    if data is None:
        yield [str(definitions)], task.lm_eval
        return
    if task.definitions is not None:
        raise UserError(f"--data {task.name}={data}: this task has its own data; copy its definitions to change it")
    if not data.is_dir() or not any(data.iterdir()):
        raise UserError(f"--data {task.name}={data}: must be a folder that mirrors the data set on the Hub")
    # lm-eval passes overrides on only to the members of a group that is defined in a file of an included folder
    member = {"group" if task.is_group else "task": task.lm_eval, "dataset_path": str(data.resolve())}
    name = f"{task.name}_with_local_data"
    with TemporaryDirectory() as folder:
        (Path(folder) / f"{name}.yaml").write_text(json.dumps({"group": name, "task": [member]}), encoding="utf-8")
        with _cache_of(data):
            yield [str(definitions), folder], name


@contextmanager
def _cache_of(folder: Path) -> Iterator[None]:
    """Give `datasets` a cache for this content of a local folder.

    It caches such a folder by its name and the list of its files. Another folder of that name, or the same one after an
    edit, would be read from the cache of the first.
    """
    from datasets import config

    shared = config.HF_DATASETS_CACHE
    config.HF_DATASETS_CACHE = Path(shared) / "local" / folder_digest(folder)[:16]
    try:
        yield
    finally:
        config.HF_DATASETS_CACHE = shared


def _no_data(task: CapabilityTask, data: Path | None, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if data is not None:
        return f"--data {task.name}={data}: could not be read as a data set: {reason}"
    return (
        f"could not load the data of {task.name} from the Hub ({reason}); "
        f"pass a local mirror of it with --data {task.name}=FOLDER"
    )
