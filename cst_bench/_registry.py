"""Entry point of Inspect: the model provider `cst/…`, and each shipped compliance task under its name."""

from __future__ import annotations

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
    """Return the provider `cst/…`, imported (with torch) only when it is used."""
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
        return compliance(name, wording=wording, data=data, prompts=prompts, judge=judge, seed=seed)


for _name in content.names(FOLDER):
    _register(_name)
