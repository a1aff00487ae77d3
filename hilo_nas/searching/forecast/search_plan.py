"""Proposal of a complete search configuration for a given time, from brief runs of a few networks."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from pathlib import Path

from hilo_nas.errors import NotFoundError, UsageError
from hilo_nas.evaluation import Evaluator, evaluator_or_local
from hilo_nas.events import Emit
from hilo_nas.proxy.kinds import DEFAULT_PROXY, proxy_named
from hilo_nas.searching.configuration.resolve import (
    DEFAULT_SPACE,
    defaults_of,
    plan_of,
    reduction_factor_of,
    resolve,
)
from hilo_nas.searching.configuration.rung_budgets import DEFAULT_RATIO
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.forecast.budget_choice import MOST_PASSES, TrialCost, choose_budget
from hilo_nas.searching.forecast.dry_run import Cost, CostSample, build_cost, sample_costs
from hilo_nas.searching.opening.baselines import check_baselines, due_baselines
from hilo_nas.searching.opening.study_setup import DEFAULT_DATA, StudySetup, find_study, set_up_study
from hilo_nas.study.stored_study import open_study
from hilo_nas.text.commands import command

__all__ = ["SearchPlan", "choose_space", "is_plannable", "plan_search"]

_SPACES = ((64, "litv2_cifar"), (None, "litv2_imagenet"))
"""Shipped space by the largest image size in pixels that it is proposed for."""
_PROXY_IMG_SIZE = 128
"""Largest image size of the proposed trainings in pixels, as in the shipped spaces for larger images."""
_SPARE = 0.1
"""Share of the time that is kept for the end of a search and for networks slower than expected."""


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
    if not 0 < hours < 10_000:
        raise UsageError(f"hours must be a number above 0, but got {hours:g}")
    if not proxy_named(config.proxy.name or DEFAULT_PROXY.name).gives_scores:
        raise UsageError(
            f"a plan needs a proxy, but got proxy {config.proxy.name}. Time networks with: hilo-nas search "
            f"--proxy {config.proxy.name} --trials N"
        )
    if config.study.name is not None:
        with contextlib.suppress(NotFoundError):
            resume = command("search", "--study", open_study(config.study.name).address)
            raise UsageError(
                f"a plan is for a new study, but study {config.study.name} exists. Resume it: {resume} --hours "
                f"{hours:g}"
            )
    config, reasons = _choose_sizes(config)
    space, study = find_study(config)
    assert space is not None
    start = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as logs,
        evaluator_or_local(
            evaluator, Path(logs), purpose="a plan", idle_timeout_s=config.study.idle_timeout_s
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
    chosen, sample, said = _choose_budget(config, setup, sample, (1 - _SPARE) * 3600 * hours - set_up_s)
    config = resolve(chosen.replace({"search.timeout_s": 3600.0 * hours}), space)
    cost = build_cost(
        sample,
        config,
        plan_of(chosen, space),
        setup.data,
        trials=config.search.until_trials or config.search.trials or 0,
        set_up_s=set_up_s,
        reduction_factor=reduction_factor_of(config),
    )
    return SearchPlan(config=config, setup=setup, cost=cost, reasons=(*reasons, *said))


def is_plannable(config: SearchConfig) -> bool:
    """Returns True if a configuration is for a new study and leaves out the budget or the number of trials.

    Raises:
        UsageError: Without a space, the configuration has no image size to choose one.
    """
    if not proxy_named(config.proxy.name or DEFAULT_PROXY.name).gives_scores:
        return False
    search = config.search
    if config.proxy.images is not None and (search.trials is not None or search.until_trials is not None):
        return False
    if config.study.name is not None and config.space is None:
        with contextlib.suppress(NotFoundError):
            return not open_study(config.study.name).exists
    return not find_study(_choose_sizes(config)[0])[1].exists


def _choose_sizes(config: SearchConfig) -> tuple[SearchConfig, list[str]]:
    """Returns the configuration with a space and image sizes, and a sentence per choice."""
    reasons, changes = [], {}
    img_size, source = config.timing.img_size, config.study.speeds or config.study.reuse
    if config.space is None and source is None:
        if img_size is None and config.data.source not in (None, DEFAULT_DATA):
            raise UsageError(
                "a plan needs the size of the images in deployment, but got none. Set --img-size, or name a space, "
                "whose default is used."
            )
        name = DEFAULT_SPACE if img_size is None else choose_space(img_size)
        config = dataclasses.replace(config, space=name)
        fit = "scikit-learn's digits" if img_size is None else f"images of {img_size} pixels"
        reasons.append(f"space {name}: the shipped space for {fit}")
    if img_size is not None and config.proxy.img_size is None:
        changes["proxy.img_size"] = min(img_size, _PROXY_IMG_SIZE)
        smaller = ", smaller than in deployment to save time" if img_size > _PROXY_IMG_SIZE else ", as in deployment"
        reasons.append(f"training images of {changes['proxy.img_size']} pixels{smaller}")
    return config.replace(changes), reasons


def _choose_budget(
    config: SearchConfig, setup: StudySetup, sample: CostSample, seconds: float
) -> tuple[SearchConfig, CostSample, list[str]]:
    """Returns the configuration with trials and budget, the costs with this budget, and a sentence per choice."""
    plan, defaults = setup.plan, defaults_of(config, setup.space)
    trains = plan.declaration.has_rungs
    held_out = (setup.data.n_scored or 0) if setup.data.val_name is None else 0
    images = max(setup.data.n_images - held_out, 1)
    found = choose_budget(
        TrialCost(
            timing_s=sample.timing_s,
            trained_share=sample.trained_share,
            fixed_s=sample.training_s - sample.per_image_s * plan.budgets[-1],
            per_image_s=sample.per_image_s,
        ),
        seconds=seconds - sample.baselines_s,
        batch_size=plan.batch_size,
        ratio=config.proxy.rung_ratio or DEFAULT_RATIO,
        reduction_factor=reduction_factor_of(config) if trains else None,
        most_images=min(defaults["proxy.images"], MOST_PASSES * images),
        trials=config.search.until_trials or config.search.trials,
        images=config.proxy.images if trains else plan.budgets[-1],
        rungs=config.proxy.rungs if trains else 1,
    )
    changes: dict[str, int] = {}
    reasons = []
    if sample.limits is not None:
        event = sample.limits.event
        reasons.append(
            f"{event.keeping} of {event.networks} random networks meet {' and '.join(event.limits)}; only such "
            "networks are trained"
        )
    if config.search.until_trials is None and config.search.trials is None:
        changes["search.until_trials"] = found.trials
    if trains and config.proxy.images is None:
        changes["proxy.images"] = found.images
    if trains and config.proxy.rungs is None:
        changes["proxy.rungs"] = found.rungs
    if trains:
        reasons.append(
            f"{found.trials} networks at {found.images:,} training images each ({found.images / images:.2g} "
            f"passes over {images:,}), scored {found.rungs} times"
        )
        sample = sample.with_budget(found.images, plan.budgets[-1])
    return config.replace(changes), sample, reasons
