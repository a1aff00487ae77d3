"""Numbers as text: rounded, and with their uncertainty."""

from __future__ import annotations

import math

__all__ = ["figure", "is_wide", "probability_text", "share_text", "with_spread"]

_THRESHOLDS = (0.05, 0.95)
"""Probabilities at which decisions change. Below the first, a network violates a limit. From the second on, it meets
the limit or beats another network (`hilo_nas.space.KEPT_HARDLY`, `KEPT_SURELY`, `hilo_nas.study.front.SURE`)."""
_SMALL_SHARE = 0.5
"""Maximum half-width, relative to its value, that is printed with ±."""


def figure(value: float | None, digits: int = 4) -> str:
    """Returns a number with `digits` significant digits and no exponent, or a dash for None."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if "e" in text or abs(value) >= 10**digits else text


def is_wide(value: float, half_width: float) -> bool:
    """Returns True if an interval is so wide that it is printed as a factor."""
    return 0 < value < half_width / _SMALL_SHARE


def with_spread(value: float | None, half_width: float | None, *, scale: float = 1.0, decimals: int = 0) -> str:
    """Returns `value ± half_width`. Small values get more decimals.

    If the half-width is more than half of a positive value (`is_wide`), returns `value ×/÷ factor` instead. Such an
    interval is symmetric on a logarithmic scale, and stays above 0.

    Args:
        value: The value. None gives a dash.
        half_width: Half-width of the 95 % interval. None leaves it out.
        scale: Factor for both numbers.
        decimals: Minimum number of decimals.
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
    """Returns a probability as text in whole percent, for example `37%`.

    Above 0.99, the text is `more than 99%`, and below 0.01 it is `less than 1%`, because probabilities are estimates.
    If rounding would reach a decision threshold (5 % or 95 %) from below, the text has one decimal, rounded down:
    0.9496 gives `94.9%`.

    Args:
        probability: Number from 0 to 1.
        is_short: True for the short form in tables, such as `>99%`.
    """
    if probability > 0.99:
        return ">99%" if is_short else "more than 99%"
    if probability < 0.01:
        return "<1%" if is_short else "less than 1%"
    text = f"{probability:.0%}"
    is_rounded_across = any(probability < threshold <= int(text[:-1]) / 100 for threshold in _THRESHOLDS)
    return f"{math.floor(1000 * probability) / 10:.1f}%" if is_rounded_across else text


def share_text(share: float) -> str:
    """Returns a share in whole percent. `0%` and `100%` are exact, others become `less than 1%` or `more than 99%`."""
    if 0 < share < 0.01:
        return "less than 1%"
    return "more than 99%" if 0.99 < share < 1 else f"{share:.0%}"
