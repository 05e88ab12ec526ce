"""Number formats of reports: shares with two decimals, percentages with one, a dash for undefined values."""

from __future__ import annotations

DASH = "–"
MINUS = "−"


def number(value: float | None, scale: int, digits: int | None = None) -> str:
    """Format a score; `scale` 100 makes a share a percentage."""
    if value is None:
        return DASH
    return f"{scale * value:.{_digits(scale) if digits is None else digits}f}"


def ends(interval: tuple[float, float] | None, scale: int, digits: int | None = None) -> str:
    """Format an interval: `0.61–0.74`."""
    return DASH if interval is None else "–".join(number(end, scale, digits) for end in interval)


def signed(value: float | None, scale: int, digits: int | None = None) -> str:
    """Format a difference, with its sign unless it rounds to zero."""
    if value is None:
        return DASH
    text = number(abs(value), scale, digits)
    if float(text) == 0:
        return text
    return f"{'+' if value > 0 else MINUS}{text}"


def signed_ends(interval: tuple[float, float] | None, scale: int, digits: int | None = None) -> str:
    """Format the interval of a difference: `−0.12 to +0.03`."""
    return DASH if interval is None else " to ".join(signed(end, scale, digits) for end in interval)


def p_value(value: float | None) -> str:
    """Format a p value with three decimals, `< 0.001` below."""
    if value is None:
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _digits(scale: int) -> int:
    return 2 if scale == 1 else 1
