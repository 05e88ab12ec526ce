"""Gates on a comparison, for CI: `S0 < -0.05`, `S1.score < 0.9 and S1.high < 0`.

    gate      = condition { "and" condition }
    condition = name ["." quantity] operator number
    name      = a score's title, task/title or key, in quotes if it has spaces or stands for itself ("joint truthy")
    quantity  = difference (the default) | score | low | high | p
    operator  = < | <= | > | >=

The difference is the second run's score less the first's, as a share (capabilities, too); low and high are the ends of its
95 % interval, score is the second run's own, p is not corrected. A gate whose conditions all hold has failed.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cst_bench.errors import UserError, did_you_mean
from cst_bench.reporting.comparison.comparison import ComparedScore, Comparison

QUANTITIES = ("difference", "score", "low", "high", "p")
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<quoted>"(?:[^"\\]|\\.)*")(?P<of>\.[a-z]+)?
    | (?P<operator><=|>=|<|>)
    | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?=\s|$)
    | (?P<word>[^\s<>="]+)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class Condition:
    """`name.quantity operator number`."""

    name: str
    quantity: str
    operator: str
    number: float

    def __str__(self) -> str:
        """As `parse_gate` reads it."""
        quoted = self.name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}".{self.quantity} {self.operator} {self.number!r}'


@dataclass(frozen=True)
class Gate:
    """Conditions that must not all hold."""

    text: str
    """As it was given."""
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class GateResult:
    """What a gate came to."""

    gate: Gate
    failed: bool
    message: str


def parse_gate(text: str) -> Gate:
    """Reads a gate.

    Raises:
        UserError: it doesn't follow the grammar; the message says where.
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
"""Kind, text, and for a quoted name the quantity behind it."""


def _tokens(text: str) -> list[Token]:
    tokens: list[Token] = []
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            raise _fault(text, f"something else than {text[at:].strip()[:20]!r}")
        kind = "operator" if found["operator"] else "number" if found["number"] else "word" if found["word"] else "name"
        if kind == "name":
            tokens.append((kind, re.sub(r"\\(.)", r"\1", found["quoted"][1:-1]), (found["of"] or "")[1:]))
        else:
            tokens.append((kind, found[kind], ""))
        at = found.end()
    return tokens


def _condition(text: str, tokens: list[Token]) -> Condition:
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
            f"gate {text!r}: {number} is no share, and would never decide: scores and differences are shares, of "
            "capabilities, too: 5 points are 0.05"
        )
    return Condition(name, quantity, sign, float(number))


def _next(text: str, tokens: list[Token], kinds: Sequence[str], wanted: str) -> Token:
    if not tokens or tokens[0][0] not in kinds:
        raise _fault(text, f"{wanted}, not {tokens[0][1]!r}" if tokens else f"{wanted} at the end")
    return tokens.pop(0)


def _fault(text: str, wanted: str) -> UserError:
    return UserError(f"gate {text!r}: expected {wanted}; write it as in --fail-if 'S0 < -0.05' or 'S1.score < 0.9'")


def judge_gate(gate: Gate, found: Comparison) -> GateResult:
    """Whether a gate has failed; one that asks for something undefined, or too often unscored to be believed, has.

    Raises:
        UserError: it names no score of the comparison, or more than one.
    """
    said, holding = [], []
    for condition in gate.conditions:
        one = _named(gate, condition.name, found)
        value = _quantity(one, condition.quantity)
        if "unscored" in one.flags:
            before, now = one.unscored
            shown, value = f"not to be believed, {before} and {now} responses unscored", None
        else:
            shown = "undefined" if value is None else f"{value:+.4f}" if condition.quantity != "p" else f"{value:.4f}"
        said.append(f"{condition.name}.{condition.quantity} is {shown}")
        holding.append(value is None or OPERATORS[condition.operator](value, condition.number))
    failed = all(holding)
    return GateResult(gate, failed, f"{gate.text}: {'failed' if failed else 'passed'} ({', '.join(said)})")


def _quantity(one: ComparedScore, quantity: str) -> float | None:
    difference = one.difference
    ends = difference.interval or (None, None)
    return {
        "difference": difference.difference,
        "score": one.score,
        "low": ends[0],
        "high": ends[1],
        "p": difference.p,
    }[quantity]


def _named(gate: Gate, name: str, found: Comparison) -> ComparedScore:
    """By key, else by title."""
    by_key = {one.column.key: one for one in found.scores}
    if name in by_key:
        return by_key[name]
    titled = [one for one in found.scores if one.column.title == name]
    if len(titled) == 1:
        return titled[0]
    if titled:
        raise UserError(
            f"gate {gate.text!r}: {name!r} is {len(titled)} scores: say {' or '.join(one.column.key for one in titled)}"
        )
    known = dict.fromkeys([*(one.column.title for one in found.scores), *by_key])
    raise UserError(f"gate {gate.text!r}: no score {name!r} in both runs: {did_you_mean(name, known)}")
