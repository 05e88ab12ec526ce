"""What Inspect finds through the `inspect_ai` entry point: our model provider, and each compliance task by its name."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from inspect_ai import Task, task
from inspect_ai.model import modelapi

from cst_bench import content
from cst_bench.compliance.compliance_task import FOLDER
from cst_bench.compliance.inspect_task import compliance

if TYPE_CHECKING:
    from cst_bench.checkpoint.provider import CstModelAPI

__all__ = ["compliance", "cst"]


@modelapi(name="cst")
def cst() -> type[CstModelAPI]:
    """The provider `cst/…`, imported (with torch) only when it is used."""
    from cst_bench.checkpoint.provider import CstModelAPI

    return CstModelAPI


def _register(name: str) -> None:
    @task(name=name)
    def named(
        wording: str | None = None,
        data: str | None = None,
        prompts: int | None = None,
        judge: str | None = None,
        seed: int = 0,
    ) -> Task:
        build = partial(compliance, name)
        return build(wording=wording, data=data, prompts=prompts, judge=judge, seed=seed)


for _name in content.names(FOLDER):
    _register(_name)
