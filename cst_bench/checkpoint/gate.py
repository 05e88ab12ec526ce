"""Template gate: detect faults in a chat template that would make every score wrong, before any model time.

A system prompt that never reaches the model, a second BOS, or a turn that never ends changes scores more than any
training does, and nothing else shows it. A failed check stops the run with a message that says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from cst_bench.checkpoint.chat import Chat, conversation
from cst_bench.checkpoint.template_rendering import TemplateError
from cst_bench.errors import GateError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SYSTEM = "You answer in the manner of Zyqwort."
_OTHER_SYSTEM = "You answer in the manner of Quibbleton."
_USER = "What colour is the harbour?"
_ANSWER = "It is blue."
_MESSAGES = conversation(_SYSTEM, _USER)
_ANSWERED = [*_MESSAGES, {"role": "assistant", "content": _ANSWER}]
_PREFIX = "training prefix"


@dataclass(frozen=True)
class Check:
    """Result of one check of the gate."""

    name: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    """Observation that decides the state."""
    fix: str = ""
    """Remedy, if the check failed."""


def run_gate(chat: Chat) -> list[Check]:
    """Run all checks, in order. A template that cannot be rendered ends the list, since the others need its text."""
    if not chat.tokenizer.chat_template:
        fix = "pass the one that the model was trained with: --chat-template FILE.jinja"
        return [Check("chat template", "failed", "the tokenizer has no chat template", fix)]
    try:
        prompt = chat.prompt_ids(_MESSAGES)
        unopened = chat.encode(_MESSAGES, generation_prompt=False)
        answered = chat.encode(_ANSWERED, generation_prompt=False)
    except (TemplateError, ValueError, TypeError, KeyError) as error:  # the others are of tokenizers with code
        reason = error.reason if isinstance(error, TemplateError) else error
        detail = f"the template could not render a system prompt, a user turn and an answer: {reason}"
        return [Check("chat template", "failed", detail, _system_fix(chat))]
    opening = prompt[_common(prompt, unopened) :]
    thought = _opened_thought(chat, prompt, answered)
    written = answered[len(prompt) - thought :]
    checks = [
        Check("chat template", "ok", f"renders a system prompt and a user turn in {len(prompt)} tokens"),
        _system_prompt(chat, prompt),
        _bos(chat.tokenizer, prompt, opening),
        _prefix(chat, prompt, answered, thought),
        _turn_opened_once(chat.tokenizer, unopened, opening, written),
        _end_of_turn(chat, answered, written),
        _control_tokens(chat, prompt, answered),
    ]
    if chat.think_tokens is not None:
        opened = "the template opens one" if chat.opens_thought(prompt) else "the model opens one"
        detail = f"between {chat.think_tokens.open!r} and {chat.think_tokens.close!r}; {opened}"
        checks.append(Check("thoughts", "ok", f"{detail}; they are removed before a response is judged"))
    if "strftime_now" in str(chat.tokenizer.chat_template):
        detail = "the template writes today's date into every prompt, so responses can change from day to day"
        checks.append(Check("date", "warning", detail, "use a template with a fixed date (--chat-template FILE.jinja)"))
    return checks


def require(checks: list[Check], label: str) -> None:
    """Check that no check of the gate failed.

    Raises:
        GateError: at least one failed; the message lists each with its fix.
    """
    failed = [check for check in checks if check.state == "failed"]
    if failed:
        faults = "; ".join(f"{check.name}: {check.detail}: {check.fix}" for check in failed)
        raise GateError(f"the chat template of {label} would make every score wrong. {faults}")


def _system_fix(chat: Chat) -> str:
    if _cured_by_prefix(chat):
        return "pass --system-as user-prefix (and train with the same), or another template with --chat-template"
    return "pass another template with --chat-template FILE.jinja"


def _cured_by_prefix(chat: Chat) -> bool:
    """Return whether a system prompt that precedes the user's text reaches evaluation and training."""
    if chat.system_as == "user-prefix":
        return False
    checks = run_gate(replace(chat, system_as="user-prefix"))
    return all(check.state == "ok" for check in checks if check.name in ("chat template", "system prompt", _PREFIX))


def _system_prompt(chat: Chat, prompt: list[int]) -> Check:
    """Check that the text of the system prompt is in the token ids, and that another text gives other ids."""
    shown = " ".join(chat.tokenizer.decode(prompt).split())
    if _SYSTEM not in shown or chat.prompt_ids(conversation(_OTHER_SYSTEM, _USER)) == prompt:
        return Check("system prompt", "failed", "the template drops the system prompt", _system_fix(chat))
    where = "in the system turn" if chat.system_as == "system" else "before the user's text"
    return Check("system prompt", "ok", f"is in the token ids, {where}")


def _bos(tokenizer: PreTrainedTokenizerBase, prompt: list[int], opening: list[int]) -> Check:
    """Check that there is at most one BOS. Some models are trained without any (ChatML on Mistral)."""
    bos = tokenizer.bos_token_id
    count = prompt.count(bos) if bos is not None else 0
    if bos is not None and (bos == tokenizer.eos_token_id or bos in opening):  # it also opens turns (SmolLM2's ChatML)
        count = next((index for index, token in enumerate(prompt) if token != bos), len(prompt))
    if count > 1:
        fix = "remove the surplus BOS from the chat template (--chat-template FILE.jinja)"
        return Check("BOS", "failed", f"{count} BOS tokens ({tokenizer.bos_token}) in one prompt", fix)
    if count == 1:
        return Check("BOS", "ok", f"exactly one ({tokenizer.bos_token})")
    plain = tokenizer("a")["input_ids"]
    if bos is not None and bos in plain:
        return Check("BOS", "warning", f"none: the template leaves out {tokenizer.bos_token}, which plain text gets")
    return Check("BOS", "ok", "none, and none for plain text either")


def _opened_thought(chat: Chat, prompt: list[int], answered: list[int]) -> int:
    """Return how many tokens of the prompt open a thought that the template leaves out of an answered turn."""
    tail = prompt[_common(prompt, answered) :]
    text = chat.tokenizer.decode(tail).strip()
    opens = chat.think_tokens is not None and chat.opens_thought(prompt) and chat.think_tokens.open.endswith(text)
    return len(tail) if opens else 0


def _prefix(chat: Chat, prompt: list[int], answered: list[int], thought: int) -> Check:
    """Check that training has the same tokens before the answer as evaluation."""
    if answered[: len(prompt)] == prompt:
        return Check(_PREFIX, "ok", "equal to the evaluation prefix, token for token")
    if thought:
        detail = "equal to the evaluation prefix, but for the thought that the generation prompt opens"
        return Check(_PREFIX, "warning", f"{detail}: it can be evaluated, and trained only with another template")
    detail = f"differs from the evaluation prefix at token {_common(prompt, answered)} of {len(prompt)}"
    fix = "make the template render the prompt equally with and without its answer (--chat-template FILE.jinja)"
    if _cured_by_prefix(chat):  # Mistral's moves the system prompt into the last message, and loses it in training
        fix = "pass --system-as user-prefix (and train with the same), which has no such difference"
    return Check(_PREFIX, "failed", detail, fix)


def _turn_opened_once(
    tokenizer: PreTrainedTokenizerBase, unopened: list[int], opening: list[int], written: list[int]
) -> Check:
    """Check that the assistant's turn is opened once: by the generation prompt, or by the user's end (`[/INST]`)."""
    before = tokenizer.decode(written).partition(_ANSWER)[0].strip()
    if not opening:
        if before:
            detail = (
                f"never opened: training writes {before!r} before an answer, and the template has no generation prompt"
            )
            fix = "use a template that writes one if add_generation_prompt (--chat-template FILE.jinja)"
            return Check("assistant turn", "failed", detail, fix)
        return Check(
            "assistant turn", "ok", "opened by the end of the user's turn; the template has no generation prompt"
        )
    half = len(opening) // 2
    if unopened[-len(opening) :] == opening or opening[:half] == opening[half:]:
        return Check("assistant turn", "failed", "opened twice", "remove the surplus opening from the template")
    if before:  # Qwen 3's thoughts, gpt-oss' channels
        detail = f"opened by {tokenizer.decode(opening)!r}, but training continues with {before!r} before the answer"
        return Check("assistant turn", "warning", f"{detail}: responses may begin with more than an answer")
    return Check("assistant turn", "ok", f"opened once by {tokenizer.decode(opening)!r}")


def _end_of_turn(chat: Chat, answered: list[int], written: list[int]) -> Check:
    """Check that generation stops at the token with which the template ends an answer."""
    tokenizer = chat.tokenizer
    stops = ", ".join(repr(tokenizer.decode([token])) for token in sorted(chat.stop_ids)) or "none"
    control = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder, *chat.stop_ids}
    ends = [
        token
        for index, token in enumerate(written)
        if token in control and _ANSWER in tokenizer.decode(written[:index])  # earlier ones may open a thought
    ]
    if _ANSWER not in tokenizer.decode(answered):
        fix = "use a template that renders the assistant's turns (--chat-template FILE.jinja)"
        return Check("end of turn", "failed", "the template drops the answer", fix)
    if not ends:
        if not chat.stop_ids:
            return Check("end of turn", "failed", "generation stops at no token", "pass one with --stop-token TOKEN")
        text = tokenizer.decode(written).partition(_ANSWER)[2].strip()
        detail = f"the template writes {text!r}, which is not a single token" if text else "the template writes none"
        return Check("end of turn", "warning", f"{detail}; generation relies on {stops}")
    shown = repr(tokenizer.decode([ends[0]]))
    if ends[0] not in chat.stop_ids:
        fix = f"pass --stop-token {shown}"
        return Check("end of turn", "failed", f"{shown} ends a turn but generation stops only at {stops}", fix)
    return Check("end of turn", "ok", f"{shown} ends a turn, and generation stops at it")


def _control_tokens(chat: Chat, prompt: list[int], answered: list[int]) -> Check:
    """Check that a prompt that spells every control token gets none of them, in evaluation and in training."""
    name = "control tokens"
    spelled = " ".join(chat.control_texts)
    hostile = conversation(f"{_SYSTEM} {spelled}", f"{_USER} {spelled}")
    evaluated = chat.prompt_ids(hostile)
    trained = chat.encode([*hostile, _ANSWERED[-1]], generation_prompt=False)
    opens_turns = [chat.controls(evaluated), chat.controls(trained)] != [chat.controls(prompt), chat.controls(answered)]
    if opens_turns or (answered[: len(prompt)] == prompt and trained[: len(evaluated)] != evaluated):
        detail = "a prompt that spells them " + ("opens turns of its own" if opens_turns else "is trained differently")
        return Check(
            name, "failed", detail, "use a fast tokenizer (tokenizer.json) and a template that keeps texts whole"
        )
    shorter = chat.prompt_ids(conversation(_SYSTEM, _USER[:-1]))
    tail = prompt[len(prompt) - _common(prompt[::-1], shorter[::-1]) :]
    if not chat.controls(tail):
        text = chat.tokenizer.decode(tail)
        detail = f"none in {text!r}, which ends the user's turn: a prompt that contains this text can imitate a turn"
        return Check(name, "warning", detail)
    return Check(name, "ok", f"a prompt that spells all {len(chat.control_texts)} of them gets none")


def _common(left: list[int], right: list[int]) -> int:
    """Return the length of the common prefix of two lists."""
    pairs = enumerate(zip(left, right))
    return next((index for index, (a, b) in pairs if a != b), min(len(left), len(right)))
