"""Which proxy scores a network how: by work that a worker does, or by a formula over what its record says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hilo_nas.clock import utc_now
from hilo_nas.errors import HiloNasError
from hilo_nas.manifest import Manifest
from hilo_nas.measurement import FORMULAS, RECIPE, TRAINING, ProxyPlan, ProxyScore
from hilo_nas.plugins import is_plugin, name_of
from hilo_nas.proxy.training_free.plan import NAMES, VERSION
from hilo_nas.records import Subject, TrialRecord
from hilo_nas.versions import versions

__all__ = [
    "PROXIES",
    "has_budget",
    "proxy_name",
    "recipe_of",
    "score_by_formula",
    "settled",
    "unused_options",
    "worker_call",
]

PROXIES = (TRAINING, *FORMULAS, *NAMES)
"""As `--proxy` takes them, beside functions of the user's own."""
_Z95 = 1.96


def proxy_name(proxy: str) -> str:
    """Returns how plans and scores name a proxy: of a function, without the folder that it lies in."""
    return name_of(proxy) if is_plugin(proxy) else proxy


def has_budget(proxy: str) -> bool:
    """Returns whether a proxy is given a number of training images."""
    return proxy == TRAINING or is_plugin(proxy)


def recipe_of(proxy: str) -> str:
    """Returns the version of how this package takes a proxy's scores; see `ProxyPlan.recipe`."""
    if proxy == TRAINING:
        return RECIPE
    if proxy in NAMES:
        return VERSION
    return "formula-1" if proxy in FORMULAS else "own-1"


def unused_options(proxy: str) -> dict[str, str]:
    """Returns the options of a search that mean nothing to a proxy, by name, and why."""
    if proxy == TRAINING:
        return {}
    found = dict.fromkeys(("proxy_precision", "metric", "rungs", "eta", "raise_budget"), "it is of a training")
    if not has_budget(proxy):
        found["proxy_images"] = "it has no budget"
    if proxy not in NAMES:
        unseen = ("proxy_img_size", "proxy_batch_size", "val_data", "group_by")
        found |= dict.fromkeys(unseen, "it is not given the images")
    if proxy in FORMULAS:
        found["confirm"] = "no seed changes it"
    return found


def worker_call(
    plan: ProxyPlan,
    subject: Subject,
    data: Mapping[str, Any],
    seed: int,
    device: str,
    *,
    until: int | None = None,
    checkpoint: Path | None = None,
    own: str | None = None,
) -> tuple[str, dict[str, Any]]:
    """Returns the function that a worker runs to score a network, and its arguments; never asked of a formula.

    Args:
        plan: Says which proxy.
        subject: The network.
        data: The prepared images.
        seed: Of the weights and all that is drawn.
        device: Where to work.
        until: Of a training, images seen at which to score.
        checkpoint: Of a training, the file that it goes on from and leaves behind.
        own: Where the function lies that the plan names, if it names one.
    """
    arguments = {
        "subject": subject.to_dict(),
        "plan": plan.to_dict(),
        "data": dict(data),
        "seed": seed,
        "device": device,
    }
    if plan.proxy == TRAINING:
        legs = {"until": until, "checkpoint": None if checkpoint is None else str(checkpoint.absolute())}
        return "hilo_nas.proxy.train:run_training", {**arguments, **legs}
    if plan.proxy in NAMES:
        return "hilo_nas.proxy.training_free.run:run_training_free", {**arguments, "name": plan.proxy}
    assert own is not None, "a function of the user's own is loaded first"
    return "hilo_nas.proxy.own:run_own", {**arguments, "function": own}


def settled(score: ProxyScore, plan: ProxyPlan, data_hash: str) -> ProxyScore:
    """Returns a worker's score as a study keeps it: of a proxy that is no training, under the plan and its budget."""
    if plan.proxy == TRAINING:
        return score
    return dataclasses.replace(score, plan_hash=plan.hash(data_hash), images_seen=plan.budgets[-1])


def score_by_formula(record: TrialRecord, manifest: Manifest) -> ProxyScore:
    """Returns the score of a proxy that needs no work: a count of the network's, or its speed itself.

    Args:
        record: A network with its speed.
        manifest: Its study's; the plan's proxy is one of `FORMULAS`.

    Raises:
        HiloNasError: The record does not have the value.
    """
    plan, measurement = manifest.plan, record.measurement
    standard_error = 0.0
    if plan.proxy == "images_per_s":
        assert measurement is not None, "a network is timed before it is scored"
        value, standard_error = measurement.images_per_s, measurement.half_width / _Z95
    else:
        count, unit = {"params": (record.parameters, 1e6), "macs": (record.macs, 1e9)}[plan.proxy]
        if count is None:
            raise HiloNasError(f"{plan.proxy} cannot score {record.key}: its record does not have the count")
        value = count / unit
    return ProxyScore(
        plan_hash=manifest.plan_hash,
        metric=plan.proxy,
        value=value,
        standard_error=standard_error,
        loss=None,
        n_val=0,
        images_seen=plan.budgets[-1],
        seconds=0.0,
        seed=manifest.seed,
        micro_batch_size=1,
        device="cpu",
        versions=versions(),
        scored_at=utc_now(),
    )
