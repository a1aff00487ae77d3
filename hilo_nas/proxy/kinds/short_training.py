"""The proxy that is a short training from fresh weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hilo_nas.proxy.kinds.declaration import OPTIONS, Attempt, Metric, Proxy

__all__ = ["BASELINE_RECIPE", "RECIPE", "TRAINING"]

RECIPE = "adamw-2"
"""Version of the training's recipe (`proxy/recipe.py`, `proxy/batches.py`)."""
BASELINE_RECIPE = "adamw-2-batchnorm"
"""The recipe's version for networks other than LITv2s: their batch norms' statistics are taken from training images
before a score. It changes with `RECIPE`, too."""
_PROBE_BATCHES = (6, 60)
"""Batches of the short training that is extrapolated from, and of the longer one for networks too quick for that."""


class _Even(Metric):
    """A metric by which guessing one class and guessing evenly score the same."""

    def chance(self, num_classes: int, largest_share: float | None) -> float | None:
        """See `Metric.chance`."""
        return 1 / num_classes


class _Top1(_Even):
    def chance(self, num_classes: int, largest_share: float | None) -> float | None:
        """See `Metric.chance`."""
        return largest_share or super().chance(num_classes, None)

    def n_groups(self, chance: float | None) -> float | None:
        """See `Metric.n_groups`."""
        return 1.0


class _Balanced(_Even):
    def n_groups(self, chance: float | None) -> float | None:
        """See `Metric.n_groups`: the classes, each of one size."""
        return 1 / chance if chance else 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Training(Proxy):
    def estimate_seconds(self, images: int, batch_size: int, attempt: Callable[[int], Attempt]) -> float:
        """See `Proxy.estimate_seconds`: a fixed part, and one in proportion to the images."""
        for batches in _PROBE_BATCHES:
            tried = min(batches * batch_size, images)
            found = attempt(tried)
            if tried == images:
                break
            if len(found.progress) > 2:
                (first, start), (last, end) = found.progress[0], found.progress[-1]
                per_image = (end - start) / (last - first)
                return max(found.seconds - per_image * tried, 0.0) + per_image * images
        return found.seconds / tried * images


TRAINING = _Training(
    name="training",
    version=RECIPE,
    baseline_version=BASELINE_RECIPE,
    horizon_versions=("adamw-1",),
    options=frozenset(OPTIONS),
    metrics=(
        _Top1(name="top1", title="top-1", short="top-1", is_share=True),
        _Balanced(name="balanced", title="top-1 (balanced)", short="top-1", is_share=True),
        _Even(name="likelihood", is_share=True),
    ),
    description="after {images:,} images of {data} at {img_size} px, {scored_on}",
    summary="{images:,} images of {data} at {img_size} px, batch {batch_size}, {metric}",
    work="hilo_nas.proxy.train:TrainingWork",
)
