"""Census of a search space: combinations of knob values, networks, ranges of size, and knobs without effect.

It gives the number of combinations, the number of distinct networks, and the ranges of parameters and multiply-adds.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from hilo_nas.arch.attentions import attention_named, lofi_heads
from hilo_nas.arch.config import N_STAGES, ArchConfig, canonical_stage
from hilo_nas.arch.cost import count_cost, count_macs, count_params, map_sizes
from hilo_nas.errors import UsageError
from hilo_nas.space.draw import is_within
from hilo_nas.space.space import SearchSpace, stage_values

__all__ = ["EXACT_UP_TO", "Census", "count_space", "report_dead_knobs"]

EXACT_UP_TO = 1_000_000
"""Number of combinations of knob values up to which networks are counted exactly. A million takes seconds."""

_WINDOW_KINDS = ("window", "shifted")
"""Kinds of attention in which a token of a window of size 1 attends only to itself."""

_SAMPLE = 1000
_NETWORK_SAMPLE = 10_000
Chosen = dict[tuple[str, int | None], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Census:
    """Number of networks in a space, and ranges of their parameters and multiply-adds."""

    n_configs: int
    """Number of combinations of knob values. Several combinations may describe the same network."""
    n_networks: int
    """Number of distinct networks."""
    is_exact: bool
    """True if `n_networks` is an exact count, False if it is an estimate."""
    n_networks_se: float
    """Standard error of the estimate, in networks. 0 for an exact count."""
    params_m: tuple[float, float]
    """Minimum and maximum of the parameters in millions, found by coordinate descent from several starts."""
    gmacs: tuple[float, float]
    """Minimum and maximum multiply-adds for one image, in billions, found like `params_m`."""
    within_limits: float
    """Share of 1,000 random combinations of knob values that are within the limits on parameters and multiply-adds."""


def count_space(space: SearchSpace, *, img_size: int, num_classes: int, exact_up_to: int = EXACT_UP_TO) -> Census:
    """Returns the census of a space. Takes seconds for a million combinations of knob values.

    Args:
        space: The space.
        img_size: Side of the timed images in pixels.
        num_classes: Number of outputs of the classifiers.
        exact_up_to: Number of combinations up to which networks are counted exactly. Above it, the number is estimated.

    Raises:
        UsageError: The images are smaller than the stride of a network in the space.
    """
    for patch_size in _patch_sizes(space):
        map_sizes(_smallest(space, patch_size), img_size)
    is_exact = space.n_configs <= exact_up_to
    networks, standard_error = _count_networks(space, is_exact)
    random = Random(0)

    def params(arch: ArchConfig) -> float:
        return count_params(arch, num_classes=num_classes)

    def macs(arch: ArchConfig) -> float:
        return count_macs(arch, img_size, num_classes=num_classes)

    inside = 0
    for _ in range(_SAMPLE):
        arch = space.decode(space.sample(random))
        inside += is_within(space.limits, count_cost(arch, img_size, num_classes=num_classes))
    params_range = [extreme / 1e6 for extreme in _range(space, params)]
    macs_range = [extreme / 1e9 for extreme in _range(space, macs)]
    return Census(
        n_configs=space.n_configs,
        n_networks=networks,
        is_exact=is_exact,
        n_networks_se=standard_error,
        params_m=(params_range[0], params_range[1]),
        gmacs=(macs_range[0], macs_range[1]),
        within_limits=inside / _SAMPLE,
    )


def _patch_sizes(space: SearchSpace) -> tuple[int, ...]:
    return next(knob.choices for knob in space.knobs if knob.name == "patch_size")


def _smallest(space: SearchSpace, patch_size: int) -> ArchConfig:
    chosen = {(knob.name, knob.stage): knob.choices[0] for knob in space.knobs}
    return space.build_arch({**chosen, ("patch_size", None): patch_size})


def _shared_settings(space: SearchSpace) -> Iterator[Chosen]:
    """Yields every combination of values of the knobs that all stages share."""
    shared = [knob for knob in space.knobs if knob.stage is None]
    for values in itertools.product(*(knob.choices for knob in shared)):
        yield {(knob.name, knob.stage): value for knob, value in zip(shared, values, strict=True)}


def _stage_forms(space: SearchSpace, shared: Chosen, stage: int) -> Counter[tuple[Any, ...]]:
    """Returns each distinct stage, with the number of combinations of the stage's own knobs that describe it.

    Two combinations describe the same stage if they differ only in knobs without effect. `shared` fixes the other
    knobs.
    """
    own = [knob for knob in space.knobs if knob.stage == stage]
    forms: Counter[tuple[Any, ...]] = Counter()
    for values in itertools.product(*(knob.choices for knob in own)):
        chosen: Chosen = dict(shared)
        chosen.update({(knob.name, stage): value for knob, value in zip(own, values, strict=True)})
        forms[tuple(canonical_stage(stage_values(chosen, stage)).values())] += 1
    return forms


def _count_networks(space: SearchSpace, is_exact: bool) -> tuple[int, float]:
    """Returns the number of distinct networks and its standard error.

    A network that m combinations of knob values describe is drawn m times as often as a network with one combination.
    Therefore the mean of 1/m over uniformly drawn combinations, times the number of combinations, is an unbiased
    estimate.
    """
    settings = [
        (shared["patch_size", None], [_stage_forms(space, shared, i) for i in range(N_STAGES)])
        for shared in _shared_settings(space)
    ]
    if is_exact:
        distinct = {(patch, *stages) for patch, forms in settings for stages in itertools.product(*forms)}
        return len(distinct), 0.0
    random = Random(0)
    choices = [[(list(forms), list(itertools.accumulate(forms.values()))) for forms in drawn] for _, drawn in settings]
    shares = []
    for _ in range(_NETWORK_SAMPLE):
        index = random.randrange(len(settings))
        stages = [random.choices(forms, cum_weights=weights)[0] for forms, weights in choices[index]]
        n_settings = sum(
            math.prod(forms[stage] for forms, stage in zip(counters, stages, strict=True))
            for patch, counters in settings
            if patch == settings[index][0]
        )
        shares.append(1 / n_settings)
    mean = sum(shares) / _NETWORK_SAMPLE
    variance = sum((share - mean) ** 2 for share in shares) / (_NETWORK_SAMPLE - 1)
    return round(mean * space.n_configs), math.sqrt(variance / _NETWORK_SAMPLE) * space.n_configs


def _range(space: SearchSpace, cost: Callable[[ArchConfig], float]) -> tuple[float, float]:
    """Returns the minimum and maximum of `cost` over the networks of a space.

    They are found by coordinate descent over the knobs from five starts, so they are not guaranteed.
    """

    def descend(sign: int, params: dict[str, int]) -> float:
        best = sign * cost(space.decode(params))
        moved = True
        while moved:
            moved = False
            for param, n in space.dimensions.items():
                for index in range(n):
                    value = sign * cost(space.decode({**params, param: index}))
                    if value < best:
                        best, params, moved = value, {**params, param: index}, True
        return sign * best

    random = Random(0)
    starts = [dict.fromkeys(space.dimensions, 0), {param: n - 1 for param, n in space.dimensions.items()}]
    starts += [space.sample(random) for _ in range(3)]
    return min(descend(1, start) for start in starts), max(descend(-1, start) for start in starts)


def report_dead_knobs(space: SearchSpace, *, img_size: int, proxy_img_size: int) -> list[str]:
    """Returns one sentence for each knob or value that has no effect, or that does not fit the feature maps.

    An example is `alpha_1 has no effect: no stage with this knob can have attention that uses it`.

    Args:
        space: The space.
        img_size: Side of the timing images in pixels.
        proxy_img_size: Side of the proxy's images in pixels.
    """
    found = _unused_knobs(space)
    sizes = {img_size: "timing"}
    sizes[proxy_img_size] = "timing and proxy" if proxy_img_size == img_size else "proxy"
    for size, use in sizes.items():
        for patch_size in _patch_sizes(space):
            at = f"at {size} px ({use} size) with patch_size {patch_size}"
            try:
                maps = map_sizes(_smallest(space, patch_size), size)
            except UsageError as error:
                found.append(f"{at}: {error}")
                continue
            for i in range(N_STAGES):
                found += [f"{at}, stage {i + 1}: {text}" for text in _window_faults(space, i, min(maps[i]))]
    return found


def _choices(space: SearchSpace, name: str, stage: int) -> tuple[Any, ...]:
    return next(
        (knob.choices for knob in space.knobs if knob.name == name and knob.stage in (stage, None)),
        (),
    )


def _is_used(space: SearchSpace, name: str, stage: int) -> bool:
    return any(name in attention_named(kind).uses for kind in _choices(space, "attention", stage))


def _unused_knobs(space: SearchSpace) -> list[str]:
    """Returns one sentence per knob or value without effect at any image size."""
    found = [
        f"stage {i + 1}: with window_size 1, each token of {kind} attention attends only to itself"
        for i in range(N_STAGES)
        for kind in _WINDOW_KINDS
        if kind in _choices(space, "attention", i) and 1 in _choices(space, "window_size", i)
    ]
    for knob in space.knobs:
        stages = range(N_STAGES) if knob.stage is None else [knob.stage]
        if len(knob.choices) < 2 or knob.name not in ("head_dim", "num_heads", "alpha", "window_size"):
            continue
        name = "num_heads" if knob.name == "head_dim" else knob.name
        in_use = [i for i in stages if _is_used(space, name, i)]
        if not in_use:
            has_attention = any(set(_choices(space, "attention", i)) - {"none"} for i in stages)
            what = "attention that uses it" if has_attention else "attention"
            found.append(f"{knob.param} has no effect: no stage with this knob can have {what}")
        elif knob.name == "alpha":
            found += _unused_alphas(space, knob.choices, knob.param, in_use)
    return found


def _unused_alphas(space: SearchSpace, alphas: tuple[float, ...], param: str, stages: list[int]) -> list[str]:
    found = []
    for i in stages:
        if set(_choices(space, "window_size", i)) == {1}:
            found.append(f"stage {i + 1}: {param} has no effect: the only window_size is 1, which is plain attention")
            continue
        widths = _choices(space, "embed_dims", i)
        if any(knob.name == "embed_dims" and knob.stage is None for knob in space.knobs):
            widths = tuple(width * 2**i for width in widths)
        heads = _choices(space, "num_heads", i) or tuple(
            sorted({width // dim for width in widths for dim in _choices(space, "head_dim", i)})
        )
        for head in heads:
            splits = len({lofi_heads(head, alpha, 2) for alpha in alphas})
            if splits < len(alphas):
                found.append(
                    f"stage {i + 1}: {len(alphas)} values of {param} give {splits} different networks at {head} heads"
                )
    return found


def _window_faults(space: SearchSpace, stage: int, side: int) -> list[str]:
    """Returns one sentence per fault of a stage's attention on a feature map of `side` x `side` tokens."""
    if not _is_used(space, "window_size", stage):
        return []
    windows = _choices(space, "window_size", stage)
    if side == 1:
        names = [name for name in ("alpha", "window_size") if _is_used(space, name, stage)]
        verb = "has" if len(names) == 1 else "have"
        return [f"the map is 1 x 1: attention sees one token, so {' and '.join(names)} {verb} no effect"] * any(
            len(_choices(space, name, stage)) > 1 for name in names
        )
    return [
        f"window_size {window} exceeds the map of {side} x {side} tokens: most of each window is padding"
        for window in windows
        if window > side
    ]
