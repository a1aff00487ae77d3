"""Declaration of a proxy: all facts that are available without running it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from hilo_nas.hashes import short_hash
from hilo_nas.text.figures import figure

__all__ = ["OPTIONS", "Attempt", "Metric", "Proxy"]

_TRAINING_ONLY, _NO_IMAGES = "only the built-in training uses it", "the proxy does not use the prepared images"

OPTIONS: Mapping[str, str] = {
    **dict.fromkeys(("proxy.precision", "proxy.metric", "proxy.rungs", "proxy.reduction_factor"), _TRAINING_ONLY),
    **dict.fromkeys(("proxy.rung_ratio", "proxy.raise_budget"), _TRAINING_ONLY),
    "proxy.images": "the proxy has no image budget",
    **dict.fromkeys(("proxy.img_size", "proxy.batch_size", "data.val_source", "data.group_by"), _NO_IMAGES),
    "proxy.confirm": "the score does not depend on a seed",
}
"""Settings of a search that a proxy can read. Maps each one to the reason why another proxy does not read it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """Quantity and text format of a proxy's values. Higher values are better."""

    name: str
    """Name as stored in `ProxyScore.metric`."""
    title: str = ""
    """Name for people, with the unit. Defaults to `name`."""
    short: str = ""
    """Name without details. Defaults to `name`."""
    is_share: bool = False
    """True if values are in [0, 1] and shown in percent."""

    def __post_init__(self) -> None:
        for field in ("title", "short"):
            object.__setattr__(self, field, getattr(self, field) or self.name)

    @property
    def label(self) -> str:
        """Text before a value with a unit, as in `top-1 71.2 %`."""
        return self.short if self.is_share else self.title

    @property
    def heading(self) -> str:
        """Header of a column with values without a unit, as in `top-1 %`."""
        return f"{self.short} %" if self.is_share else self.title

    @property
    def gain(self) -> str:
        """Name of the quantity in a text about a difference, as in `1.2 points of proxy top-1`."""
        return f"proxy {self.short}" if self.is_share else self.short

    @property
    def scale(self) -> int:
        """Factor from values to numbers in a column with `heading`."""
        return 100 if self.is_share else 1

    @property
    def decimals(self) -> int:
        """Number of decimals in a column with `heading`."""
        return 1 if self.is_share else 0

    def text(self, value: float) -> str:
        """Returns a value with its unit."""
        return f"{100 * value:.1f} %" if self.is_share else figure(value)

    def difference_text(self, difference: float, half_width: float) -> str:
        """Returns a signed difference of two values with the half-width of its 95 % interval."""
        if self.is_share:
            return f"{100 * difference:+.1f} ± {100 * half_width:.1f} points"
        return f"{difference:+.4g} ± {half_width:.2g}"

    def spread_text(self, spread: float) -> str:
        """Returns a standard deviation of values with its unit."""
        return f"{100 * spread:.2g} points" if self.is_share else f"{spread:.2g}"

    def chance(self, num_classes: int, largest_share: float | None) -> float | None:
        """Returns the value of guessing, or None if the metric does not define it.

        Args:
            num_classes: Number of classes.
            largest_share: Share of the largest class among the scored images, in [0, 1]. None if unknown.
        """
        return None

    def n_groups(self, chance: float | None) -> float | None:
        """Returns the number of equally sized groups of images if a value is the mean of the groups' hit rates.

        Returns None for other values. Wilson's interval does not apply to them.

        Args:
            chance: Value of guessing, or None if unknown.
        """
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
    """Short run of a proxy, used to estimate the seconds of a full run."""

    seconds: float
    progress: tuple[tuple[int, float], ...]
    """Number of images seen and time in seconds of each progress event, in ascending order."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proxy:
    """Declaration of a proxy. Importing it does not import torch.

    A new kind of proxy in this package needs a module with a declaration, a module with a subclass of
    `hilo_nas.proxy.work.Work`, and an entry in `hilo_nas.proxy.kinds.PROXIES`. Another package uses an entry point in
    the group `hilo_nas.proxies` instead. `hilo_nas.testing.ProxyChecks` tests the declaration and the work.
    """

    name: str
    """Name for `--proxy` and in plans."""
    version: str
    """Version of the computation. It must change with every change that can affect a value, because values of different
    versions are never compared."""
    options: frozenset[str]
    """Names in `OPTIONS` that the proxy reads. A search rejects the others."""
    metrics: tuple[Metric, ...]
    """Available metrics, the default first. More than one metric requires the option `proxy.metric`."""
    description: str
    """Description that follows the name. A format string with the fields `images`, `data`, `img_size`, `batch_size`,
    `metric` and `scored_on` (the images used for scoring)."""
    summary: str = ""
    """Line of the proxy in `hilo-nas status`, a format string with the fields of `description` and `name`. If empty,
    the line is `NAME: DESCRIPTION`."""
    work: str | None = None
    """Subclass of `hilo_nas.proxy.work.Work`, as `module:Class`. None if the proxy does not need a worker."""
    prepares: bool = False
    """True if `Work.prepare` must be called once before the first trial."""
    gives_scores: bool = True
    """True if the proxy scores networks. Without scores, a study only times its networks."""
    needs_data: bool = True
    """True if a study requires `--data`."""
    has_source: bool = False
    """True if the proxy is a user function. The plan stores the hash of its file, but not the folder."""
    baseline_version: str | None = None
    """Version of the computation for networks other than LITv2. None if it is the same."""
    horizon_versions: tuple[str, ...] = ()
    """Earlier versions in which a score at a rung depended on the full budget."""
    hashed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Additional facts that affect the values. They are part of `comparison_hash`."""

    @property
    def has_budget(self) -> bool:
        """True if the proxy has a budget of training images."""
        return "proxy.images" in self.options

    @property
    def has_rungs(self) -> bool:
        """True if the proxy can score at rungs and resume from a checkpoint, also with a raised budget."""
        return "proxy.rungs" in self.options

    @property
    def sees_images(self) -> bool:
        """True if the proxy uses the prepared images."""
        return "proxy.img_size" in self.options

    @property
    def is_quick(self) -> bool:
        """True if the proxy has a worker but no budget, so its cost per network is low."""
        return self.work is not None and not self.has_budget

    @property
    def unused_options(self) -> dict[str, str]:
        """Options that the proxy does not read, with the reason."""
        return {name: why for name, why in OPTIONS.items() if name not in self.options}

    def metric(self, chosen: str) -> Metric | None:
        """Returns the metric of a plan, or None if the proxy does not have it.

        Args:
            chosen: Name in `ProxyPlan.metric`. It is ignored if the proxy does not read the option `proxy.metric`.
        """
        if "proxy.metric" not in self.options:
            return self.metrics[0]
        return next((metric for metric in self.metrics if metric.name == chosen), None)

    def estimate_seconds(self, images: int, batch_size: int, attempt: Callable[[int], Attempt]) -> float:
        """Returns the estimated seconds of a full run for one network.

        Args:
            images: Number of training images of the full budget.
            batch_size: Number of training images per batch.
            attempt: Function that runs the proxy on the network with a given number of images.
        """
        return attempt(images).seconds

    def comparison_hash(self, plan: Mapping[str, Any], data_hash: str) -> str:
        """Returns the hash of the settings for a comparison with a study's proxy. Equal hashes mean comparable values.

        Args:
            plan: `ProxyPlan.to_dict()` of the study. Only the image size, batch size and validation split count.
            data_hash: `CachedData.content_hash`.
        """
        fields = {name: plan[name] for name in ("img_size", "batch_size", "val_fraction", "val_images")}
        return short_hash({"proxy": self.name, **fields, "data": data_hash, "version": self.version, **self.hashed})
