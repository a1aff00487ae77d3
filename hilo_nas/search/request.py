"""What a user asked of a search; None means that the option was left out."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from hilo_nas.aims import CONDITION_OPTIONS, LIMIT_OPTIONS, Aims, build_aims
from hilo_nas.data.reading import ReadOptions
from hilo_nas.errors import UsageError
from hilo_nas.measurement import Condition, ProxyPlan
from hilo_nas.plugins import hash_source
from hilo_nas.proxy.kinds import DEFAULT_PROXY, Proxy, list_proxies, proxy_named
from hilo_nas.search.rungs import rungs_of
from hilo_nas.space import SearchSpace

__all__ = [
    "DEFAULT_SAMPLER",
    "DEFAULT_SPACE",
    "SAMPLERS",
    "SearchRequest",
    "aims_of",
    "check_proxy_options",
    "condition_options",
    "eta_of",
    "plan_of",
    "reading_of",
    "reading_options",
]

SAMPLERS = ("gp", "tpe", "nsga2", "random")
DEFAULT_SAMPLER = "gp"
DEFAULT_RUNGS = 3
DEFAULT_ETA = 2.0
"""At each rung one of so many goes on. With 2, gp found as much as without rungs at equal training cost, with 3 less
(`hilo-nas bench samplers studies/cifar10-tabular`, with `--eta 3` for the latter)."""
DEFAULT_RATIO = 3.0
"""Of a rung's images to those of the rung before, where no eta is given; else eta is the ratio, too."""
DEFAULT_SPACE = "litv2_digits"
_LARGEST_SEED = 2**32 - 1
"""Numpy's generators take no larger one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """A search as asked for.

    For a new study, what is left out comes from the space's defaults; for a stored one, from its manifest.
    """

    space: str | None = None
    """A shipped space's name or a YAML file."""
    study: str | None = None
    """A study's name or folder."""
    studies_dir: Path | None = None
    trials: int | None = None
    """Networks to measure on top of those that the study has."""
    until_trials: int | None = None
    """Networks to measure in all."""
    timeout_s: float | None = None
    """Seconds after which no further trial begins."""
    sampler: str | None = None
    seed: int | None = None
    device: str | None = None
    batch_size: int | None = None
    img_size: int | None = None
    precision: str | None = None
    channels_last: bool | None = None
    compile: bool | None = None
    threads: int | None = None
    runtime: str | None = None
    env: str | None = None
    cuda_graph: bool | None = None
    fused: bool | None = None
    also: tuple[str, ...] = ()
    """Further conditions, each `FIELD=VALUE,...` over the objective's fields and limits; see `hilo_nas.aims`."""
    min_images_per_s: float | None = None
    max_latency_ms: float | None = None
    """Of the raw 95th percentile."""
    max_memory_mib: float | None = None
    speeds: str | None = None
    """A study whose timings are copied and stand in for timing here."""
    reuse: str | None = None
    """A study whose scores are copied, and whose timings where they are comparable."""
    networks: tuple[str, ...] = ()
    """Networks to be timed by a study without a proxy, as `hilo_nas.named_networks` reads them."""
    timing_s: float | None = None
    """Seconds that a network is timed for at most; a shorter time gives wider intervals, never another value."""
    peers: tuple[str, ...] = ()
    """Networks of others to compare with, as `NAME` or `timm:NAME`, kept as the latter; a stored study takes them on
    top of its own."""
    remeasure: bool = True
    """Whether the front is timed again, side by side, at the end."""
    data: str | None = None
    val_data: str | None = None
    group_by: str | None = None
    """Regular expression; see `ProxyPlan.group_by`."""
    class_from: str | None = None
    """How the images are read; see `ReadOptions`, like the three that follow."""
    background: str | None = None
    value_range: tuple[float, float] | None = None
    skip_broken: bool | None = None
    proxy: str | None = None
    """What scores networks: one of `hilo_nas.proxy.proxy_names`, or a function of the user's own."""
    cache_dir: Path | None = None
    proxy_img_size: int | None = None
    proxy_batch_size: int | None = None
    proxy_images: int | None = None
    proxy_precision: str | None = None
    rungs: int | None = None
    """How often a training is scored, the full budget included."""
    eta: float | None = None
    """One of how many networks goes on at a rung; 0 for all of them."""
    raise_budget: int | None = None
    """A larger full budget for a stored study, in training images."""
    confirm: int | None = None
    """Further seeds that confirm the front's top-1 at the end."""
    checkpoint_mib: float = 2048.0
    """What trainings that may be gone on with may take on disk; 0 keeps none."""
    metric: str | None = None
    idle_timeout_s: float = 600.0
    """Seconds of silence after which a worker counts as hung."""

    def __post_init__(self) -> None:
        sizes = ("batch_size", "img_size", "threads", "proxy_img_size", "proxy_batch_size", "proxy_images")
        faults = [
            f"{name} must be at least 1, but got {value}"
            for name in ("trials", "until_trials", *sizes)
            if (value := getattr(self, name)) is not None and value < 1
        ]
        for name, least in (("rungs", 1), ("confirm", 0), ("raise_budget", 1)):
            if (count := getattr(self, name)) is not None and count < least:
                faults.append(f"{name} must be at least {least}, but got {count}")
        if self.eta is not None and not (self.eta == 0 or 1 < self.eta < math.inf):
            faults.append(f"eta must be a number above 1, or 0 to train all networks fully, but got {self.eta:g}")
        if not self.checkpoint_mib >= 0:
            faults.append(f"checkpoint_mib must be at least 0, but got {self.checkpoint_mib:g}")
        for name in ("min_images_per_s", "max_latency_ms", "max_memory_mib", "timing_s"):
            if (limit := getattr(self, name)) is not None and not 0 < limit < math.inf:
                option = name.replace("timing_s", "seconds")
                faults.append(f"{option} must be a number above 0, but got {limit:g}")
        named = tuple(peer if ":" in peer or not peer else f"timm:{peer}" for peer in self.peers)
        object.__setattr__(self, "peers", named)
        faults += [
            f"a peer must be a name that timm knows, as NAME or timm:NAME, but got {peer!r}"
            for peer in self.peers
            if not peer.startswith("timm:") or peer == "timm:"
        ]
        for name in ("timeout_s", "idle_timeout_s"):
            if (seconds := getattr(self, name)) is not None and not seconds > 0:
                faults.append(f"{name.removesuffix('_s')} must be more than 0 seconds, but got {seconds:g}")
        if self.trials is not None and self.until_trials is not None:
            faults.append("give either trials (more) or until_trials (a total), not both")
        if self.group_by is not None and self.val_data is not None:
            faults.append("give either group_by or val_data, not both: with validation data nothing is split")
        if self.sampler is not None and self.sampler not in SAMPLERS:
            faults.append(f"sampler must be one of {', '.join(SAMPLERS)}, but got {self.sampler!r}")
        if self.seed is not None and not 0 <= self.seed <= _LARGEST_SEED:
            faults.append(f"seed must lie between 0 and {_LARGEST_SEED}, but got {self.seed}")
        # A stored study compares options with its own: a value that no study can have is a fault, no difference.
        for check in (reading_of, _check_condition, _check_proxy, _check_metric, _check_plan):
            try:
                check(self)
            except UsageError as error:
                faults.append(str(error))
        if faults:
            raise UsageError("\n".join(faults))


def _check_condition(request: SearchRequest) -> None:
    names = ("precision", "runtime", "env")
    Condition(**{name: value for name in names if (value := getattr(request, name)) is not None})


def _check_proxy(request: SearchRequest) -> None:
    if request.proxy is not None:
        proxy_named(request.proxy)


def _check_metric(request: SearchRequest) -> None:
    known = [metric.name for proxy in list_proxies() if "metric" in proxy.options for metric in proxy.metrics]
    if request.metric is not None and request.metric not in known:
        raise UsageError(f"metric must be one of {', '.join(known)}, but got {request.metric!r}")


def _check_plan(request: SearchRequest) -> None:
    given: dict[str, Any] = {"precision": request.proxy_precision, "group_by": request.group_by}
    ProxyPlan(img_size=1, batch_size=1, images=1, **{name: value for name, value in given.items() if value is not None})


def check_proxy_options(request: SearchRequest, proxy: Proxy) -> None:
    """Raises UsageError where a request has options that mean nothing to a proxy: no wish is skipped in silence."""
    faults = [
        f"{name} means nothing to the proxy {proxy.name}: {why}. Leave it out."
        for name, why in proxy.unused_options.items()
        if getattr(request, name)  # 0 asks for nothing
    ]
    if faults:
        raise UsageError("\n".join(faults))


def condition_options(request: SearchRequest) -> dict[str, Any]:
    """Returns the fields of the objective condition that a request gives."""
    return {name: value for name in CONDITION_OPTIONS if (value := getattr(request, name)) is not None}


def reading_options(request: SearchRequest) -> dict[str, Any]:
    """Returns the options of reading images that a request gives."""
    names = [field.name for field in dataclasses.fields(ReadOptions)]
    return {name: value for name in names if (value := getattr(request, name)) is not None}


def reading_of(request: SearchRequest) -> ReadOptions:
    """Returns how a new study reads its images.

    Raises:
        UsageError: An option has no such value.
    """
    return ReadOptions.from_dict(reading_options(request))


def aims_of(request: SearchRequest, objective: Condition) -> Aims:
    """Returns the objective condition with the others and the limits that a request gives.

    Raises:
        UsageError: A further condition cannot be read, or is the same as another.
    """
    limits = {name: value for name in LIMIT_OPTIONS if (value := getattr(request, name)) is not None}
    return build_aims(objective, request.also, limits=limits)


def eta_of(request: SearchRequest) -> float | None:
    """Returns one of how many networks goes on at a rung of a new study; None for all of them."""
    return None if request.eta == 0 else request.eta or DEFAULT_ETA


def plan_of(request: SearchRequest, space: SearchSpace) -> ProxyPlan:
    """Returns a new study's short training, but for what its images say of themselves.

    Raises:
        UsageError: An option of the training cannot be what it is, or means nothing to the proxy asked for.
        NotFoundError: There is no file of the function that is to score.
    """
    defaults = space.defaults
    img_size = request.img_size or defaults.get("img_size", 224)
    proxy = proxy_named(request.proxy or DEFAULT_PROXY.name)
    check_proxy_options(request, proxy)
    images = (request.proxy_images or defaults.get("proxy_images", 100_000)) if proxy.has_budget else 1
    rungs = rungs_of(images, count=request.rungs or DEFAULT_RUNGS, eta=request.eta or DEFAULT_RATIO)
    return ProxyPlan(
        img_size=request.proxy_img_size or defaults.get("proxy_img_size", img_size),
        batch_size=request.proxy_batch_size or defaults.get("proxy_batch_size", 128),
        images=images,
        rungs=rungs if proxy.has_rungs else (),
        precision=request.proxy_precision or "fp32",
        metric=request.metric or (proxy if "metric" in proxy.options else DEFAULT_PROXY).metrics[0].name,
        group_by=request.group_by,
        recipe=proxy.version,
        proxy=proxy.name,
        source_hash=hash_source(request.proxy) if proxy.has_source and request.proxy else None,
    )
