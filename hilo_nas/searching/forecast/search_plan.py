"""Proposal of a complete search configuration for a given time, from brief runs of a few networks."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from hilo_nas.errors import NotFoundError, UsageError
from hilo_nas.evaluation import Evaluator, evaluator_or_local
from hilo_nas.events import Emit
from hilo_nas.proxy.kinds import DEFAULT_PROXY, Proxy, proxy_named
from hilo_nas.searching.configuration.resolve import (
    DEFAULT_SPACE,
    cluster_of,
    defaults_of,
    name_baselines,
    plan_of,
    reduction_factor_of,
    resolve,
)
from hilo_nas.searching.configuration.rung_budgets import DEFAULT_RATIO
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.forecast.budget_choice import MOST_PASSES, GivenBudget, SearchCosts, choose_budget
from hilo_nas.searching.forecast.dry_run import CONFIRMED_NETWORKS, Cost, CostSample, build_cost, sample_costs
from hilo_nas.searching.opening.baselines import check_baselines, due_baselines
from hilo_nas.searching.opening.study_setup import (
    DEFAULT_DATA,
    StudySetup,
    check_scoring,
    find_study,
    set_up_study,
)
from hilo_nas.space import SearchSpace, load_space
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.text.commands import command
from hilo_nas.text.durations import duration
from hilo_nas.text.plurals import count_of

__all__ = ["SearchPlan", "choose_space", "fit_search", "plan_search"]

_SPACES = ((64, "litv2_cifar"), (None, "litv2_imagenet"))
"""Shipped space by the largest image size in pixels that it is proposed for."""
_PROXY_IMG_SIZE = 128
"""Largest image size of the proposed trainings in pixels, as in the shipped spaces for larger images."""
_SPARE = 0.1
"""Share of the time that is kept for the end of a search and for networks slower than expected."""
_MOST_HOURS = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """Proposed search."""

    config: SearchConfig
    """Complete configuration, with `search.timeout_s` set to the given time."""
    setup: StudySetup
    """Device, images and calibrations that the proposal was made with."""
    cost: Cost
    """Estimated cost of the search."""
    reasons: tuple[str, ...]
    """One sentence per choice."""


def choose_space(img_size: int) -> str:
    """Returns the shipped space for images of a given size in pixels."""
    return next(name for largest, name in _SPACES if largest is None or img_size <= largest)


def plan_search(config: SearchConfig, hours: float, emit: Emit, *, evaluator: Evaluator | None = None) -> SearchPlan:
    """Returns a proposed configuration for a new search of a given duration.

    Reads the data, calibrates the reference, and times and briefly trains a few networks. Settings in `config` are
    kept. Does not create a study, but fills the image cache.

    Args:
        config: Settings that are given. Without a space, `timing.img_size` must be set.
        hours: Time for the search.
        emit: Receives all events.
        evaluator: Measures and trains networks; workers on this machine if left out.

    Raises:
        UsageError: The time is too short, the study exists, or a setting is invalid.
        HiloNasError: Any error that the search itself would raise.
    """
    _check_hours(hours)
    config, reasons = _choose_sizes(config)
    space, study = find_study(config)
    if study.exists:
        raise UsageError(
            f"a plan is for a new study, but study {study.name} exists. Name another one with --study, or resume it: "
            f"{command('search', '--study', study.address)}"
        )
    if not _proxy_of(config).gives_scores:
        raise UsageError(
            f"a plan needs a proxy that scores networks, but got {config.proxy.name}. To time networks, use: "
            f"{command('search', '--proxy', config.proxy.name or '')} --trials N"
        )
    if config.study.reuse is not None:
        raise UsageError(
            "a plan cannot choose a budget with study.reuse, because scores are only comparable at the budget of "
            f"{config.study.reuse}. Leave it out, or search without a plan."
        )
    assert space is not None
    return _plan(config, space, study, reasons, seconds=3600.0 * hours, emit=emit, evaluator=evaluator)


def fit_search(
    config: SearchConfig, hours: float, emit: Emit, *, evaluator: Evaluator | None = None
) -> tuple[SearchConfig, SearchPlan | None]:
    """Returns the configuration of a search that ends after a given time, and its plan.

    A new study is planned if its proxy scores networks and its budget or its number of trials is left out. Otherwise,
    only the timeout is set, and there is no plan. The time includes the planning.

    Args:
        config: Configuration of the search.
        hours: Time for the search.
        emit: Receives all events.
        evaluator: Measures and trains networks; workers on this machine if left out.

    Raises:
        UsageError: The time is too short, or a setting is invalid.
        HiloNasError: Any error that the search itself would raise.
    """
    _check_hours(hours)
    start, seconds = time.monotonic(), 3600.0 * hours
    timed = config.replace({"search.timeout_s": seconds})
    if not _is_left_out(config) or _is_stored(config):
        return timed, None
    config, reasons = _choose_sizes(config)
    space, study = find_study(config)
    if study.exists:
        return dataclasses.replace(timed, space=config.space), None
    assert space is not None
    plan = _plan(config, space, study, reasons, seconds=seconds, emit=emit, evaluator=evaluator, includes_planning=True)
    return plan.config.replace({"search.timeout_s": seconds - (time.monotonic() - start)}), plan


def _check_hours(hours: float) -> None:
    if not 0 < hours < _MOST_HOURS:
        raise UsageError(f"hours must be a number above 0 and below {_MOST_HOURS:,}, but got {hours:g}")


def _proxy_of(config: SearchConfig) -> Proxy:
    return proxy_named(config.proxy.name or DEFAULT_PROXY.name)


def _is_left_out(config: SearchConfig) -> bool:
    """Returns True if a plan has something to choose for a new study."""
    if not _proxy_of(config).gives_scores or config.study.reuse is not None or config.search.networks:
        return False
    needs_budget = _proxy_of(config).has_rungs and config.proxy.images is None
    return needs_budget or (config.search.trials is None and config.search.until_trials is None)


def _is_stored(config: SearchConfig) -> bool:
    """Returns True if a configuration names a stored study, without a choice of its space."""
    if config.space is None and config.study.name is None and config.timing.img_size is not None:
        return False
    try:
        return find_study(config)[1].exists
    except NotFoundError:
        return False


def _choose_sizes(config: SearchConfig) -> tuple[SearchConfig, list[str]]:
    """Returns the configuration with a space and image sizes for a new study, and a sentence per choice.

    Raises:
        NotFoundError: The study does not exist, and no setting asks for a new one.
        UsageError: There is neither a space nor an image size to choose one.
    """
    img_size = config.timing.img_size
    if config.space is None and config.study.name is not None and config.data.source is None and img_size is None:
        find_study(config)  # raises if the name is probably mistyped
    reasons, changes = [], {}
    if config.space is None and config.study.speeds is None and config.study.reuse is None:
        if img_size is None and config.data.source not in (None, DEFAULT_DATA):
            raise UsageError(
                "the size of the images in deployment must be given, but was not. Set --img-size, or name a space, "
                "whose default is used."
            )
        name = DEFAULT_SPACE if img_size is None else choose_space(img_size)
        config = dataclasses.replace(config, space=name)
        reasons.append(f"space {name}, made for images of {load_space(name).defaults['img_size']} pixels")
    if (
        img_size is not None
        and config.proxy.img_size is None
        and "proxy.img_size" not in _proxy_of(config).unused_options
    ):
        changes["proxy.img_size"] = min(img_size, _PROXY_IMG_SIZE)
        smaller = ", smaller than in deployment to save time" if img_size > _PROXY_IMG_SIZE else ", as in deployment"
        reasons.append(f"training images of {changes['proxy.img_size']} pixels{smaller}")
    return config.replace(changes), reasons


def _plan(
    config: SearchConfig,
    space: SearchSpace,
    study: StoredStudy,
    reasons: list[str],
    *,
    seconds: float,
    emit: Emit,
    evaluator: Evaluator | None,
    includes_planning: bool = False,
) -> SearchPlan:
    """Returns the plan of a new study. `includes_planning` is True if the planning takes part of the time."""
    check_scoring(config, plan_of(config, space))
    config = name_baselines(config, space, study)
    start = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as logs,
        evaluator_or_local(
            evaluator,
            Path(logs),
            purpose="a plan",
            idle_timeout_s=config.study.idle_timeout_s,
            cluster=cluster_of(config),
        ) as evaluator,
    ):
        check_baselines(config.search.baselines, config.study.speeds, study, evaluator, emit)
        setup = set_up_study(config, space, evaluator, emit)
        set_up_s = time.monotonic() - start
        sample = sample_costs(
            setup,
            evaluator,
            emit,
            sampler=config.search.sampler,
            baselines=due_baselines(config.search.baselines, study),
        )
    spent_s = time.monotonic() - start if includes_planning else 0.0
    if sample.limits is not None:  # the search checks the limits again
        set_up_s = time.monotonic() - start
    if spent_s >= seconds:
        raise UsageError(f"the planning took {duration(spent_s)}, all of the given time. Use more hours.")
    chosen, sample, said = _choose_budget(config, setup, sample, (1 - _SPARE) * seconds - spent_s - set_up_s)
    full = resolve(chosen.replace({"search.timeout_s": seconds}), space)
    if config.study.speeds is not None:  # the study with the timings defines their conditions
        full = dataclasses.replace(full, timing=chosen.timing)
    cost = build_cost(
        sample,
        full,
        plan_of(chosen, space),
        setup.data,
        trials=full.search.until_trials or full.search.trials or 0,
        set_up_s=set_up_s,
        reduction_factor=reduction_factor_of(full),
    )
    return SearchPlan(config=full, setup=setup, cost=cost, reasons=(*reasons, *said))


def _choose_budget(
    config: SearchConfig, setup: StudySetup, sample: CostSample, seconds: float
) -> tuple[SearchConfig, CostSample, list[str]]:
    """Returns the configuration with trials and budget, the costs with this budget, and a sentence per choice."""
    plan, before = setup.plan, setup.plan.budgets[-1]
    trains, confirmed = plan.declaration.has_rungs, CONFIRMED_NETWORKS * (config.proxy.confirm or 0)
    fixed_s = sample.training_s - sample.per_image_s * before
    held_out = (setup.data.n_scored or 0) if setup.data.val_name is None else 0
    images = max(setup.data.n_images - held_out, 1)
    found = choose_budget(
        SearchCosts(
            timing_s=sample.timing_s,
            trained_share=sample.trained_share,
            fixed_s=fixed_s,
            per_image_s=sample.per_image_s,
            extra_s=sum(one.seconds - one.per_image_s * before for one in sample.baselines) + confirmed * fixed_s,
            extra_per_image_s=sum(one.per_image_s for one in sample.baselines) + confirmed * sample.per_image_s,
        ).on_devices(sample.at_once),
        GivenBudget(
            trials=config.search.until_trials or config.search.trials,
            images=config.proxy.images if trains else before,
            rungs=config.proxy.rungs if trains else 1,
        ),
        seconds=seconds,
        batch_size=plan.batch_size,
        ratio=config.proxy.rung_ratio or DEFAULT_RATIO,
        reduction_factor=reduction_factor_of(config) if trains else None,
        most_images=min(defaults_of(config, setup.space)["proxy.images"], MOST_PASSES * images),
        most_trials=_count_networks(setup, sample),
    )
    reasons = [] if sample.limits is None else [sample.limits.sentence]
    changes: dict[str, Any] = {}
    if config.search.until_trials is None and config.search.trials is None:
        changes["search.until_trials"] = found.trials
    if not trains:
        if plan.declaration.has_budget and config.proxy.images is None:
            reasons.append(f"{before:,} images per network, a default: only the budget of trainings is planned")
        return config.replace(changes), sample, reasons
    if config.proxy.images is None:
        changes["proxy.images"] = found.images
    if config.proxy.rungs is None:
        changes["proxy.rungs"] = found.rungs
    reasons.append(
        f"{found.trials} networks at up to {found.images:,} training images ({found.images / images:.2g} passes over "
        f"{images:,}), with up to {count_of(found.rungs, 'score')} per training"
    )
    return config.replace(changes), sample.with_budget(found.images, before), reasons


def _count_networks(setup: StudySetup, sample: CostSample) -> int:
    """Returns the number of networks that a search can try, an upper bound."""
    if setup.timed is None:
        return setup.space.n_configs
    if sample.limits is not None:
        return max(len(sample.limits.feasible), 1)
    return max(sum(not record.is_baseline for record in setup.timed), 1)
