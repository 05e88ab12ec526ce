"""Identities of the parts of a run: checkpoint, suite, judges and their calibration."""

from __future__ import annotations

from pydantic import Field, JsonValue

from cst_bench.record.record_file import Record
from cst_bench.statistics.intervals import Interval


class TrainingIdentity(Record):
    """How `cst-bench train` made a checkpoint."""

    method: str
    """`dpo` or `cst`."""
    recipe: str
    """Name of the recipe."""
    recipe_sha256: str
    """SHA-256 of the recipe, with the changes made to it."""
    seed: int
    """Random seed of the training."""
    data_sha256: str
    """SHA-256 of the training rows."""
    base: str
    """Label of the model it was trained on."""
    base_sha256: str
    """SHA-256 of the weights it was trained on."""
    system_as: str = "system"
    """How the system prompt was put into the chat template."""


class CheckpointIdentity(Record):
    """Identity of the evaluated weights."""

    label: str
    """Name in reports."""
    kind: str
    """`local`, `hub`, `adapter`, `inspect` (an Inspect model name) or `file` (generations made elsewhere)."""
    revision: str | None = None
    """Commit on the Hub."""
    architecture: str | None = None
    """Class of the model."""
    weights_sha256: str | None = None
    """SHA-256 of the (base) weights."""
    adapter_sha256: str | None = None
    """SHA-256 of an adapter's weights."""
    settings_sha256: str | None = None
    """SHA-256 of config, tokenizer and chat template."""
    base: str | None = None
    """Label of an adapter's base."""
    training: TrainingIdentity | None = None
    """Training by `cst-bench train`; None for other checkpoints."""
    dtype: str | None = None
    """Data type of the weights."""
    quantization: str | None = None
    """Quantization of the weights; None if they have none."""
    merged: str | None = None
    """Data type in which an adapter was merged into its base on loading; None if it was not."""
    system_as: str | None = None
    """How the system prompt is put into the chat template."""
    stop_token: tuple[str, ...] = ()
    """Tokens given with `--stop-token`."""
    chat_template_sha256: str | None = None
    """SHA-256 of the template given with `--chat-template`."""
    think_tokens: tuple[str, str] | None = None
    """Markers of thoughts given with `--think-tokens`."""
    max_think_tokens: int | None = None
    """Most tokens of a thought, given with `--max-think-tokens`."""
    sha256: str | None = None
    """SHA-256 of the generations, for `file`."""


class SuiteRecord(Record):
    """The suite of a run."""

    name: str
    """Name of the suite."""
    version: int
    """Version of the suite."""
    title: str
    """Name in reports."""


class JudgeRecord(Record):
    """The judge of a task: enough to recognize it and to load it again. Holds no key."""

    name: str
    """Name in reports."""
    version: int
    """Version of the judge."""
    kind: str
    """`llm`, `rules`, `classifier`, `guard`, `panel`; or the origin of verdicts made elsewhere."""
    sha256: str
    """Identity: SHA-256 of everything that decides a verdict."""
    source: str
    """Name of the judge, or path of its file."""
    response_check: int | None = None
    """Version of the check for degenerate responses that ran before the judge; None: none did."""
    details: dict[str, JsonValue] = Field(default_factory=dict)
    """Fields of its kind: `model`, `base_url`, `max_tokens`, `reasoning_effort`, `members`, …"""

    @property
    def model(self) -> str | None:
        """Return the model that is asked, if the judge asks one."""
        return self._text("model")

    @property
    def base_url(self) -> str | None:
        """Return the endpoint that is asked in place of the provider's own."""
        return self._text("base_url")

    def gives_verdicts_of(self, other: JudgeRecord) -> bool:
        """Return whether two records stand for the same verdicts: the same judge after the same check."""
        return (self.sha256, self.response_check) == (other.sha256, other.response_check)

    @property
    def max_tokens(self) -> int | None:
        """Return the most tokens of an answer, if that was given."""
        value = self.details.get("max_tokens")
        return value if isinstance(value, int) else None

    @property
    def reasoning_effort(self) -> str | None:
        """Return the reasoning effort that was asked for."""
        return self._text("reasoning_effort")

    def _text(self, name: str) -> str | None:
        value = self.details.get(name)
        return value if isinstance(value, str) else None


class ConfusionCounts(Record):
    """Verdicts against labels for one behaviour, on a calibration card."""

    tp: int
    """Labelled with the behaviour, and judged so."""
    fn: int
    """Labelled with it, judged otherwise."""
    fp: int
    """Labelled otherwise, judged to show it."""
    tn: int
    """Labelled otherwise, judged so."""


class CalibrationSummary(Record):
    """Summary of a judge's calibration card, as a run keeps it."""

    macro_f1: float | None
    """Macro F1 on the labels; None if undefined."""
    interval: Interval | None
    """95 % interval of macro F1."""
    n: int
    """Labelled responses."""
    labels: str
    """Name of the label set."""
    by: tuple[str, ...]
    """Who labelled."""
    sha256: str | None = None
    """SHA-256 of the card."""
    counts: dict[str, ConfusionCounts] | None
    """Behaviour → confusion counts, which scores are corrected by; None if the card has none."""
    by_model: dict[str, dict[str, ConfusionCounts]] = Field(default_factory=dict)
    """Model that made the labelled responses → behaviour → confusion counts, as on the card."""
