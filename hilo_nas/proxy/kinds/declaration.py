"""Declaration of a proxy: all facts about it that do not need it to run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from hilo_nas.hashes import short_hash
from hilo_nas.text.figures import figure

__all__ = ["OPTIONS", "Attempt", "Metric", "Proxy"]

_OF_TRAINING, _OF_IMAGES = "it is of a training", "it is not given the images"

OPTIONS: Mapping[str, str] = {
    **dict.fromkeys(("proxy.precision", "proxy.metric", "proxy.rungs", "proxy.reduction_factor"), _OF_TRAINING),
    **dict.fromkeys(("proxy.rung_ratio", "proxy.raise_budget"), _OF_TRAINING),
    "proxy.images": "it has no budget",
    **dict.fromkeys(("proxy.img_size", "proxy.batch_size", "data.val_source", "data.group_by"), _OF_IMAGES),
    "proxy.confirm": "no seed changes it",
}
"""Settings of a search that a proxy may read, with what is true of a proxy that does not read them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """What the values of a proxy measure and how they are written. Higher values are better."""

    name: str
    """As `ProxyScore.metric` stores it."""
    title: str = ""
    """For people, with the unit; the name if left out."""
    short: str = ""
    """Without details; the name if left out."""
    is_share: bool = False
    """Whether values lie in [0, 1] and are written in percent."""

    def __post_init__(self) -> None:
        for field in ("title", "short"):
            object.__setattr__(self, field, getattr(self, field) or self.name)

    @property
    def label(self) -> str:
        """What precedes a value that carries its own unit (`top-1 71.2 %`)."""
        return self.short if self.is_share else self.title

    @property
    def heading(self) -> str:
        """The head of a column whose values lack their unit (`top-1 %`)."""
        return f"{self.short} %" if self.is_share else self.title

    @property
    def gain(self) -> str:
        """What a difference of two values is of (`1.2 points of proxy top-1`)."""
        return f"proxy {self.short}" if self.is_share else self.short

    @property
    def scale(self) -> int:
        """Factor from values to figures in a column under `heading`."""
        return 100 if self.is_share else 1

    @property
    def decimals(self) -> int:
        """Decimals of such a figure."""
        return 1 if self.is_share else 0

    def text(self, value: float) -> str:
        """Returns a value with its unit."""
        return f"{100 * value:.1f} %" if self.is_share else figure(value)

    def difference_text(self, difference: float, half_width: float) -> str:
        """Returns a signed difference of two values with half of its 95 % interval."""
        if self.is_share:
            return f"{100 * difference:+.1f} ± {100 * half_width:.1f} points"
        return f"{difference:+.4g} ± {half_width:.2g}"

    def spread_text(self, spread: float) -> str:
        """Returns a standard deviation of values with its unit."""
        return f"{100 * spread:.2g} points" if self.is_share else f"{spread:.2g}"

    def chance(self, num_classes: int, largest_share: float | None) -> float | None:
        """Returns the value of guessing; None for a metric that knows none.

        Args:
            num_classes: Number of classes.
            largest_share: Share of the largest class among the images scored on, in [0, 1]; None where unknown.
        """
        return None

    def n_groups(self, chance: float | None) -> float | None:
        """Returns the number of equal groups of images of whose shares of hits a value is the mean.

        None for a value that is no share of hits: Wilson's interval does not apply to it.

        Args:
            chance: The value of guessing, where known.
        """
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
    """A short run of a proxy, from which the seconds of a whole one are estimated."""

    seconds: float
    progress: tuple[tuple[int, float], ...]
    """Images seen and the time in seconds at each sign of progress, ascending."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proxy:
    """All facts about a proxy that do not need it to run; importing a declaration imports no torch.

    A new kind is a module with a declaration, a module with its `hilo_nas.proxy.work.Work`, and a line in
    `hilo_nas.proxy.kinds.PROXIES`; or, in another package, a line in its entry points of the group
    `hilo_nas.proxies`. `hilo_nas.testing.ProxyChecks` tests a declaration and its work.
    """

    name: str
    """As `--proxy` takes it and plans store it."""
    version: str
    """Version of how values are computed. It changes with anything that may change one: values of different versions
    are never compared."""
    options: frozenset[str]
    """The names in `OPTIONS` that it reads; a search refuses the others."""
    metrics: tuple[Metric, ...]
    """What its values may measure, the default first; more than one only where it reads the setting `proxy.metric`."""
    description: str
    """What it does, after its name: a format string with the fields `images`, `data`, `img_size`, `batch_size`,
    `metric` and `scored_on` (which images it scores on)."""
    summary: str = ""
    """The whole line in `hilo-nas status`, with the same fields; name and description if left out."""
    work: str | None = None
    """Its work in a worker process, as `module:Class`, a `hilo_nas.proxy.work.Work`; None where none is needed."""
    prepares: bool = False
    """Whether `Work.prepare` does anything; it is then called once before the first trial."""
    gives_scores: bool = True
    """Whether it scores networks at all; a study without scores times its networks and trains none."""
    needs_data: bool = True
    """Whether a study needs `--data`."""
    has_source: bool = False
    """Whether it is a function in a file of the user: its plan stores the hash of the file, never its folder."""
    baseline_version: str | None = None
    """Version of its values for networks other than LITv2s, where it differs."""
    horizon_versions: tuple[str, ...] = ()
    """Earlier versions whose values depended on the full budget even at a rung."""
    hashed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Further facts on which its values depend when it is compared with a study's proxy; see `comparison_hash`."""

    @property
    def has_budget(self) -> bool:
        """Whether it is given a number of training images."""
        return "proxy.images" in self.options

    @property
    def has_rungs(self) -> bool:
        """Whether it can pause, be scored and continue: in whole batches, from checkpoints, under a raised budget."""
        return "proxy.rungs" in self.options

    @property
    def sees_images(self) -> bool:
        """Whether it is given the prepared images."""
        return "proxy.img_size" in self.options

    @property
    def is_quick(self) -> bool:
        """Whether it has a worker but no budget: it can be compared with a study's proxy at little cost."""
        return self.work is not None and not self.has_budget

    @property
    def unused_options(self) -> dict[str, str]:
        """The options that it does not read, with the reason."""
        return {name: why for name, why in OPTIONS.items() if name not in self.options}

    def metric(self, chosen: str) -> Metric | None:
        """Returns what its values measure under a plan; None where that is none of its metrics.

        Args:
            chosen: `ProxyPlan.metric`; ignored where the proxy does not read the setting `proxy.metric`.
        """
        if "proxy.metric" not in self.options:
            return self.metrics[0]
        return next((metric for metric in self.metrics if metric.name == chosen), None)

    def estimate_seconds(self, images: int, batch_size: int, attempt: Callable[[int], Attempt]) -> float:
        """Returns the estimated seconds of a whole run for one network.

        Args:
            images: The full budget.
            batch_size: Training images per batch.
            attempt: Runs it on the network with that budget, which takes its time.
        """
        return attempt(images).seconds

    def comparison_hash(self, plan: Mapping[str, Any], data_hash: str) -> str:
        """Returns the name under which values are comparable that are compared with those of a study's proxy.

        Args:
            plan: `ProxyPlan.to_dict()` of the study; only the choice and the size of the images count.
            data_hash: `CachedData.content_hash`.
        """
        fields = {name: plan[name] for name in ("img_size", "batch_size", "val_fraction", "val_images")}
        return short_hash({"proxy": self.name, **fields, "data": data_hash, "version": self.version, **self.hashed})
