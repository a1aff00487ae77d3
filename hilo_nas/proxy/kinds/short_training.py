"""Declaration of the proxy `training`: a short training from fresh weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hilo_nas.proxy.kinds.declaration import OPTIONS, Attempt, Metric, Proxy

__all__ = ["BASELINE_RECIPE", "RECIPE", "TRAINING"]

RECIPE = "adamw-2"
"""Version of the training recipe (`proxy/recipe.py`, `proxy/batches.py`)."""
BASELINE_RECIPE = "adamw-2-batchnorm"
"""Version of the recipe for networks other than LITv2. Before scoring, their batch norm statistics are computed from
training images. Change it together with `RECIPE`."""
_PROBE_BATCHES = (6, 60)
"""Number of batches of the short training for the estimate, and of a longer one for networks that are too fast."""


class _UniformGuessing(Metric):
    """A metric with a value of guessing of 1 / number of classes."""

    def chance(self, num_classes: int, largest_share: float | None) -> float | None:
        """Returns 1 / number of classes."""
        return 1 / num_classes


class _Top1(_UniformGuessing):
    def chance(self, num_classes: int, largest_share: float | None) -> float | None:
        """Returns the share of the largest class, or 1 / number of classes if the share is unknown."""
        return largest_share or super().chance(num_classes, None)

    def n_groups(self, chance: float | None) -> float | None:
        """Returns 1.0, because all images form one group."""
        return 1.0


class _Balanced(_UniformGuessing):
    def n_groups(self, chance: float | None) -> float | None:
        """Returns the number of classes: balanced accuracy averages over groups of images, one per class."""
        return 1 / chance if chance else 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Training(Proxy):
    def estimate_seconds(self, images: int, batch_size: int, attempt: Callable[[int], Attempt]) -> float:
        """Returns a fixed time plus a time proportional to the number of images."""
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
        _UniformGuessing(name="likelihood", is_share=True),
    ),
    description="after {images:,} images of {data} at {img_size} px, {scored_on}",
    summary="{images:,} images of {data} at {img_size} px, batch {batch_size}, {metric}",
    work="hilo_nas.proxy.train:TrainingWork",
)
