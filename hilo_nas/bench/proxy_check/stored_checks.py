"""Agreement of a planned proxy with long trainings, from stored proxy checks."""

from __future__ import annotations

import dataclasses
from typing import Any

from hilo_nas.bench.proxy_check.agreement import agree
from hilo_nas.bench.proxy_check.proxy_check import (
    LONG_FACTOR,
    LONG_SEED,
    PROXY_SEED,
    ProxyCheck,
    to_checked_network,
)
from hilo_nas.errors import HiloNasError
from hilo_nas.searching import SearchConfig, SearchPlan
from hilo_nas.searching.configuration.resolve import plan_of, resolve
from hilo_nas.searching.sweeps.sweep import ALL
from hilo_nas.study.stored_study import StoredStudy, list_studies
from hilo_nas.text.commands import command, setting_words
from hilo_nas.text.durations import duration

__all__ = ["StoredRanking", "describe_ranking", "find_ranking"]

_NOT_OF_A_CHECK = (
    *("proxy.rungs", "proxy.reduction_factor", "proxy.confirm"),
    *("timing.also", "data.cache_dir", "data.max_cache_gib"),
)
"""Settings of a search that a check does not use."""
_SAME = ("proxy", "img_size", "batch_size", "metric", "recipe")
"""Fields of the proxy's plan that a check and a planned search must share."""
_FEWEST_NETWORKS = 10
"""Minimum number of networks with a long training in a check."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredRanking:
    """Agreement of a budget with long trainings in a stored check, among networks of similar speed."""

    study: str
    networks: int
    images: int
    """Training images of the budget."""
    long_images: int
    """Training images of the long trainings."""
    tau: float
    low: float
    high: float
    """Ends of the 95 % interval of tau."""


def find_ranking(plan: SearchPlan) -> StoredRanking | None:
    """Returns the agreement of the largest checked budget within a plan's budget.

    A check counts if it has the space, the images and the training settings of the plan. Studies that cannot be read
    are skipped. Returns None if there is no such check.
    """
    for study in list_studies():
        try:
            if (found := _ranking_in(study, plan)) is not None:
                return found
        except HiloNasError:
            continue
    return None


def _ranking_in(study: StoredStudy, plan: SearchPlan) -> StoredRanking | None:
    manifest, setup = study.manifest, plan.setup
    is_same = (manifest.sampler, manifest.space.hash(), manifest.data.hash) == (
        ALL,
        setup.space.hash(),
        setup.data.hash,
    ) and all(getattr(manifest.plan, name) == getattr(setup.plan, name) for name in _SAME)
    if not is_same:
        return None
    records = study.records
    long = max((s.images_seen for r in records for s in r.scores if s.seed == LONG_SEED), default=0)
    budgets = {s.images_seen for r in records for s in r.scores if s.seed == PROXY_SEED}
    most = plan_of(plan.config, setup.space).budgets[-1]  # whole batches, as scores have
    within = [images for images in budgets if images <= most and images < long]
    if not within:
        return None
    images = max(within)
    networks = [to_checked_network(record, manifest, [images], long, None) for record in records]
    networks = [network for network in networks if network.long]
    if len(networks) < _FEWEST_NETWORKS:
        return None
    name = f"{manifest.plan.metric}@{images}"
    agreement = agree(networks, budgets=[name])
    tau = next(budget for budget in agreement.budgets if budget.name == name).tau.like_speed
    return StoredRanking(
        study=study.name,
        networks=len(networks),
        images=images,
        long_images=long,
        tau=tau.value,
        low=tau.low,
        high=tau.high,
    )


def describe_ranking(plan: SearchPlan) -> str:
    """Returns a sentence about how well the proxy of a plan ranks, else the command of the check that tells it."""
    if (found := find_ranking(plan)) is not None:
        return (
            f"the check in study {found.study} ({found.networks} networks): after {found.images:,} images, the proxy "
            f"ranks networks of similar speed like trainings on {found.long_images:,} images with a tau of "
            f"{found.tau:.2f} [{found.low:.2f}, {found.high:.2f}]"
        )
    check = ProxyCheck()
    long_s = (check.networks + check.second_seed) * LONG_FACTOR * plan.cost.training_s
    return (
        "the ranking of the proxy is not known for this space and these images. A check takes about "
        f"{duration(check.networks * plan.cost.training_s + long_s)}: {_check_command(plan)}"
    )


def _check_command(plan: SearchPlan) -> str:
    """Returns the command of a proxy check under the conditions of a plan."""
    config, space = plan.config, plan.setup.space
    defaults = resolve(SearchConfig.of(space=config.space), space)
    names = [f"{section}.{name}" for section, own in config.to_dict().items() if isinstance(own, dict) for name in own]
    given = {
        name: config.value(name)
        for name in names
        if name.startswith(("timing.", "proxy.", "data."))
        and name not in _NOT_OF_A_CHECK
        and config.value(name) != defaults.value(name)
    }
    flags: dict[str, Any] = {
        name: given.pop(name) for name in ("data.source", "timing.device", "proxy.images") if name in given
    }
    words = setting_words({"study.name": f"{space.name}-check", **flags})
    for name, value in given.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words += ("--set", f"{name}={text.lower() if isinstance(value, bool) else text}")
    return command("proxy", "check", *([config.space] if config.space else []), *words)
