"""Figures as people read them: with their spread and their unit."""

from __future__ import annotations

__all__ = ["duration", "figure", "with_spread"]


def figure(value: float | None, digits: int = 4) -> str:
    """Returns a number with so many significant digits and no exponent; a dash for None."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if "e" in text or abs(value) >= 10**digits else text


def with_spread(value: float | None, spread: float | None, *, scale: float = 1.0, decimals: int = 0) -> str:
    """Returns `value ± spread`, both scaled and with so many decimals, or more where the value is small."""
    if value is None:
        return "-"
    decimals = max(decimals, 3 - len(str(int(abs(value * scale)))) + (abs(value * scale) < 1))
    text = f"{value * scale:,.{decimals}f}"
    return text if spread is None else f"{text} ± {spread * scale:,.{decimals}f}"


def duration(seconds: float) -> str:
    """Returns `45 s`, `12 min 5 s` or `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
