"""Conversion of a configuration to the parts of a study: defaults, conditions, limits, read options, proxy plan."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from hilo_nas.data.reading import ReadOptions
from hilo_nas.errors import UsageError
from hilo_nas.measurement import RUNTIMES, TORCH_ONLY, Condition, ProxyPlan, slug_of_model
from hilo_nas.measurement.condition import INT8_VERSION
from hilo_nas.measurement.condition_options import (
    BEST_RUNTIME,
    CONDITION_OPTIONS,
    LIMIT_OPTIONS,
    Requirements,
    Targets,
    build_requirements,
)
from hilo_nas.plugins import hash_source
from hilo_nas.proxy.kinds import DEFAULT_PROXY, Proxy, proxy_named
from hilo_nas.searching.configuration.default_baselines import DEFAULT, named_baselines
from hilo_nas.searching.configuration.rung_budgets import DEFAULT_RATIO, rungs_of
from hilo_nas.searching.configuration.search_config import SAMPLERS, SearchConfig, nest_settings
from hilo_nas.space import SearchSpace, list_shipped, load_space
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.stored_study import StoredStudy, open_study

if TYPE_CHECKING:
    from hilo_nas.evaluation import ClusterOptions

__all__ = [
    "DEFAULT_SAMPLER",
    "DEFAULT_SPACE",
    "DEFAULT_TRIALS",
    "PLAN_SETTINGS",
    "RANDOM",
    "check_proxy_options",
    "check_single_runtime",
    "cluster_of",
    "condition_options",
    "config_of",
    "defaults_of",
    "name_baselines",
    "plan_of",
    "reading_of",
    "reading_options",
    "reduction_factor_of",
    "requirements_of",
    "resolve",
]

DEFAULT_SAMPLER = "hilo"
DEFAULT_RUNGS = 3
DEFAULT_REDUCTION_FACTOR = 2.0
"""Reduction factor of successive halving.

At equal training cost, the sampler gp reached the same hypervolume with 2 as without rungs, and a smaller one with 3
(`python -m benchmarks.samplers benchmarks/results/cifar10-tabular`, with `--reduction-factor 3` for the latter).
"""
DEFAULT_SPACE = "litv2_digits"
DEFAULT_TRIALS = 40
RANDOM = "random"
"""Sampler of a study without a proxy."""
PLAN_SETTINGS = {
    "proxy.img_size": "img_size",
    "proxy.batch_size": "batch_size",
    "proxy.images": "images",
    "proxy.precision": "precision",
    "proxy.metric": "metric",
    "data.group_by": "group_by",
}
"""Field of `ProxyPlan` that each setting defines."""


def check_proxy_options(config: SearchConfig, proxy: Proxy) -> None:
    """Raises UsageError if a configuration has settings that a proxy does not use. None is skipped silently."""
    faults = [
        f"{name} has no effect with proxy {proxy.name}: {why}. Leave it out."
        for name, why in proxy.unused_options.items()
        if config.value(name)  # 0 disables the setting
    ]
    if faults:
        raise UsageError("\n".join(faults))


def check_single_runtime(config: SearchConfig) -> None:
    """Raises UsageError if `timing.runtime` is `best`, with which the networks of a study would differ in condition."""
    if config.timing.runtime == BEST_RUNTIME:
        raise UsageError(
            f"timing.runtime must be one of {', '.join(RUNTIMES)}, but got {BEST_RUNTIME!r}: all networks of a study "
            f"have the same condition. Only `hilo-nas measure` accepts {BEST_RUNTIME}. In a study, timing.also records "
            "the speeds in further runtimes."
        )


def cluster_of(config: SearchConfig) -> ClusterOptions | None:
    """Returns the cluster that does the work of a search; None if this machine does it."""
    from hilo_nas.evaluation import ClusterOptions  # commands that only read studies do not import it

    evaluator = config.evaluator
    if evaluator.kind != "ray":
        return None
    return ClusterOptions(address=evaluator.address or "auto", time_on=evaluator.time_on, train_on=evaluator.train_on)


def condition_options(config: SearchConfig) -> dict[str, Any]:
    """Returns the fields of the objective condition that a configuration sets, such as `{"batch_size": 64}`."""
    return {name: value for name in CONDITION_OPTIONS if (value := getattr(config.timing, name)) is not None}


def reading_options(config: SearchConfig) -> dict[str, Any]:
    """Returns the options for reading images that a configuration sets, such as `{"background": "gray"}`."""
    names = [field.name for field in dataclasses.fields(ReadOptions)]
    return {name: value for name in names if (value := getattr(config.data, name)) is not None}


def reading_of(config: SearchConfig) -> ReadOptions:
    """Returns the complete options for reading the images of a new study.

    Raises:
        UsageError: An option has an invalid value.
    """
    return ReadOptions.from_dict(reading_options(config))


def requirements_of(config: SearchConfig, objective: Condition, targets: Targets | None = None) -> Requirements:
    """Returns the objective condition with the further conditions and the limits of a configuration.

    Args:
        config: The configuration.
        objective: The objective condition.
        targets: Devices of the study; None to check the settings before the devices are read.

    Raises:
        UsageError: A further condition is invalid, or two conditions are equal.
    """
    limits = {name: value for name in LIMIT_OPTIONS if (value := getattr(config.limits, name)) is not None}
    return build_requirements(objective, config.timing.also, limits=limits, targets=targets)


def defaults_of(config: SearchConfig, space: SearchSpace) -> dict[str, Any]:
    """Returns the defaults of a new study by the name of the setting, such as `{"timing.img_size": 224}`.

    `SearchSpace.defaults` overrides some of them.

    Raises:
        UsageError: The proxy does not exist.
    """
    suggested, proxy = space.defaults, proxy_named(config.proxy.name or DEFAULT_PROXY.name)
    img_size = config.timing.img_size or suggested.get("img_size", 224)
    runtime = config.timing.runtime or "torch"
    return {
        "timing.batch_size": suggested.get("batch_size", 64),
        "timing.img_size": img_size,
        "timing.precision": "fp32",
        "timing.runtime": runtime,
        **dict.fromkeys(("timing.channels_last", "timing.compile", "timing.cuda_graph"), False),
        "timing.fused": runtime == "torch",
        "timing.env": "tuned",
        "proxy.name": proxy.name,
        "proxy.images": suggested.get("proxy_images", 100_000),
        "proxy.img_size": suggested.get("proxy_img_size", img_size),
        "proxy.batch_size": suggested.get("proxy_batch_size", 128),
        "proxy.precision": "fp32",
        "proxy.metric": (proxy if "proxy.metric" in proxy.options else DEFAULT_PROXY).metrics[0].name,
        "proxy.rungs": DEFAULT_RUNGS,
        "proxy.reduction_factor": DEFAULT_REDUCTION_FACTOR,
        "proxy.rung_ratio": DEFAULT_RATIO,
        "search.sampler": DEFAULT_SAMPLER if proxy.gives_scores else RANDOM,
        "search.seed": 0,
        "search.until_trials": len(config.search.networks) or suggested.get("trials", DEFAULT_TRIALS),
    }


def resolve(config: SearchConfig, space: SearchSpace) -> SearchConfig:
    """Returns the configuration of a new study with defaults filled in. Baselines are named instead of `default`.

    Settings that the proxy does not use stay unset. Settings that depend on the machine (device, threads) are not
    changed.

    Raises:
        UsageError: The proxy does not exist, or the runtime is `best`.
    """
    check_single_runtime(config)
    defaults = defaults_of(config, space)
    unused = proxy_named(config.proxy.name or defaults["proxy.name"]).unused_options
    if config.search.trials is not None:
        del defaults["search.until_trials"]
    missing = [name for name in defaults if name not in unused and config.value(name) is None]
    baselines = named_baselines(config.search.baselines, config.timing.img_size or defaults["timing.img_size"])
    return config.replace({**{name: defaults[name] for name in missing}, "search.baselines": baselines})


def name_baselines(config: SearchConfig, space: SearchSpace | None, study: StoredStudy) -> SearchConfig:
    """Returns the configuration with networks for the image size instead of `default` in `search.baselines`.

    Args:
        config: Configuration of a search.
        space: Space of a new study.
        study: The study, which need not exist yet. A stored study, or that with the timings, defines the image size.
    """
    if DEFAULT not in config.search.baselines:
        return config
    if study.exists:
        img_size = study.manifest.objective.img_size
    elif config.study.speeds is not None:
        img_size = open_study(config.study.speeds).manifest.objective.img_size
    else:
        assert space is not None
        return config.replace({"search.baselines": resolve(config, space).search.baselines})
    return config.replace({"search.baselines": named_baselines(config.search.baselines, img_size)})


def config_of(manifest: Manifest) -> SearchConfig:
    """Returns the configuration of a stored study, from its manifest. It has no paths, because a manifest has none.

    The space is left out if it is not a shipped space, or if the shipped space has changed since.
    """
    space, objective, plan = manifest.space, manifest.objective, manifest.plan
    reading = ReadOptions.from_dict(manifest.data.reading)
    settings = {
        "timing.device": objective.device,
        **{f"timing.{name}": getattr(objective, name) for name in CONDITION_OPTIONS},
        "timing.also": tuple(_format_condition(condition, manifest) for condition in manifest.conditions[1:]),
        **{f"limits.{name}": manifest.limits.get(limit) for name, limit in LIMIT_OPTIONS.items()},
        "proxy.name": plan.proxy,
        **{setting: getattr(plan, field) for setting, field in PLAN_SETTINGS.items()},
        "proxy.rungs": len(plan.rungs) + 1,
        "proxy.reduction_factor": manifest.reduction_factor or 0.0,
        "proxy.rung_ratio": (plan.images / plan.rungs[0]) ** (1 / len(plan.rungs)) if plan.rungs else None,
        **{f"data.{name}": value for name, value in dataclasses.asdict(reading).items()},
        # Without a stored level, the study used the first one.
        "data.class_from": reading.class_from or "first",
        "search.sampler": manifest.sampler if manifest.sampler in SAMPLERS else None,
        "search.seed": manifest.seed,
        "search.until_trials": manifest.trials or None,
        "search.baselines": manifest.baselines,
        "study.speeds": manifest.speeds,
    }
    unused = plan.declaration.unused_options
    is_shipped = space.name in list_shipped() and load_space(space.name).hash() == space.hash()
    fields = nest_settings({name: value for name, value in settings.items() if name not in unused})
    return SearchConfig.from_dict({**fields, **({"space": space.name} if is_shipped else {})})


def _format_condition(condition: Condition, manifest: Manifest) -> str:
    """Returns a further condition as text for `timing.also`, such as `batch_size=1,max_latency_ms=20`.

    The text holds the differences from the objective condition, and the limits. It names another device by its kind,
    and a GPU by its model too.
    """
    objective = manifest.objective
    place: dict[str, Any] = {}
    if not condition.shares_target(objective):
        objective = dataclasses.replace(objective, threads=None)  # the device decides
        model = slug_of_model(manifest.calibrations[condition.label()].device.model)
        place = {"device": condition.device, **({"model": model} if condition.device == "cuda" else {})}
    # Another runtime or kind of device implies values of these fields.
    implied = objective.vary(
        runtime=condition.runtime,
        precision=condition.precision,
        **({} if condition.device == "cuda" else {"device": condition.device, "cuda_graph": False}),
    )
    differing = {
        name: value
        for name in CONDITION_OPTIONS
        if (value := getattr(condition, name)) != getattr(implied if name in TORCH_ONLY else objective, name)
        and value is not None
    }
    differing = {**place, **differing}
    label = condition.label()
    limits = {
        option: bound for option, name in LIMIT_OPTIONS.items() if (bound := manifest.limits.get(f"{name}@{label}"))
    }
    return ",".join(f"{name}={str(value).lower()}" for name, value in {**differing, **limits}.items())


def reduction_factor_of(config: SearchConfig) -> float | None:
    """Returns the reduction factor of a new study; None if all networks are trained fully."""
    return None if config.proxy.reduction_factor == 0 else config.proxy.reduction_factor or DEFAULT_REDUCTION_FACTOR


def plan_of(config: SearchConfig, space: SearchSpace) -> ProxyPlan:
    """Returns the proxy plan of a new study. Fields that depend on the images, such as `hflip`, have their defaults.

    Raises:
        UsageError: A setting is invalid, or the proxy does not use it.
        NotFoundError: The file of the scoring function does not exist.
    """
    values = defaults_of(config, space)
    values |= {name: given for name in values if (given := config.value(name)) is not None}
    proxy = proxy_named(values["proxy.name"])
    check_proxy_options(config, proxy)
    images = values["proxy.images"] if proxy.has_budget else 1
    int8_runtime = _int8_runtime(config, values) if "proxy.precision" in proxy.options else None
    return ProxyPlan(
        img_size=values["proxy.img_size"],
        batch_size=values["proxy.batch_size"],
        images=images,
        rungs=rungs_of(images, count=values["proxy.rungs"], ratio=values["proxy.rung_ratio"])
        if proxy.has_rungs
        else (),
        precision=values["proxy.precision"],
        metric=values["proxy.metric"],
        group_by=config.data.group_by,
        recipe=proxy.version,
        proxy=proxy.name,
        source_hash=hash_source(config.proxy.name) if proxy.has_source and config.proxy.name else None,
        int8_runtime=int8_runtime,
        int8_version=None if int8_runtime is None else INT8_VERSION,
    )


def _int8_runtime(config: SearchConfig, values: dict[str, Any]) -> str | None:
    """Returns the runtime in which networks are scored in INT8. They are scored in INT8 if they are timed in INT8."""
    if config.study.speeds is not None:
        objective = open_study(config.study.speeds).manifest.objective
        values = {"timing.runtime": objective.runtime, "timing.precision": objective.precision}
    is_int8 = values["timing.precision"] == "int8" and values["timing.runtime"] != "torch"  # torch is refused later
    return values["timing.runtime"] if is_int8 else None
