"""Schema of a capability task file: a task of lm-eval, its shots and its metric."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from cst_bench import content
from cst_bench.content import Content
from cst_bench.errors import UserError

FOLDER = "tasks/capabilities"


class CapabilityTask(Content):
    """A task or group of lm-eval, from its stock definitions or from another folder."""

    name: str = Field(pattern=r"^[a-z0-9_]+$")
    """Name for `--task`, in the run folder and in scores.json."""
    version: Annotated[int, Field(ge=1)]
    """Version; increased by every change that changes results."""
    title: str
    """Column name in reports."""
    description: str
    """Ability that the task measures, in a sentence."""
    source: str
    """Where the task comes from."""
    lm_eval: str
    """Name of the task or group in lm-eval."""
    is_group: bool = False
    """True for a group of tasks, as MMLU's subjects are."""
    stock: str | None = None
    """Folder of lm-eval's own definitions that contains it, so that the thousands of others need not be read."""
    definitions: str | None = None
    """Folder of other definitions, relative to the task file."""
    local_names: list[str] = Field(default_factory=list)
    """Names of the data in a folder of local data, beside the task's."""
    num_fewshot: Annotated[int, Field(ge=0)]
    """Number of examples in the prompt."""
    metric: str
    """lm-eval's name of the reported metric."""
    changelog: dict[int, str] = Field(default_factory=dict)
    """Version → what changed."""

    @model_validator(mode="after")
    def _one_origin(self) -> CapabilityTask:
        if (self.stock is None) == (self.definitions is None):
            raise ValueError("give either stock or definitions")
        return self

    def definitions_folder(self, path: Path) -> Path:
        """Return the folder of the definitions; `path` is the task file.

        Raises:
            UserError: there is no such folder.
        """
        if self.definitions is not None:
            folder = path.parent / self.definitions
        else:
            from importlib.util import find_spec

            package = find_spec("lm_eval")
            assert package is not None
            assert package.origin is not None
            folder = Path(package.origin).parent / "tasks" / str(self.stock)
        if not folder.is_dir():
            raise UserError(f"{path}: folder of lm-eval definitions not found: {folder}")
        return folder


def load_capability(name: str) -> tuple[CapabilityTask, Path]:
    """Load a capability task by name or path; return it and the path of its file.

    Raises:
        UserError: the name is unknown, or the file is not valid.
    """
    path = content.find(FOLDER, name, "capability task")
    return content.load(path, CapabilityTask), path
