"""A short training and what it found, as plain values that survive JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hilo_nas.errors import UsageError
from hilo_nas.measurement.plain import build_value

__all__ = ["PROXY_PRECISIONS", "RECIPE", "ProxyPlan", "ProxyScore", "mean_score"]

RECIPE = "adamw-2"
"""Version of the proxy training's recipe; it changes with anything that may change a score (`proxy/recipe.py`,
`proxy/batches.py`), and scores of different recipes are never compared."""
_WITH_HORIZON = ("adamw-1",)
"""Recipes whose schedule knew its end: their budget is part of what the training is."""

PROXY_PRECISIONS = ("fp32", "amp-bf16", "amp-fp16")
METRICS = ("top1", "balanced")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyPlan:
    """A short training, apart from its architecture, its data, its seed and the device that runs it."""

    img_size: int
    """Side of the square training images in pixels."""
    batch_size: int
    images: int
    """The full budget: training images seen in all, repeats included."""
    rungs: tuple[int, ...] = ()
    """Images seen at which the network is scored on the way, ascending; see `budgets`."""
    precision: str = "fp32"
    """`fp32`, or autocast over float32 weights: `amp-bf16` or `amp-fp16`."""
    metric: str = "top1"
    """`top1`, or `balanced` for the mean of the classes' recalls."""
    val_fraction: float = 0.2
    """Share of the training split held out for scoring, stratified; unused with validation data of its own."""
    val_images: int = 4000
    """Held-out images at most; at 4,000 the standard error of a top-1 of 0.5 is 0.8 points."""
    hflip: bool = True
    """Whether images may be mirrored; false for digits and letters."""
    recipe: str = RECIPE
    """Version of the training's recipe."""
    group_by: str | None = None
    """Regular expression, searched in each image's path inside the source: images for which it captures the same (or
    matches the same, where it captures nothing) are held out together or not at all."""

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be at least 1, but got {getattr(self, name)}"
            for name in ("img_size", "batch_size", "images", "val_images")
            if getattr(self, name) < 1
        ]
        if self.precision not in PROXY_PRECISIONS:
            # AdamW's steps vanish below the resolution of half-precision weights.
            faults.append(f"proxy precision must be one of {', '.join(PROXY_PRECISIONS)}, but got {self.precision!r}")
        if self.metric not in METRICS:
            faults.append(f"metric must be one of {', '.join(METRICS)}, but got {self.metric!r}")
        steps = (0, *self.rungs, self.images)
        if any(low >= high for low, high in itertools.pairwise(steps)):
            given = ", ".join(map(str, self.rungs))
            faults.append(f"rungs must ascend from 1 to less than the {self.images} images in all, but got {given}")
        if not 0.0 < self.val_fraction < 1.0:
            faults.append(f"val_fraction must lie between 0 and 1, but got {self.val_fraction}")
        if self.group_by is not None:
            try:
                re.compile(self.group_by)
            except (re.error, OverflowError, RecursionError) as error:  # the first says at which position
                faults.append(f"group_by must be a regular expression, but got {self.group_by!r}: {error}")
        if faults:
            raise UsageError("\n".join(faults))

    @property
    def budgets(self) -> tuple[int, ...]:
        """Images seen at each scoring, the full budget last: rungs and budget in whole batches, rounded up."""
        batches = sorted({-(-images // self.batch_size) for images in (*self.rungs, self.images)})
        return tuple(self.batch_size * count for count in batches)

    def with_budgets(self, images: Iterable[int]) -> ProxyPlan:
        """Returns the plan that is scored at further budgets, too; the largest of all is its full one.

        Of budgets that are the same in whole batches one stays, the plan's own if it has it.
        """
        found = {-(-count // self.batch_size): count for count in (*images, *self.rungs, self.images)}
        *rungs, full = (found[batches] for batches in sorted(found))
        return dataclasses.replace(self, images=full, rungs=tuple(rungs))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data; building a plan from it gives an equal one."""
        return {**dataclasses.asdict(self), "rungs": list(self.rungs)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ProxyPlan:
        """Builds the plan that `to_dict` described, or one stored by an earlier version."""
        return cls(**{**fields, "rungs": tuple(fields.get("rungs", ()))})

    def hash(self, data_hash: str) -> str:
        """Returns the name of this training on that data: scores of one name, after as many images, are comparable.

        A schedule without a horizon runs the same whatever its budget, and scoring on the way changes nothing; so
        neither counts, unless the recipe is an old one.
        """
        fields = self.to_dict()
        del fields["rungs"]
        if self.recipe not in _WITH_HORIZON:
            del fields["images"]
        if self.group_by is None:
            del fields["group_by"]  # which older plans do not have
        text = json.dumps({**fields, "data": data_hash}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyScore:
    """What a proxy says of one network: as a rule, its accuracy after a short training."""

    plan_hash: str
    """`ProxyPlan.hash` of the plan and the data; not of the device."""
    metric: str
    """`top1`, `balanced`, or the name of a proxy that is no training."""
    proxy_top1: float
    """Share of held-out images whose class was found, in [0, 1] (with `balanced`, the classes' mean); of another proxy
    its value, the higher the better."""
    proxy_top1_se: float
    """Standard error of it from the finite number of held-out images; where `seeds` is 1, the seed's own noise is not
    in it."""
    loss: float | None
    """Mean cross-entropy on the held-out images; None of a proxy that has none."""
    n_val: int
    """Held-out images looked at."""
    images_seen: int
    seconds: float
    seed: int
    micro_batch_size: int
    """Images per forward pass; smaller than the plan's batch where memory ran out: then gradients were accumulated, and
    batch norm took its statistics from so many images."""
    device: str
    versions: dict[str, str]
    scored_at: str
    """UTC, ISO 8601."""
    seeds: int = 1
    """Trainings that the value is the mean of; records hold single ones (see `mean_score`)."""

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ProxyScore:
        """Builds the score that `dataclasses.asdict` described."""
        return build_value(cls, fields)


def mean_score(scores: Sequence[ProxyScore]) -> ProxyScore:
    """Returns one score in the place of several seeds' at one budget; of one seed, its own.

    All seeds are scored on the same images, so more of them do not narrow what the images leave open: the standard
    error joins that of the images (of the mean) and that of the seeds' mean, from the spread between them.

    Args:
        scores: One for each seed, comparable with each other; at least one.
    """
    if len(scores) == 1:
        return scores[0]
    top1s = [score.proxy_top1 for score in scores]
    of_images = math.sqrt(statistics.fmean(score.proxy_top1_se**2 for score in scores))
    of_seeds = statistics.stdev(top1s) / math.sqrt(len(top1s))
    losses = [score.loss for score in scores if score.loss is not None]
    return dataclasses.replace(
        scores[0],
        proxy_top1=statistics.fmean(top1s),
        proxy_top1_se=math.hypot(of_images, of_seeds),
        loss=statistics.fmean(losses) if losses else None,
        seconds=sum(score.seconds for score in scores),
        seeds=len(scores),
    )
