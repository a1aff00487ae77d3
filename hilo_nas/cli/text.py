"""Scores, proxies and durations as people read them."""

from __future__ import annotations

from hilo_nas.figures import figure
from hilo_nas.manifest import DataIdentity, Manifest
from hilo_nas.measurement import FORMULAS, METRICS, TRAINING

__all__ = ["describe_proxy", "duration", "score_label", "score_text"]

_LABELS = {
    "top1": "top-1",
    "balanced": "top-1 (balanced)",
    "likelihood": "likelihood",
    "params": "score (params M)",
    "macs": "score (GMACs)",
    "images_per_s": "score (images/s)",
}


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
