"""Proxy plans (short trainings) and their scores, as plain values that can be stored as JSON."""

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
from hilo_nas.measurement.condition import RUNTIMES
from hilo_nas.measurement.fields import Count, Finite, NonNegative, Share, Size, read_value
from hilo_nas.measurement.intervals import Z95
from hilo_nas.proxy.kinds import DEFAULT_PROXY, Proxy, metric_named, proxy_named

__all__ = ["PROXY_PRECISIONS", "ProxyPlan", "ProxyScore", "mean_score"]

PROXY_PRECISIONS = ("fp32", "amp-bf16", "amp-fp16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyPlan:
    """Settings of a proxy, usually of a short training, without architecture, data, seed and device."""

    img_size: Size
    """Side of the square training images in pixels."""
    batch_size: Size
    images: Size
    """The full budget: number of training images seen, including repeats. 1 for a proxy without a budget."""
    rungs: tuple[Size, ...] = ()
    """Numbers of images seen after which the network is scored during training, in ascending order."""
    precision: str = "fp32"
    """`fp32`, or `amp-bf16` or `amp-fp16` for autocast with float32 weights."""
    metric: str = DEFAULT_PROXY.metrics[0].name
    """Metric of a training: `top1`; `balanced`, the mean of the recalls of the classes; or `likelihood`, the geometric
    mean of the probabilities of the true classes. Proxies with a single metric ignore it (see `score_metric`)."""
    val_fraction: Share = 0.2
    """Share of the training split that is held out for scoring, stratified. Unused if there is a validation set."""
    val_images: Size = 4000
    """Maximum number of held-out images. With 4,000, the standard error of a top-1 of 0.5 is 0.8 points."""
    hflip: bool = True
    """True if images may be flipped horizontally. Set it to False for digits and letters."""
    recipe: str = DEFAULT_PROXY.version
    """Version of the proxy's computation (`Proxy.version`). For a training, the version of its recipe."""
    group_by: str | None = None
    """Regular expression that is searched in the path of each image inside the source. Images with equal captured
    groups are held out together or not at all. Without groups in the expression, the whole match is compared."""
    proxy: str = DEFAULT_PROXY.name
    """`Proxy.name`: one of `hilo_nas.proxy.kinds.proxy_names`, or a custom function as `module:function`, without its
    folder."""
    source_hash: str | None = None
    """SHA-256 of the file that defines the custom function. None for other proxies."""
    int8_runtime: str | None = None
    """Runtime in which trained networks are quantized to INT8 before they are scored. None scores them in float."""
    int8_version: str | None = None
    """Version of the quantization (`hilo_nas.measurement.condition.INT8_VERSION`). None for scores in float, and for
    plans with `int8_runtime` of versions that did not store it."""

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be at least 1, but got {getattr(self, name)}"
            for name in ("img_size", "batch_size", "images", "val_images")
            if getattr(self, name) < 1
        ]
        if self.precision not in PROXY_PRECISIONS:
            # AdamW's steps are smaller than the resolution of half-precision weights.
            faults.append(f"proxy precision must be one of {', '.join(PROXY_PRECISIONS)}, but got {self.precision!r}")
        proxy = self.declaration
        if proxy.metric(self.metric) is None:
            names = ", ".join(metric.name for metric in proxy.metrics)
            faults.append(f"metric must be one of {names}, but got {self.metric!r}")
        steps = (0, *self.rungs, self.images)
        if self.rungs and any(low >= high for low, high in itertools.pairwise(steps)):
            given = ", ".join(map(str, self.rungs))
            faults.append(f"rungs must ascend from 1 to less than images ({self.images}), but got {given}")
        if self.rungs and not proxy.has_rungs:
            faults.append(f"rungs need a proxy that trains, but the proxy is {self.proxy}")
        if proxy.has_source != (self.source_hash is not None):
            faults.append(
                f"source_hash must be set if and only if the proxy is module:function, but got {self.source_hash!r} "
                f"for the proxy {self.proxy!r}"
            )
        if self.int8_runtime is not None and self.int8_runtime not in RUNTIMES[1:]:
            faults.append(f"int8_runtime must be {' or '.join(RUNTIMES[1:])}, but got {self.int8_runtime!r}")
        if self.int8_runtime is not None and "proxy.precision" not in proxy.options:
            faults.append(f"int8_runtime needs a proxy that trains, but the proxy is {self.proxy}")
        if self.int8_version is not None and self.int8_runtime is None:
            faults.append(f"int8_version needs an int8_runtime, but got {self.int8_version!r} without one")
        if not 0.0 < self.val_fraction < 1.0:
            faults.append(f"val_fraction must be between 0 and 1, but got {self.val_fraction}")
        if self.group_by is not None:
            try:
                re.compile(self.group_by)
            except (re.error, OverflowError, RecursionError) as error:  # re.error includes the position
                faults.append(f"group_by must be a regular expression, but got {self.group_by!r}: {error}")
        if faults:
            raise UsageError("\n".join(faults))

    @property
    def declaration(self) -> Proxy:
        """Declaration of the proxy.

        Raises:
            UsageError: This installation has no proxy of that name.
        """
        return proxy_named(self.proxy)

    @property
    def budgets(self) -> tuple[int, ...]:
        """Number of images seen at each scoring, full budget last, such as `(1024, 3072, 9088)`.

        For a proxy with rungs, the numbers are rounded up to whole batches.
        """
        if not self.declaration.has_rungs:
            return (self.images,)
        batches = sorted({-(-images // self.batch_size) for images in (*self.rungs, self.images)})
        return tuple(self.batch_size * count for count in batches)

    @property
    def score_metric(self) -> str:
        """`ProxyScore.metric` of the scores. It is `metric` if the proxy reads that option."""
        metric = self.declaration.metric(self.metric)
        assert metric is not None, "checked when the plan was made"
        return metric.name

    def with_budgets(self, images: Iterable[int]) -> ProxyPlan:
        """Returns a copy of the plan with additional budgets. The largest of all budgets becomes the full budget.

        If budgets are equal in whole batches, only one of them is kept, preferably one of this plan.
        """
        found = {-(-count // self.batch_size): count for count in (*images, *self.rungs, self.images)}
        *rungs, full = (found[batches] for batches in sorted(found))
        return dataclasses.replace(self, images=full, rungs=tuple(rungs))

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as plain data, from which `from_dict` builds an equal plan."""
        fields = {**dataclasses.asdict(self), "rungs": list(self.rungs)}
        for name in ("int8_runtime", "int8_version"):  # earlier versions do not know these fields
            if fields[name] is None:
                del fields[name]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ProxyPlan:
        """Returns a plan from the data of `to_dict`, also from that of earlier versions.

        Raises:
            RecordError: A field is wrong. The message lists all faults.
        """
        return read_value(cls, fields)

    def for_comparison(self, name: str) -> ProxyPlan:
        """Returns a copy of the plan for another proxy, one without a budget, to score networks on the same images."""
        proxy = proxy_named(name)
        return dataclasses.replace(
            self,
            proxy=name,
            recipe=proxy.version,
            images=1,
            rungs=(),
            precision="fp32",
            source_hash=None,
            int8_runtime=None,
            int8_version=None,
        )

    def baseline_hash(self, data_hash: str) -> str:
        """Returns the `hash` of this plan for baselines. Some proxies score them by another version of the recipe."""
        baseline = self.declaration.baseline_version
        if baseline is None or self.recipe != self.declaration.version:
            return self.hash(data_hash)
        return dataclasses.replace(self, recipe=baseline).hash(data_hash)

    def hash(self, data_hash: str) -> str:
        """Returns a hash of the plan and the data.

        Scores are comparable if their hashes and their numbers of images seen are equal.

        The hash excludes the rungs because scoring during training changes nothing. It also excludes the full budget
        because the learning rate schedule does not depend on it. Old recipes have such a dependence, so they include
        the budget. For a custom function, the hash includes its source file.
        """
        fields = self.to_dict()
        del fields["rungs"]
        if self.recipe not in self.declaration.horizon_versions:
            del fields["images"]
        # Plans of earlier versions lack these fields. Leave out default values so that their hashes stay the same.
        for name, default in (("group_by", None), ("proxy", DEFAULT_PROXY.name), ("source_hash", None)):
            if fields[name] == default:
                del fields[name]
        return short_hash({**fields, "data": data_hash})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyScore:
    """Score of one network by a proxy, usually its accuracy after a short training."""

    plan_hash: str
    """`ProxyPlan.hash` of the plan and the data. It does not depend on the device."""
    metric: str
    """Name of the metric of `value` (`Metric.name`), such as `top1`."""
    value: Finite
    """Value of the metric, the higher the better. For a training, it is in [0, 1]: the share of held-out images that
    are classified correctly (`top1`), its mean over the classes (`balanced`), or the geometric mean of the
    probabilities of the true classes (`likelihood`)."""
    standard_error: NonNegative
    """Standard error of `value` due to the finite number of held-out images. If `seeds` is 1, it excludes the noise
    between seeds."""
    loss: Finite | None
    """Mean cross-entropy on the held-out images. None for a proxy without a loss."""
    n_val: Count
    """Number of held-out images."""
    images_seen: Count
    """Number of training images seen. For a proxy that does not train, the full budget of its plan."""
    seconds: NonNegative
    seed: Count
    micro_batch_size: Size
    """Number of images per forward pass. If memory ran out, it is smaller than the plan's batch size. Gradients were
    then accumulated, and batch norm used the statistics of the smaller batches."""
    device: str
    versions: dict[str, str]
    scored_at: str
    """Time of the scoring: UTC, ISO 8601."""
    chance: Share | None = None
    """Score that is possible without looking at the images: the share of the largest class (`top1`), 1 / number of
    classes (`balanced`), or the geometric mean probability of the true class if every class is predicted with its share
    (`likelihood`). None if it is unknown, and for other proxies."""
    seeds: Size = 1
    """Number of trainings whose values are averaged in `value` (see `mean_score`). It is 1 in records."""
    float_value: Finite | None = None
    """Value of the same network before it was quantized to INT8. None for a network that is scored in float."""
    drop_error: NonNegative | None = None
    """Standard error of `float_value - value`, from the images on which the two differ. None like `float_value`."""
    float_layers: tuple[str, ...] = ()
    """Layers that stayed in float in the quantized network, because 8 bits change their output too much. The timing of
    a search quantizes them too, so the network is slower than its timing."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the score as plain data. Fields about INT8 are left out if they are None or empty.

        Earlier versions do not know these fields.
        """
        fields = dataclasses.asdict(self)
        for name in ("float_value", "drop_error", "float_layers"):
            if fields[name] in (None, ()):
                del fields[name]
        return fields

    @property
    def interval_error(self) -> float:
        """Standard error that is valid for few images: the half-width of Wilson's 95 % interval over 1.96, never 0.

        For `balanced`, the interval assumes classes of equal size. Other metrics use `standard_error`.
        """
        return self._wilson()[1]

    @property
    def half_width(self) -> float:
        """Half-width of the 95 % interval of the value, from `interval_error`."""
        return Z95 * self.interval_error

    @property
    def is_at_chance(self) -> bool:
        """True if the 95 % interval of the value includes `chance` or is below it. Such a training failed."""
        if self.chance is None:
            return False
        middle, error = self._wilson()
        return middle - Z95 * error <= self.chance

    def _wilson(self) -> tuple[float, float]:
        """Returns the centre of Wilson's interval and its half-width over 1.96 (Wilson 1927)."""
        groups = metric_named(self.metric).n_groups(self.chance)
        if groups is None or self.n_val < 1:
            return self.value, self.standard_error
        per_group = self.n_val / groups
        shrink = 1 + Z95**2 / per_group
        variance = self.standard_error**2 + (Z95 / (2 * per_group)) ** 2 / groups
        return (self.value + Z95**2 / (2 * per_group)) / shrink, math.sqrt(variance) / shrink

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ProxyScore:
        """Returns a score from the data of `to_dict`.

        Raises:
            RecordError: A field is wrong. The message lists all faults.
        """
        return read_value(cls, fields)


def mean_score(scores: Sequence[ProxyScore], *, seed_noise: float | None = None) -> ProxyScore:
    """Returns the mean score over several seeds at one budget.

    A single score is returned unchanged unless `seed_noise` is given.

    All seeds are scored on the same images, so more seeds do not reduce the error due to the images. The standard error
    combines two parts: the error due to the images, and the error of the mean over the seeds.

    Args:
        scores: One score per seed, at least one. They must be comparable.
        seed_noise: Standard deviation between seeds, estimated from more scores than these (see
            `hilo_nas.study.front.Front.seed_noise`). It also applies to a single seed. Defaults to the standard
            deviation of `scores`.
    """
    if len(scores) == 1 and not seed_noise:
        return scores[0]
    values = [score.value for score in scores]
    if seed_noise is None:
        seed_noise = statistics.stdev(values)
    image_error = math.sqrt(statistics.fmean(score.standard_error**2 for score in scores))
    seed_error = seed_noise / math.sqrt(len(values))
    losses = [score.loss for score in scores if score.loss is not None]
    floats = [score.float_value for score in scores if score.float_value is not None]
    drop_errors = [score.drop_error for score in scores if score.drop_error is not None]
    return dataclasses.replace(
        scores[0],
        value=statistics.fmean(values),
        standard_error=math.hypot(image_error, seed_error),
        loss=statistics.fmean(losses) if losses else None,
        seconds=sum(score.seconds for score in scores),
        seeds=len(scores),
        float_value=statistics.fmean(floats) if floats else None,
        # All seeds are scored on the same images, so more seeds do not reduce this error.
        drop_error=math.sqrt(statistics.fmean(error**2 for error in drop_errors)) if drop_errors else None,
        float_layers=tuple(dict.fromkeys(name for score in scores for name in score.float_layers)),
    )
