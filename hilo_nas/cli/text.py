"""Figures as people read them: with their spread and their unit."""

from __future__ import annotations

from hilo_nas.manifest import DataIdentity, Manifest
from hilo_nas.measurement import FORMULAS, METRICS, TRAINING

__all__ = ["describe_proxy", "duration", "figure", "score_label", "score_text", "with_spread"]

_LABELS = {
    "top1": "top-1",
    "balanced": "top-1 (balanced)",
    "likelihood": "likelihood",
    "params": "score (params M)",
    "macs": "score (GMACs)",
    "images_per_s": "score (images/s)",
}


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


def score_label(metric: str) -> str:
    """Returns what a proxy's scores are called: `top-1` of a training, else the proxy's name, with its unit if any."""
    return _LABELS.get(metric, metric)


def score_text(metric: str, score: float) -> str:
    """Returns a score with its unit: a training's in percent, another proxy's as it is."""
    return f"{100 * score:.1f} %" if metric in METRICS else figure(score)


def describe_proxy(manifest: Manifest) -> str:
    """Returns what a study's proxy does, for one who knows its name."""
    plan, data = manifest.plan, manifest.data.name
    if plan.proxy == TRAINING:
        return f"after {plan.images:,} images of {data} at {plan.img_size} px, {_scored_on(manifest.data)}"
    if plan.proxy in FORMULAS:
        return "of the network, without training"
    if plan.source_hash is not None:
        return f"a function of your own, given {plan.images:,} images"
    return f"without training, on images of {data} at {plan.img_size} px"


def _scored_on(data: DataIdentity) -> str:
    """Returns which images networks are scored on."""
    count = "" if data.n_scored is None else f"{data.n_scored:,} "
    if data.val_name is not None:
        return f"on the {count}images of --val-data ({data.val_name})"
    return f"on {count}held-out images of the training split"


def duration(seconds: float) -> str:
    """Returns `45 s`, `12 min 5 s` or `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
