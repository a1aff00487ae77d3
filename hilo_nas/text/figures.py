"""Figures as people read them: rounded, with their spread, and never to more than is known."""

from __future__ import annotations

import math

__all__ = ["figure", "is_wide", "probability_text", "share_text", "with_spread"]

_THRESHOLDS = (0.05, 0.95)
"""Probabilities that decide something: a network breaks a limit below the first, and keeps it or beats another from the
second on (`hilo_nas.space.KEPT_HARDLY`, `KEPT_SURELY`, `hilo_nas.study.front.SURE`)."""
_SMALL_SHARE = 0.5
"""Half-widths up to this share of a value are told by ±."""


def figure(value: float | None, digits: int = 4) -> str:
    """Returns a number with so many significant digits and no exponent; a dash for None."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if "e" in text or abs(value) >= 10**digits else text


def is_wide(value: float, half_width: float) -> bool:
    """Returns whether an interval is told by a factor."""
    return 0 < value < half_width / _SMALL_SHARE


def with_spread(value: float | None, half_width: float | None, *, scale: float = 1.0, decimals: int = 0) -> str:
    """Returns `value ± half_width`, both scaled and with so many decimals, or more where the value is small.

    A positive value whose half-width is more than half of it (`is_wide`) is shown as `value ×/÷ factor`: such an
    interval is even on a logarithmic scale, and does not reach below 0.

    Args:
        value: The value; a dash stands for None.
        half_width: Half of its 95 % interval, which every ± of this project is.
        scale: What both are multiplied by.
        decimals: At least so many.
    """
    if value is None:
        return "-"
    decimals = max(decimals, 3 - len(str(int(abs(value * scale)))) + (abs(value * scale) < 1))
    text = f"{value * scale:,.{decimals}f}"
    if half_width is None:
        return text
    if is_wide(value, half_width):
        return f"{text} ×/÷ {math.exp(half_width / value):.1f}"
    return f"{text} ± {half_width * scale:,.{decimals}f}"


def probability_text(probability: float, *, is_short: bool = False) -> str:
    """Returns a probability in whole percent, never rounded to certainty nor up to a threshold that it misses.

    0.9496 is `94.9%`, and 0.999 `more than 99%`. A probability of 1 is that of an estimate, and no certainty either.

    Args:
        probability: From 0 to 1.
        is_short: Whether it stands in a table: `>99%`.
    """
    if probability > 0.99:
        return ">99%" if is_short else "more than 99%"
    if probability < 0.01:
        return "<1%" if is_short else "less than 1%"
    text = f"{probability:.0%}"
    is_rounded_across = any(probability < threshold <= int(text[:-1]) / 100 for threshold in _THRESHOLDS)
    return f"{math.floor(1000 * probability) / 10:.1f}%" if is_rounded_across else text


def share_text(share: float) -> str:
    """Returns a share in whole percent; `0%` and `100%` are none and all."""
    if 0 < share < 0.01:
        return "less than 1%"
    return "more than 99%" if 0.99 < share < 1 else f"{share:.0%}"
