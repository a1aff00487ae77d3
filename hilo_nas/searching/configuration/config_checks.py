"""Checks of setting values that are invalid for every space and study."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from hilo_nas.data.reading import ReadOptions
from hilo_nas.errors import HiloNasError
from hilo_nas.measurement import Condition, ProxyPlan, kind_of_target
from hilo_nas.measurement.condition_options import BEST_RUNTIME
from hilo_nas.proxy.kinds import list_proxies, proxy_named
from hilo_nas.searching.configuration.default_baselines import DEFAULT

if TYPE_CHECKING:
    from hilo_nas.searching.configuration.search_config import SearchConfig

__all__ = ["EVALUATORS", "SAMPLERS", "list_faults"]

EVALUATORS = ("local", "ray")
SAMPLERS = ("hilo", "gp", "tpe", "nsga2", "random")
_LARGEST_SEED = 2**32 - 1
"""Largest seed that NumPy's generators accept."""
_MINIMUM = {
    **dict.fromkeys(("search.trials", "search.until_trials"), 1),
    **dict.fromkeys(("timing.batch_size", "timing.img_size", "timing.threads"), 1),
    **dict.fromkeys(("proxy.img_size", "proxy.batch_size", "proxy.images", "proxy.rungs", "proxy.raise_budget"), 1),
    "proxy.confirm": 0,
}
"""Smallest valid value of each whole-number setting."""
_ABOVE_ZERO = (
    *("limits.min_images_per_s", "limits.max_latency_ms", "limits.max_memory_mib"),
    *("timing.seconds", "search.min_gain", "search.timeout_s", "study.idle_timeout_s"),
    "data.max_cache_gib",
)


def list_faults(config: SearchConfig) -> list[str]:
    """Returns the faults of a configuration, one line per setting."""
    faults = [*_check_numbers(config), *_check_choices(config)]
    for section, check in _CHECKS:
        try:
            check(config)
        except HiloNasError as error:
            faults += [f"{section}{line}" for line in str(error).split("\n")]
    return faults


def _check_numbers(config: SearchConfig) -> Iterator[str]:
    for name, least in _MINIMUM.items():
        if (count := config.value(name)) is not None and count < least:
            yield f"{name} must be at least {least}, but got {count}"
    for name in _ABOVE_ZERO:
        if (value := config.value(name)) is not None and not 0 < value < math.inf:
            yield f"{name} must be a number above 0, but got {value:g}"
    factor, ratio, seed = config.proxy.reduction_factor, config.proxy.rung_ratio, config.search.seed
    if factor is not None and not (factor == 0 or 1 < factor < math.inf):
        yield f"proxy.reduction_factor must be a number above 1, or 0 to train all networks fully, but got {factor:g}"
    if ratio is not None and not 1 < ratio < math.inf:
        yield f"proxy.rung_ratio must be a number above 1, but got {ratio:g}"
    if not config.study.checkpoint_mib >= 0:
        yield f"study.checkpoint_mib must be at least 0, but got {config.study.checkpoint_mib:g}"
    if seed is not None and not 0 <= seed <= _LARGEST_SEED:
        yield f"search.seed must lie between 0 and {_LARGEST_SEED}, but got {seed}"


def _check_choices(config: SearchConfig) -> Iterator[str]:
    search = config.search
    for name in search.baselines:
        if name != DEFAULT and (not name.startswith("timm:") or name == "timm:" or "," in name):
            yield (
                f"search.baselines must be a list of timm networks, as NAME or timm:NAME, but got {name!r}. "
                "Write several as [A, B], or repeat --set."
            )
    if search.trials is not None and search.until_trials is not None:
        yield "use either search.trials (additional networks) or search.until_trials (a total), not both"
    if config.data.group_by is not None and config.data.val_source is not None:
        yield "use either data.group_by or data.val_source, not both, because data.val_source replaces the split"
    if search.sampler is not None and search.sampler not in SAMPLERS:
        yield f"search.sampler must be one of {', '.join(SAMPLERS)}, but got {search.sampler!r}"
    yield from _check_evaluator(config)
    metric = config.proxy.metric
    known = [metric.name for proxy in list_proxies() if "proxy.metric" in proxy.options for metric in proxy.metrics]
    if metric is not None and metric not in known:
        yield f"proxy.metric must be one of {', '.join(known)}, but got {metric!r}"


def _check_evaluator(config: SearchConfig) -> Iterator[str]:
    evaluator = config.evaluator
    if evaluator.kind is not None and evaluator.kind not in EVALUATORS:
        yield f"evaluator.kind must be one of {', '.join(EVALUATORS)}, but got {evaluator.kind!r}"
    elif evaluator.kind != "ray":
        for name in ("address", "time_on", "train_on"):
            if getattr(evaluator, name) is not None:
                yield f"evaluator.{name} has no effect without evaluator.kind=ray. Set both, or leave it out."
    elif evaluator.train_on is not None and evaluator.time_on is None:
        yield "evaluator.train_on needs evaluator.time_on, which names the nodes that time"


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check_reading(config: SearchConfig) -> None:
    names = [field.name for field in dataclasses.fields(ReadOptions)]
    ReadOptions.from_dict(_without_none({name: getattr(config.data, name) for name in names}))


def _check_device(config: SearchConfig) -> None:
    if config.timing.device is not None:
        kind_of_target(config.timing.device)


def _check_condition(config: SearchConfig) -> None:
    fields = _without_none({name: getattr(config.timing, name) for name in ("precision", "runtime", "env")})
    if fields.get("runtime") == BEST_RUNTIME:  # only `measure` accepts it
        del fields["runtime"]
    if fields.get("precision") == "int8":
        fields.setdefault("runtime", "openvino")  # the runtime may come from a study
    Condition(**fields)


def _check_proxy(config: SearchConfig) -> None:
    if config.proxy.name is not None:
        proxy_named(config.proxy.name)


def _check_plan(config: SearchConfig) -> None:
    ProxyPlan(img_size=1, batch_size=1, images=1, **_without_none({"precision": config.proxy.precision}))


def _check_groups(config: SearchConfig) -> None:
    ProxyPlan(img_size=1, batch_size=1, images=1, **_without_none({"group_by": config.data.group_by}))


_CHECKS: tuple[tuple[str, Callable[[SearchConfig], None]], ...] = (
    ("data.", _check_reading),
    ("data.", _check_groups),
    ("timing.", _check_device),
    ("timing.", _check_condition),
    ("", _check_proxy),
    ("", _check_plan),
)
"""Checks that build a value of another package from the settings, such as `ReadOptions` or `Condition`. Each comes
after the prefix that turns a field name in its messages into the name of the setting, such as `data.`."""
