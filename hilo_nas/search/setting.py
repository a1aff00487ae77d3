"""What a new study is made from: the device found, the data prepared, sizes checked against the space."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hilo_nas.errors import UsageError
from hilo_nas.events import Emit
from hilo_nas.manifest import DataIdentity
from hilo_nas.measurement import Condition, DeviceIdentity, ProxyPlan
from hilo_nas.proxy.sources import absolute_source
from hilo_nas.search.executors import LocalExecutor
from hilo_nas.search.request import DEFAULT_SPACE, SearchRequest
from hilo_nas.space import SearchSpace

__all__ = ["DEFAULT_DATA", "DEFAULT_TRIALS", "Setting", "identify_data", "local_of", "set_up", "trials_asked"]

DEFAULT_DATA = "digits"
DEFAULT_TRIALS = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """All that a new study needs, checked and ready."""

    space: SearchSpace
    conditions: tuple[Condition, ...]
    device: DeviceIdentity
    plan: ProxyPlan
    data: DataIdentity
    described: dict[str, Any]
    """The prepared images, as workers take them."""


def set_up(request: SearchRequest, space: SearchSpace, executor: LocalExecutor, emit: Emit) -> Setting:
    """Returns a new study's setting: the device found, the data prepared, sizes checked against the space.

    Raises:
        UsageError: An option does not fit the space.
        DeviceError: This machine does not have the device.
        DataError: The data cannot serve.
    """
    defaults = space.defaults
    img_size = request.img_size or defaults.get("img_size", 224)
    proxy_img_size = request.proxy_img_size or defaults.get("proxy_img_size", img_size)
    _check_sizes(space, {"img_size": img_size, "proxy_img_size": proxy_img_size})
    if request.device is not None:
        Condition(device=request.device)
    device, identity, threads = executor.read_device(request.device, emit)
    condition = Condition(
        device=device,
        batch_size=request.batch_size or defaults.get("batch_size", 64),
        img_size=img_size,
        precision=request.precision or "fp32",
        channels_last=bool(request.channels_last),
        compile=bool(request.compile),
        threads=request.threads or threads,
    )
    plan = ProxyPlan(
        img_size=proxy_img_size,
        batch_size=request.proxy_batch_size or defaults.get("proxy_batch_size", 128),
        images=request.proxy_images or defaults.get("proxy_images", 100_000),
        precision=request.proxy_precision or "fp32",
        metric=request.metric or "top1",
    )
    source = request.data
    if source is None:
        if space.name != DEFAULT_SPACE:
            raise UsageError(
                f"the search in {space.name} needs images to train on. Give --data: a folder with a subfolder per "
                "class, a .tar, torch/NAME, hfds/NAME, or `digits` for scikit-learn's digits."
            )
        source = DEFAULT_DATA
    described = executor.prepare_data(
        source, plan.img_size, cache_dir=request.cache_dir, val_data=request.val_data, emit=emit
    )
    plan = dataclasses.replace(plan, hflip=described["hflip"])
    return Setting(
        space=space,
        conditions=(condition,),
        device=identity,
        plan=plan,
        data=identify_data(described),
        described=described,
    )


def _check_sizes(space: SearchSpace, sizes: Mapping[str, int]) -> None:
    """Raises UsageError where an image size is smaller than the stride of a network of the space, or of an anchor."""
    largest = max(next(knob.choices for knob in space.knobs if knob.name == "patch_size"))
    strides = {f"patch_size {largest}": 8 * largest}
    strides |= {f"anchor {anchor.name}": anchor.arch.stride for anchor in space.anchors}
    for name, size in sizes.items():
        for whose, stride in strides.items():
            if size < stride:
                raise UsageError(
                    f"{name} must be at least {stride} for {whose} (eight patches a side), but got {size}. "
                    f"Use larger images, or a space without {whose}."
                )


def identify_data(described: Mapping[str, Any]) -> DataIdentity:
    """Returns what a manifest keeps of prepared images."""
    return DataIdentity(
        name=described["name"],
        hash=described["content_hash"],
        num_classes=len(described["class_names"]),
        n_images=described["n_images"],
    )


def trials_asked(request: SearchRequest, space: SearchSpace) -> int:
    """Returns how many networks a new study is to measure."""
    return request.until_trials or request.trials or space.defaults.get("trials", DEFAULT_TRIALS)


def local_of(request: SearchRequest) -> dict[str, Any]:
    """Returns what a request says that is true on this machine alone, from whichever folder the next one comes."""
    return {
        "data": absolute_source(request.data) if request.data else None,
        "val_data": absolute_source(request.val_data) if request.val_data else None,
        "cache_dir": str(request.cache_dir.absolute()) if request.cache_dir else None,
    }
