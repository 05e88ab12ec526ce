"""Read `garak.UUID.report.jsonl`: the attempts of a scan by garak."""

from __future__ import annotations

from cst_bench.runs.imports.imported import (
    MISSING,
    NOT_TEXT,
    Document,
    Entry,
    ImportedLog,
    ImportedResponse,
    joined,
    parse,
    printable,
)

KIND = "a garak report"
_NOT_SENT = 0
"""garak's status of an attempt that was not sent; 1 is one with responses, 2 the same with its detectors' results."""


class Message(Entry):
    """Text of the turn; garak before 0.11 writes the text alone."""

    text: str | None = None


class Turn(Entry):
    """A message and who said it."""

    role: str
    content: Message | str | None = None

    @property
    def text(self) -> str | None:
        """Return the text; None for other media."""
        return self.content.text if isinstance(self.content, Message) else self.content


class Conversation(Entry):
    """Turns, as garak writes them since 0.12."""

    turns: list[Turn]


class Attempt(Entry):
    """An entry of the type `attempt`: one prompt and all responses to it."""

    uuid: str
    status: int
    prompt: Conversation | list[Turn] | Message | str | None = None
    outputs: tuple[Message | str | None, ...] = ()
    conversations: tuple[Conversation, ...] = ()
    """One for each output, with all of its turns."""
    messages: tuple[list[Turn], ...] = ()
    """The same in reports before 0.12."""
    probe_classname: str | None = None
    goal: str | None = None


def fits(document: Document) -> bool:
    """Return whether a file is a report of garak."""
    return "entry_type" in document.first


def read(document: Document) -> ImportedLog:
    """Read the outputs of all attempts that were sent.

    An attempt that is there twice, before and after its detectors, is read once. What detectors said is not read.

    Raises:
        UserError: an attempt is not as documented.
    """
    attempts: dict[str, tuple[str, Attempt]] = {}
    model = None
    for row in document.rows:
        if row.values.get("entry_type") == "start_run setup":
            setup = row.values
            name = setup.get("plugins.target_name") or setup.get("plugins.model_name")
            kind = setup.get("plugins.target_type") or setup.get("plugins.model_type")
            model = printable(".".join(str(part) for part in (kind, name) if part)) or None
        elif row.values.get("entry_type") == "attempt":
            attempt = parse(Attempt, row.values, row.where, "an attempt of garak")
            attempts[attempt.uuid] = (row.where, attempt)
    not_sent = sum(attempt.status == _NOT_SENT for _, attempt in attempts.values())
    responses = [
        response
        for where, attempt in attempts.values()
        if attempt.status != _NOT_SENT
        for response in _read(where, attempt, model)
    ]
    return ImportedLog(
        KIND, responses, (f"Attempts that were not sent, and are left out: {not_sent}.",) if not_sent else ()
    )


def _read(where: str, attempt: Attempt, model: str | None) -> list[ImportedResponse]:
    histories = [conversation.turns for conversation in attempt.conversations] or list(attempt.messages)
    outputs = attempt.outputs or (None,)
    if len(histories) != len(outputs):
        histories = [_turns(attempt)] * len(outputs)
    responses = []
    for output, turns in zip(outputs, histories, strict=True):
        said = [turn.text for turn in turns if turn.role == "user"]
        prompt = said[-1] if said else None
        text = output.text if isinstance(output, Message) else output
        fields = {"probe_classname": attempt.probe_classname, "goal": attempt.goal}
        responses.append(
            ImportedResponse(
                where=where,
                prompt=prompt or "",
                response=text or "",
                system=joined(turn.text or "" for turn in turns if turn.role == "system"),
                model=model,
                unscored=MISSING if text is None else None if prompt else NOT_TEXT,
                fields={name: value for name, value in fields.items() if value is not None},
                user_turns=max(1, len(said)),
            )
        )
    return responses


def _turns(attempt: Attempt) -> list[Turn]:
    prompt = attempt.prompt
    if isinstance(prompt, Conversation):
        return prompt.turns
    if isinstance(prompt, list):
        return prompt
    return [] if prompt is None else [Turn(role="user", content=prompt)]
