"""The template gate: faults in a chat template that would make every score wrong, found before any model time.

A system prompt that never reaches the model, a second BOS, or a turn that never ends changes scores more than any
training does, and nothing else shows it. Each check says what it found; a failed one stops the run with the fix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import TemplateError

from cst_bench.checkpoint.chat import Chat, conversation
from cst_bench.errors import GateError

_SYSTEM = "You answer in the manner of Zyqwort."
_OTHER_SYSTEM = "You answer in the manner of Quibbleton."
_USER = "What colour is the harbour?"
_ANSWER = "It is blue."


@dataclass(frozen=True)
class Check:
    """One check of the gate: what was looked at, what was found, and what to do if it failed."""

    name: str
    state: Literal["ok", "warning", "failed"]
    found: str
    fix: str = ""


def run_gate(chat: Chat) -> list[Check]:
    """All checks, in order. A template that can't be rendered ends the list, since nothing more can be told."""
    if not chat.tokenizer.chat_template:
        fix = "give one with --chat-template FILE.jinja, the one that the model was trained with"
        return [Check("chat template", "failed", "the tokenizer has no chat template", fix)]
    messages = conversation(_SYSTEM, _USER)
    try:
        prompt = chat.encode(messages, generation_prompt=True)
        unopened = chat.encode(messages, generation_prompt=False)
        answered = chat.encode([*messages, {"role": "assistant", "content": _ANSWER}], generation_prompt=False)
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        found = f"the template can't render a system prompt, a user turn and an answer: {error}"
        return [Check("chat template", "failed", found, _system_fix(chat))]
    return [
        Check("chat template", "ok", f"renders a system prompt and a user turn in {len(prompt)} tokens"),
        _system_prompt(chat, prompt),
        _bos(chat.tokenizer, prompt),
        _prefix(prompt, answered),
        _turn_opened_once(chat.tokenizer, prompt, unopened),
        _end_of_turn(chat, prompt, answered),
    ]


def require(checks: list[Check], label: str) -> None:
    """Stops when a check failed.

    Raises:
        GateError: with each failed check and its fix.
    """
    failed = [check for check in checks if check.state == "failed"]
    if failed:
        faults = "; ".join(f"{check.name}: {check.found}: {check.fix}" for check in failed)
        raise GateError(f"the chat template of {label} would make every score wrong. {faults}")


def _system_fix(chat: Chat) -> str:
    if chat.system_as == "system":
        return "pass --system-as user-prefix (and train with the same), or give another template with --chat-template"
    return "give another template with --chat-template FILE.jinja"


def _system_prompt(chat: Chat, prompt: list[int]) -> Check:
    """The text of the system prompt is in the token ids, and other text makes other ids."""
    shown = " ".join(chat.tokenizer.decode(prompt).split())
    if _SYSTEM not in shown or chat.prompt_ids(conversation(_OTHER_SYSTEM, _USER)) == prompt:
        return Check("system prompt", "failed", "the template drops the system prompt", _system_fix(chat))
    where = "in the system turn" if chat.system_as == "system" else "before the user's text"
    return Check("system prompt", "ok", f"is in the token ids, {where}")


def _bos(tokenizer: Any, prompt: list[int]) -> Check:
    """One BOS where the model is used to one. None at all is how some models are trained (ChatML on Mistral)."""
    bos = tokenizer.bos_token_id
    count = prompt.count(bos) if bos is not None else 0
    if bos is not None and bos == tokenizer.eos_token_id:
        count = int(prompt[0] == bos) + int(prompt[:2] == [bos, bos])
    if count > 1:
        fix = "take the surplus BOS out of the chat template (--chat-template FILE.jinja)"
        return Check("BOS", "failed", f"{count} BOS tokens ({tokenizer.bos_token}) in one prompt", fix)
    if count == 1:
        return Check("BOS", "ok", f"exactly one ({tokenizer.bos_token})")
    plain = tokenizer("a")["input_ids"]
    if bos is not None and bos in plain:
        return Check("BOS", "warning", f"none: the template leaves out {tokenizer.bos_token}, which plain text gets")
    return Check("BOS", "ok", "none, and none for plain text either")


def _prefix(prompt: list[int], answered: list[int]) -> Check:
    """Training sees the same tokens before the answer as evaluation does."""
    if answered[: len(prompt)] == prompt:
        return Check("training prefix", "ok", "equal to the evaluation prefix, token for token")
    same = next(i for i, pair in enumerate(zip([*prompt, -1], [*answered, -2])) if pair[0] != pair[1])
    found = f"differs from the evaluation prefix at token {same} of {len(prompt)}"
    return Check(
        "training prefix", "failed", found, "make the template render a prompt the same with and without its answer"
    )


def _turn_opened_once(tokenizer: Any, prompt: list[int], unopened: list[int]) -> Check:
    """The generation prompt opens the assistant's turn once, or the user's turn ends by opening it (`[/INST]`)."""
    if prompt[: len(unopened)] != unopened:
        return Check("assistant turn", "failed", "the generation prompt changes what is before it", "mend the template")
    opening = prompt[len(unopened) :]
    if not opening:
        return Check(
            "assistant turn", "ok", "opened by the end of the user's turn; the template has no generation prompt"
        )
    if unopened[-len(opening) :] == opening:
        return Check("assistant turn", "failed", "opened twice", "take the surplus opening out of the template")
    return Check("assistant turn", "ok", f"opened once by {tokenizer.decode(opening)!r}")


def _end_of_turn(chat: Chat, prompt: list[int], answered: list[int]) -> Check:
    """The token with which the template ends an answer is one that generation stops at."""
    tokenizer = chat.tokenizer
    stops = ", ".join(repr(tokenizer.decode([token])) for token in sorted(chat.stop_ids)) or "none"
    special = set(tokenizer.all_special_ids) | chat.stop_ids
    ends = [token for token in answered[len(prompt) :] if token in special]
    if not ends:
        if not chat.stop_ids:
            return Check("end of turn", "failed", "generation stops at no token", "name one with --stop-token TOKEN")
        return Check("end of turn", "warning", f"the template writes none; generation relies on {stops}")
    shown = repr(tokenizer.decode([ends[0]]))
    if ends[0] not in chat.stop_ids:
        fix = f"pass --stop-token {shown}"
        return Check("end of turn", "failed", f"{shown} ends a turn but generation stops only at {stops}", fix)
    return Check("end of turn", "ok", f"{shown} ends a turn, and generation stops at it")
