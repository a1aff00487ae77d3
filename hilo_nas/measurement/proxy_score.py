"""A short training and what it found, as plain values that survive JSON."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hilo_nas.errors import UsageError
from hilo_nas.hashes import short_hash
from hilo_nas.measurement.fields import Count, Finite, NonNegative, Share, Size, read_value
from hilo_nas.measurement.intervals import Z95
from hilo_nas.proxy.kinds import DEFAULT_PROXY, Proxy, metric_named, proxy_named

__all__ = ["PROXY_PRECISIONS", "ProxyPlan", "ProxyScore", "mean_score"]

PROXY_PRECISIONS = ("fp32", "amp-bf16", "amp-fp16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyPlan:
    """A short training, or what stands in for it, apart from its architecture, its data, its seed and its device."""

    img_size: Size
    """Side of the square training images in pixels."""
    batch_size: Size
    images: Size
    """The full budget: training images seen in all, repeats included; 1 for a proxy that has no budget."""
    rungs: tuple[Size, ...] = ()
    """Images seen at which the network is scored on the way, ascending; see `budgets`."""
    precision: str = "fp32"
    """`fp32`, or autocast over float32 weights: `amp-bf16` or `amp-fp16`."""
    metric: str = DEFAULT_PROXY.metrics[0].name
    """Of a training: `top1`; `balanced`, the mean of the classes' recalls; or `likelihood`, the probability given to
    the true class (geometric mean). See `score_metric`."""
    val_fraction: Share = 0.2
    """Share of the training split held out for scoring, stratified; unused with validation data of its own."""
    val_images: Size = 4000
    """Held-out images at most; at 4,000 the standard error of a top-1 of 0.5 is 0.8 points."""
    hflip: bool = True
    """Whether images may be mirrored; false for digits and letters."""
    recipe: str = DEFAULT_PROXY.version
    """`Proxy.version`: of a training, its recipe."""
    group_by: str | None = None
    """Regular expression, searched in each image's path inside the source: images for which it captures the same (or
    matches the same, where it captures nothing) are held out together or not at all."""
    proxy: str = DEFAULT_PROXY.name
    """`Proxy.name`: one of `hilo_nas.proxy.kinds.proxy_names`, or a function of the user's, `module:function`, without
    its folder."""
    source_hash: str | None = None
    """SHA-256 of the file that defines that function; None of other proxies."""

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be at least 1, but got {getattr(self, name)}"
            for name in ("img_size", "batch_size", "images", "val_images")
            if getattr(self, name) < 1
        ]
        if self.precision not in PROXY_PRECISIONS:
            # AdamW's steps vanish below the resolution of half-precision weights.
            faults.append(f"proxy precision must be one of {', '.join(PROXY_PRECISIONS)}, but got {self.precision!r}")
        proxy = self.declaration
        if proxy.metric(self.metric) is None:
            names = ", ".join(metric.name for metric in proxy.metrics)
            faults.append(f"metric must be one of {names}, but got {self.metric!r}")
        steps = (0, *self.rungs, self.images)
        if self.rungs and any(low >= high for low, high in itertools.pairwise(steps)):
            given = ", ".join(map(str, self.rungs))
            faults.append(f"rungs must ascend from 1 to less than the {self.images} images in all, but got {given}")
        if self.rungs and not proxy.has_rungs:
            faults.append(f"rungs are of a training, but the proxy is {self.proxy}")
        if proxy.has_source != (self.source_hash is not None):
            faults.append(f"a proxy has a source_hash where it is module:function, but got {self.proxy!r}")
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
    def declaration(self) -> Proxy:
        """The proxy's declaration.

        Raises:
            UsageError: This installation knows no proxy of that name.
        """
        return proxy_named(self.proxy)

    @property
    def budgets(self) -> tuple[int, ...]:
        """Images seen at each scoring, the full budget last: of a proxy with rungs in whole batches, rounded up."""
        if not self.declaration.has_rungs:
            return (self.images,)
        batches = sorted({-(-images // self.batch_size) for images in (*self.rungs, self.images)})
        return tuple(self.batch_size * count for count in batches)

    @property
    def score_metric(self) -> str:
        """`ProxyScore.metric` of its scores: `metric` where the proxy reads that option."""
        metric = self.declaration.metric(self.metric)
        assert metric is not None, "checked when the plan was made"
        return metric.name

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
        """Returns the plan that `to_dict` described, or one stored by an earlier version.

        Raises:
            RecordError: A field is wrong; names all.
        """
        return read_value(cls, fields)

    def for_comparison(self, name: str) -> ProxyPlan:
        """Returns the plan by which another proxy without a budget scores the same networks on the same images."""
        proxy = proxy_named(name)
        return dataclasses.replace(
            self, proxy=name, recipe=proxy.version, images=1, rungs=(), precision="fp32", source_hash=None
        )

    def baseline_hash(self, data_hash: str) -> str:
        """Returns `hash` for a network that is no LITv2; see `Proxy.baseline_version`."""
        baseline = self.declaration.baseline_version
        if baseline is None or self.recipe != self.declaration.version:
            return self.hash(data_hash)
        return dataclasses.replace(self, recipe=baseline).hash(data_hash)

    def hash(self, data_hash: str) -> str:
        """Returns the name of this training on that data: scores of one name, after as many images, are comparable.

        A schedule without a horizon runs the same whatever its budget, and scoring on the way changes nothing; so
        neither counts, unless the recipe is an old one. Of a function of the user's own its source counts: another
        source is another score.
        """
        fields = self.to_dict()
        del fields["rungs"]
        if self.recipe not in self.declaration.horizon_versions:
            del fields["images"]
        # What older plans do not have counts only where it says something.
        for name, unsaid in (("group_by", None), ("proxy", DEFAULT_PROXY.name), ("source_hash", None)):
            if fields[name] == unsaid:
                del fields[name]
        return short_hash({**fields, "data": data_hash})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyScore:
    """What a proxy says of one network: as a rule, its accuracy after a short training."""

    plan_hash: str
    """`ProxyPlan.hash` of the plan and the data; not of the device."""
    metric: str
    """`Metric.name`: what the value measures."""
    value: Finite
    """Share of held-out images whose class was found, in [0, 1] (with `balanced`, the classes' mean; with `likelihood`,
    the probability given to it); of another proxy its value, the higher the better."""
    standard_error: NonNegative
    """Standard error of it from the finite number of held-out images; where `seeds` is 1, the seed's own noise is not
    in it."""
    loss: Finite | None
    """Mean cross-entropy on the held-out images; None of a proxy that has none."""
    n_val: Count
    """Held-out images looked at."""
    images_seen: Count
    """Of a proxy that is no training, its plan's whole budget, whatever it did with that."""
    seconds: NonNegative
    seed: Count
    micro_batch_size: Size
    """Images per forward pass; smaller than the plan's batch where memory ran out: then gradients were accumulated, and
    batch norm took its statistics from so many images."""
    device: str
    versions: dict[str, str]
    scored_at: str
    """UTC, ISO 8601."""
    chance: Share | None = None
    """What guessing would score on these images: of `top1`, the share of the largest class; of `balanced`, one over the
    classes; of `likelihood`, the probability by the classes' shares. None where it is unknown, or of another proxy."""
    seeds: Size = 1
    """Trainings that the value is the mean of; records hold single ones (see `mean_score`)."""

    @property
    def interval_error(self) -> float:
        """Standard error that holds for few images: half of Wilson's 95 % interval over 1.96, never 0.

        For `balanced` the interval is that of each class, all of one size. Other metrics keep `standard_error`.
        """
        return self._wilson()[1]

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval of the value, from its `interval_error`."""
        return Z95 * self.interval_error

    @property
    def is_at_chance(self) -> bool:
        """Whether the 95 % interval of the value includes what guessing scores, or lies below: it did not train."""
        if self.chance is None:
            return False
        middle, error = self._wilson()
        return middle - Z95 * error <= self.chance

    def _wilson(self) -> tuple[float, float]:
        """The middle of the interval and its half-width over 1.96 (Wilson 1927)."""
        groups = metric_named(self.metric).n_groups(self.chance)
        if groups is None or self.n_val < 1:
            return self.value, self.standard_error
        per_group = self.n_val / groups
        shrink = 1 + Z95**2 / per_group
        variance = self.standard_error**2 + (Z95 / (2 * per_group)) ** 2 / groups
        return (self.value + Z95**2 / (2 * per_group)) / shrink, math.sqrt(variance) / shrink

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ProxyScore:
        """Returns the score that `to_plain` described.

        Raises:
            RecordError: A field is wrong; names all.
        """
        return read_value(cls, fields)


def mean_score(scores: Sequence[ProxyScore], *, seed_noise: float | None = None) -> ProxyScore:
    """Returns one score in the place of several seeds' at one budget; of one seed, its own.

    All seeds are scored on the same images, so more of them do not narrow what the images leave open: the standard
    error joins that of the images (of the mean) and that of the seeds' mean, from the spread between them.

    Args:
        scores: One for each seed, comparable with each other; at least one.
        seed_noise: Standard deviation from one seed to another, where more is known of it than these scores tell (see
            `hilo_nas.study.front.Front.seed_noise`); it then counts for one seed, too.
    """
    if len(scores) == 1 and not seed_noise:
        return scores[0]
    top1s = [score.value for score in scores]
    if seed_noise is None:
        seed_noise = statistics.stdev(top1s)
    of_images = math.sqrt(statistics.fmean(score.standard_error**2 for score in scores))
    of_seeds = seed_noise / math.sqrt(len(top1s))
    losses = [score.loss for score in scores if score.loss is not None]
    return dataclasses.replace(
        scores[0],
        value=statistics.fmean(top1s),
        standard_error=math.hypot(of_images, of_seeds),
        loss=statistics.fmean(losses) if losses else None,
        seconds=sum(score.seconds for score in scores),
        seeds=len(scores),
    )
