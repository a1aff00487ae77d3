"""What stored proxy checks tell about a planned search."""

from __future__ import annotations

import dataclasses

from hilo_nas.bench.proxy_check.agreement import agree
from hilo_nas.bench.proxy_check.proxy_check import (
    LONG_FACTOR,
    LONG_SEED,
    PROXY_SEED,
    ProxyCheck,
    to_checked_network,
)
from hilo_nas.errors import HiloNasError
from hilo_nas.searching import SearchPlan
from hilo_nas.study.stored_study import StoredStudy, list_studies
from hilo_nas.text.commands import command, setting_words
from hilo_nas.text.durations import duration

__all__ = ["StoredRanking", "describe_ranking", "find_ranking"]

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

    A check counts if it has the space, the images, the image size and the metric of the plan. Studies that cannot be
    read are skipped. Returns None if there is no such check.
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
    same = ("img_size", "batch_size", "metric", "recipe")
    if (manifest.space.hash(), manifest.data.hash) != (setup.space.hash(), setup.data.hash) or any(
        getattr(manifest.plan, name) != getattr(setup.plan, name) for name in same
    ):
        return None
    records = study.records
    long = max((s.images_seen for r in records for s in r.scores if s.seed == LONG_SEED), default=0)
    budgets = {s.images_seen for r in records for s in r.scores if s.seed == PROXY_SEED}
    within = [images for images in budgets if images <= min(plan.config.proxy.images or 0, long - 1)]
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
    config, check = plan.config, ProxyCheck()
    names = ("data.source", "timing.device", "timing.img_size", "proxy.images", "proxy.img_size")
    settings = {name: value for name in names if (value := config.value(name)) is not None}
    flags = setting_words({"study.name": f"{plan.setup.space.name}-check", **settings})
    long_s = (check.networks + check.second_seed) * LONG_FACTOR * plan.cost.training_s
    return (
        "how well the proxy ranks is not known for this space and these images. In about "
        f"{duration(check.networks * plan.cost.training_s + long_s)}, this tells: "
        f"{command('proxy', 'check', *([config.space] if config.space else []), *flags)}"
    )
