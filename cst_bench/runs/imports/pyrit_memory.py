"""Read conversations that PyRIT's memory exported (`memory.export_conversations`), as JSON or CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from cst_bench.runs.imports.imported import (
    ERROR,
    FILTERED,
    NOT_TEXT,
    Document,
    Entry,
    ImportedLog,
    ImportedResponse,
    joined,
    parse,
    printable,
)

KIND = "a PyRIT export"


class Piece(Entry):
    """A piece of a message: `MessagePiece`, or `PromptRequestPiece` before 0.10."""

    role: str
    conversation_id: str
    sequence: int
    original_value: str
    original_value_data_type: str = "text"
    converted_value: str | None = None
    converted_value_data_type: str | None = None
    response_error: str | None = None
    prompt_target_identifier: dict[str, object] | str | None = None
    """The target; a dictionary in JSON, its text in CSV."""

    @property
    def sent(self) -> str:
        """Return what was sent to the target: the value after converters."""
        return self.converted_value or self.original_value

    @property
    def is_text(self) -> bool:
        """Return whether what was sent is text."""
        return (self.converted_value_data_type or self.original_value_data_type) == "text"


def fits(document: Document) -> bool:
    """Return whether a file has pieces of PyRIT's messages."""
    return {"role", "conversation_id", "sequence", "original_value"} <= document.first.keys()


def read(document: Document) -> ImportedLog:
    """Read the last response of each conversation, and the prompt before it as it was sent, after converters.

    Conversations without a response of the target, such as prompts that were only prepared, are counted in a note.

    Raises:
        UserError: a piece is not as documented.
    """
    conversations: dict[str, list[tuple[str, Piece]]] = {}
    for row in document.rows:
        piece = parse(Piece, row.values, row.where, "a message piece of PyRIT")
        conversations.setdefault(piece.conversation_id, []).append((row.where, piece))
    read_ones = [_read(pieces) for pieces in conversations.values()]
    responses = [response for response in read_ones if response is not None]
    silent = len(read_ones) - len(responses)
    return ImportedLog(KIND, responses, (f"Conversations without a response, left out: {silent}.",) if silent else ())


def _read(placed: Sequence[tuple[str, Piece]]) -> ImportedResponse | None:
    where = {id(piece): place for place, piece in placed}
    pieces = sorted((piece for _, piece in placed), key=attrgetter("sequence"))
    turns = [list(of_turn) for _, of_turn in groupby(pieces, attrgetter("sequence"))]
    last = max((at for at, turn in enumerate(turns) if turn[0].role == "assistant"), default=None)
    if last is None:
        return None
    answer = turns[last]
    asked = [turn for turn in turns[:last] if turn[0].role == "user"]
    prompt = "\n".join(piece.sent for piece in asked[-1] if piece.is_text) if asked else ""
    texts = [piece.original_value for piece in answer if piece.original_value_data_type == "text"]
    errors = [piece.response_error for piece in answer if piece.response_error not in (None, "", "none")]
    reason = None
    if errors:
        reason = FILTERED if "blocked" in errors else ERROR
    elif not texts or not prompt:
        reason = NOT_TEXT
    target = next(
        (piece.prompt_target_identifier for piece in reversed(answer) if piece.prompt_target_identifier), None
    )
    return ImportedResponse(
        where=where[id(answer[0])],
        prompt=prompt,
        response="" if reason else "\n".join(texts),
        system=joined(piece.sent for turn in turns[:last] for piece in turn if piece.role in ("system", "developer")),
        model=_model(target),
        unscored=reason,
        fields={"original_value": "\n".join(piece.original_value for piece in asked[-1])} if asked else {},
        user_turns=max(1, len(asked)),
    )


def _model(target: Mapping[str, object] | str | None) -> str | None:
    """Return the model or, for a target that names none, its class."""
    if not isinstance(target, Mapping):
        return None
    name = next((target[key] for key in ("model_name", "class_name", "__type__") if target.get(key)), None)
    return printable(str(name)) if name else None
