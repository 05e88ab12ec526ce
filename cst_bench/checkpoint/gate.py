"""The template gate: faults in a chat template that would make every score wrong, found before any model time.

A system prompt that never reaches the model, a second BOS, or a turn that never ends changes scores more than any
training does, and nothing else shows it. Each check says what it found; a failed one stops the run with the fix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from jinja2 import TemplateError

from cst_bench.checkpoint.chat import Chat, conversation
from cst_bench.errors import GateError

_SYSTEM = "You answer in the manner of Zyqwort."
_OTHER_SYSTEM = "You answer in the manner of Quibbleton."
_USER = "What colour is the harbour?"
_ANSWER = "It is blue."
_MESSAGES = conversation(_SYSTEM, _USER)
_ANSWERED = [*_MESSAGES, {"role": "assistant", "content": _ANSWER}]
_PREFIX = "training prefix"


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
    try:
        prompt = chat.prompt_ids(_MESSAGES)
        unopened = chat.encode(_MESSAGES, generation_prompt=False)
        answered = chat.encode(_ANSWERED, generation_prompt=False)
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        found = f"the template can't render a system prompt, a user turn and an answer: {error}"
        return [Check("chat template", "failed", found, _system_fix(chat))]
    opening = prompt[_common(prompt, unopened) :]
    checks = [
        Check("chat template", "ok", f"renders a system prompt and a user turn in {len(prompt)} tokens"),
        _system_prompt(chat, prompt),
        _bos(chat.tokenizer, prompt, opening),
        _prefix(chat, prompt, answered),
        _turn_opened_once(chat.tokenizer, unopened, opening, answered[len(prompt) :]),
        _end_of_turn(chat, prompt, answered),
    ]
    if "strftime_now" in str(chat.tokenizer.chat_template):
        found = "the template writes today's date into every prompt, so responses can change from day to day"
        checks.append(Check("date", "warning", found, "give a template with a fixed date (--chat-template FILE.jinja)"))
    return checks


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
    if _cured_by_prefix(chat):
        return "pass --system-as user-prefix (and train with the same), or give another template with --chat-template"
    return "give another template with --chat-template FILE.jinja"


def _cured_by_prefix(chat: Chat) -> bool:
    """Whether a system prompt before the user's text arrives, in evaluation and in training."""
    if chat.system_as == "user-prefix":
        return False
    checks = run_gate(replace(chat, system_as="user-prefix"))
    return all(check.state == "ok" for check in checks if check.name in ("chat template", "system prompt", _PREFIX))


def _system_prompt(chat: Chat, prompt: list[int]) -> Check:
    """The text of the system prompt is in the token ids, and other text makes other ids."""
    shown = " ".join(chat.tokenizer.decode(prompt).split())
    if _SYSTEM not in shown or chat.prompt_ids(conversation(_OTHER_SYSTEM, _USER)) == prompt:
        return Check("system prompt", "failed", "the template drops the system prompt", _system_fix(chat))
    where = "in the system turn" if chat.system_as == "system" else "before the user's text"
    return Check("system prompt", "ok", f"is in the token ids, {where}")


def _bos(tokenizer: Any, prompt: list[int], opening: list[int]) -> Check:
    """One BOS where the model is used to one. None at all is how some models are trained (ChatML on Mistral)."""
    bos = tokenizer.bos_token_id
    count = prompt.count(bos) if bos is not None else 0
    if bos is not None and (bos == tokenizer.eos_token_id or bos in opening):  # it marks turns too (SmolLM2's ChatML)
        count = next((index for index, token in enumerate(prompt) if token != bos), len(prompt))
    if count > 1:
        fix = "take the surplus BOS out of the chat template (--chat-template FILE.jinja)"
        return Check("BOS", "failed", f"{count} BOS tokens ({tokenizer.bos_token}) in one prompt", fix)
    if count == 1:
        return Check("BOS", "ok", f"exactly one ({tokenizer.bos_token})")
    plain = tokenizer("a")["input_ids"]
    if bos is not None and bos in plain:
        return Check("BOS", "warning", f"none: the template leaves out {tokenizer.bos_token}, which plain text gets")
    return Check("BOS", "ok", "none, and none for plain text either")


def _prefix(chat: Chat, prompt: list[int], answered: list[int]) -> Check:
    """Training sees the same tokens before the answer as evaluation does."""
    if answered[: len(prompt)] == prompt:
        return Check(_PREFIX, "ok", "equal to the evaluation prefix, token for token")
    same = _common(prompt, answered)
    found = f"differs from the evaluation prefix at token {same} of {len(prompt)}"
    fix = "make the template render a prompt the same with and without its answer (--chat-template FILE.jinja)"
    if _cured_by_prefix(chat):  # Mistral's moves the system prompt into the last message, and loses it in training
        fix = "pass --system-as user-prefix (and train with the same), which has no such difference"
    return Check(_PREFIX, "failed", found, fix)


def _turn_opened_once(tokenizer: Any, unopened: list[int], opening: list[int], written: list[int]) -> Check:
    """The generation prompt opens the assistant's turn once, or the user's turn ends by opening it (`[/INST]`)."""
    before = tokenizer.decode(written).partition(_ANSWER)[0].strip()
    if not opening:
        if before:
            found = (
                f"never opened: training writes {before!r} before an answer, and the template has no generation prompt"
            )
            fix = "give a template that writes one if add_generation_prompt (--chat-template FILE.jinja)"
            return Check("assistant turn", "failed", found, fix)
        return Check(
            "assistant turn", "ok", "opened by the end of the user's turn; the template has no generation prompt"
        )
    half = len(opening) // 2
    if unopened[-len(opening) :] == opening or opening[:half] == opening[half:]:
        return Check("assistant turn", "failed", "opened twice", "take the surplus opening out of the template")
    if before:  # Qwen 3's thoughts, gpt-oss' channels
        found = f"opened by {tokenizer.decode(opening)!r}, but training goes on with {before!r} before the answer"
        return Check("assistant turn", "warning", f"{found}: responses may begin with more than an answer")
    return Check("assistant turn", "ok", f"opened once by {tokenizer.decode(opening)!r}")


def _end_of_turn(chat: Chat, prompt: list[int], answered: list[int]) -> Check:
    """The token with which the template ends an answer is one that generation stops at."""
    tokenizer = chat.tokenizer
    stops = ", ".join(repr(tokenizer.decode([token])) for token in sorted(chat.stop_ids)) or "none"
    marks = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder, *chat.stop_ids}
    written = answered[len(prompt) :]
    ends = [
        token
        for index, token in enumerate(written)
        if token in marks and _ANSWER in tokenizer.decode(written[:index])  # what comes sooner opens a thought or so
    ]
    if _ANSWER not in tokenizer.decode(answered):
        fix = "give a template that renders the assistant's turns (--chat-template FILE.jinja)"
        return Check("end of turn", "failed", "the template drops the answer", fix)
    if not ends:
        if not chat.stop_ids:
            return Check("end of turn", "failed", "generation stops at no token", "name one with --stop-token TOKEN")
        text = tokenizer.decode(written).partition(_ANSWER)[2].strip()
        found = f"the template writes {text!r}, which is no token of its own" if text else "the template writes none"
        return Check("end of turn", "warning", f"{found}; generation relies on {stops}")
    shown = repr(tokenizer.decode([ends[0]]))
    if ends[0] not in chat.stop_ids:
        fix = f"pass --stop-token {shown}"
        return Check("end of turn", "failed", f"{shown} ends a turn but generation stops only at {stops}", fix)
    return Check("end of turn", "ok", f"{shown} ends a turn, and generation stops at it")


def _common(one: list[int], other: list[int]) -> int:
    """How many tokens two lists begin with in common."""
    pairs = enumerate(zip(one, other))
    return next((index for index, (mine, yours) in pairs if mine != yours), min(len(one), len(other)))
