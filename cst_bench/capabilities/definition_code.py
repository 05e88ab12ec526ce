"""Code in lm-eval definitions, and which of it runs.

A definition can name Python functions (`!function`), and a metric whose code is fetched from the Hub. Those of lm-eval
and of this project run; those that come with a user's task file run only if asked. Templates are rendered in Jinja's
sandbox, whoever wrote them (`likelihoods.preparation`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from cst_bench.capabilities.capability_task import CapabilityTask
from cst_bench.content import content_root
from cst_bench.errors import UserError

_FLAG = "--trust-task-code"


def require_no_code(task: CapabilityTask, path: Path) -> None:
    """Check, before any model time, that the definitions of a user's task file name no code.

    Args:
        task: The task.
        path: Its file.

    Raises:
        UserError: a definition names a Python function.
    """
    if _trusted(task, path):
        return
    folder = task.definitions_folder(path)
    for file in sorted(folder.rglob("*.y*ml")):
        try:
            tags = [token.value for token in yaml.scan(file.read_bytes()) if isinstance(token, yaml.TagToken)]
        except yaml.YAMLError:
            continue  # lm-eval says what is wrong with it
        if any("function" in part for handle, part in tags):
            raise UserError(_refusal(task, f"{file} names Python functions (!function)"))


@contextmanager
def without_code(task: CapabilityTask, path: Path) -> Iterator[None]:
    """Make lm-eval refuse, while active, to load code that a user's task file leads to.

    Raises:
        UserError: a definition names a Python function, or a metric that is not lm-eval's own.
    """
    if _trusted(task, path):
        yield
        return
    import lm_eval.api.task as lm_eval_task
    import lm_eval.tasks._yaml_loader as loader
    from lm_eval.api.registry import metric_registry

    importing, getting = loader._import_func_in_yml, lm_eval_task.get_metric

    def import_function(name: str, folder: Path) -> Callable[..., object]:
        raise UserError(_refusal(task, f"a definition in {folder} names the Python function {name}"))

    def get_metric(name: str, hf_evaluate_metric: bool = False) -> Callable[..., object] | None:
        import lm_eval.api.metrics  # noqa: F401  (fills the registry)

        if hf_evaluate_metric or name not in metric_registry:
            raise UserError(_refusal(task, f"the metric {name} is not lm-eval's, and its code would be fetched"))
        return getting(name)  # type: ignore[no-any-return]

    loader._import_func_in_yml, lm_eval_task.get_metric = import_function, get_metric
    try:
        yield
    finally:
        loader._import_func_in_yml, lm_eval_task.get_metric = importing, getting


def _trusted(task: CapabilityTask, path: Path) -> bool:
    """Return whether the definitions are lm-eval's or this project's own."""
    return task.definitions is None or path.resolve().is_relative_to((content_root() / "tasks").resolve())


def _refusal(task: CapabilityTask, what: str) -> str:
    return f"task {task.name}: {what}: read it, and run it with {_FLAG} if you trust it"
