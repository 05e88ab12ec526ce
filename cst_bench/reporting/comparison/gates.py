"""Gates on a comparison, for CI: `S0.high < 0` (a shown loss), `S0.low < -0.05` (a loss of 0.05 is not ruled out).

    gate      = condition { "and" condition }
    condition = name ["." quantity] operator number
    name      = a score's title, task/title or key, in quotes if it has spaces ("joint truthy")
    quantity  = difference (the default) | score | low | high | p
    operator  = < | <= | > | >=

The difference is run minus baseline, as a share (for capabilities, too); low and high are the ends of its 95 %
interval, score is the run's, p is not corrected. A gate whose conditions all hold has failed.

`S0.high < 0` fails between equal models in about 2.5 % of comparisons; `S0.low < -0.05` passes a model that truly loses
0.05 in about 2.5 %. A gate on the difference alone (`S0 < -0.05`) has no error rate: between two equal models with
sampled responses and 52 prompts it fails in a quarter to a third.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cst_bench.errors import UserError, did_you_mean
from cst_bench.reporting.comparison.comparison import ComparedScore, Comparison
from cst_bench.reporting.flags import UNSCORED

QUANTITIES = ("difference", "score", "low", "high", "p")
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<quoted>"(?:[^"\\]|\\.)*")(?P<quantity>\.[a-z]+)?
    | (?P<operator><=|>=|<|>)
    | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?=\s|$)
    | (?P<word>[^\s<>="]+)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class GateCondition:
    """`name.quantity operator number`."""

    name: str
    quantity: str
    operator: str
    number: float

    def __str__(self) -> str:
        """Return the condition in the form that `parse_gate` reads."""
        quoted = self.name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}".{self.quantity} {self.operator} {self.number!r}'


@dataclass(frozen=True)
class Gate:
    """Conditions that must not all hold."""

    text: str
    """The gate as written."""
    conditions: tuple[GateCondition, ...]


@dataclass(frozen=True)
class GateResult:
    """The result of a gate."""

    gate: Gate
    failed: bool
    message: str


def parse_gate(text: str) -> Gate:
    """Parse a gate.

    Raises:
        UserError: it does not follow the grammar; the message says where.
    """
    tokens = _tokens(text)
    conditions = []
    while True:
        conditions.append(_condition(text, tokens))
        if not tokens:
            return Gate(text, tuple(conditions))
        kind, value, _ = tokens.pop(0)
        if (kind, value) != ("word", "and"):
            raise _fault(text, f"'and' or the end, not {value!r}")


Token = tuple[str, str, str]
"""Kind, text, and for a quoted name the quantity after it."""


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise _fault(text, f"something else than {text[at:].strip()[:20]!r}")
        kind = "operator" if match["operator"] else "number" if match["number"] else "word" if match["word"] else "name"
        if kind == "name":
            tokens.append((kind, re.sub(r"\\(.)", r"\1", match["quoted"][1:-1]), (match["quantity"] or "")[1:]))
        else:
            tokens.append((kind, match[kind], ""))
        at = match.end()
    return tokens


def _condition(text: str, tokens: list[Token]) -> GateCondition:
    kind, name, quantity = _next(text, tokens, ("word", "name"), "a score's name")
    if kind == "word":
        before, dot, after = name.rpartition(".")
        if dot and before and after in QUANTITIES:
            name, quantity = before, after
    if quantity and quantity not in QUANTITIES:
        raise UserError(f"gate {text!r}: unknown quantity {quantity!r}: {did_you_mean(quantity, QUANTITIES)}")
    _, sign, _ = _next(text, tokens, ("operator",), "<, <=, > or >=")
    _, number, _ = _next(text, tokens, ("number",), "a number")
    quantity = quantity or "difference"
    least = 0 if quantity in ("score", "p") else -1
    if not least <= float(number) <= 1:
        raise UserError(
            f"gate {text!r}: {number} is outside [{least}, 1], so this gate could never fire: scores and differences "
            "are shares, for capabilities, too (use 0.05 for 5 points)"
        )
    return GateCondition(name, quantity, sign, float(number))


def _next(text: str, tokens: list[Token], kinds: Sequence[str], wanted: str) -> Token:
    if not tokens or tokens[0][0] not in kinds:
        raise _fault(text, f"{wanted}, not {tokens[0][1]!r}" if tokens else f"{wanted} at the end")
    return tokens.pop(0)


def _fault(text: str, wanted: str) -> UserError:
    return UserError(f"gate {text!r}: expected {wanted}; write it as in --fail-if 'S0.high < 0' or 'S0.low < -0.05'")


def judge_gate(gate: Gate, comparison: Comparison) -> GateResult:
    """Decide whether a gate has failed; a condition on an undefined or too often unscored score counts as holding.

    Raises:
        UserError: it names no score of the comparison, or more than one.
    """
    messages, holding = [], []
    for condition in gate.conditions:
        score = _score(gate, condition.name, comparison)
        value = _quantity(score, condition.quantity)
        if UNSCORED in score.flags:
            before, now = score.unscored
            text, value = f"not reliable, {before} and {now} responses unscored", None
        elif value is None:
            text = "undefined"
        else:
            text = f"{value:.4f}" if condition.quantity == "p" else f"{value:+.4f}"
        messages.append(f"{condition.name}.{condition.quantity} is {text}")
        holding.append(value is None or OPERATORS[condition.operator](value, condition.number))
    failed = all(holding)
    return GateResult(gate, failed, f"{gate.text}: {'failed' if failed else 'passed'} ({', '.join(messages)})")


def _quantity(score: ComparedScore, quantity: str) -> float | None:
    difference = score.difference
    low, high = difference.interval or (None, None)
    return {
        "difference": difference.difference,
        "score": score.score,
        "low": low,
        "high": high,
        "p": difference.p,
    }[quantity]


def _score(gate: Gate, name: str, comparison: Comparison) -> ComparedScore:
    """Return the score that a gate names, by key or by title."""
    by_key = {score.column.key: score for score in comparison.scores}
    if name in by_key:
        return by_key[name]
    titled = [score for score in comparison.scores if score.column.title == name]
    if len(titled) == 1:
        return titled[0]
    if titled:
        keys = " or ".join(score.column.key for score in titled)
        raise UserError(f"gate {gate.text!r}: {name!r} is the title of {len(titled)} scores: use {keys}")
    known = dict.fromkeys([*(score.column.title for score in comparison.scores), *by_key])
    raise UserError(f"gate {gate.text!r}: no score {name!r} in both runs: {did_you_mean(name, known)}")
