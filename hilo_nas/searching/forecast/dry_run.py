"""Cost estimate of a search, from timing and briefly training a few networks."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hilo_nas.errors import HiloNasError
from hilo_nas.evaluation import Evaluator, evaluator_or_local
from hilo_nas.events import (
    CostForeseen,
    DataPrepared,
    DeviceAwaited,
    Emit,
    Event,
    Notice,
    TrainingProgressed,
)
from hilo_nas.measurement import ProxyPlan, devices_of
from hilo_nas.searching.configuration.resolve import (
    DEFAULT_SAMPLER,
    cluster_of,
    name_baselines,
    plan_of,
    reduction_factor_of,
)
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.forecast.limit_forecast import LimitSample, estimate_limits
from hilo_nas.searching.forecast.tried_networks import (
    TriedNetwork,
    count_training_macs,
    draw_subjects,
    try_networks,
)
from hilo_nas.searching.halving.rungs import expected_training_share
from hilo_nas.searching.opening.baselines import check_baselines, due_baselines
from hilo_nas.searching.opening.resume import reopen
from hilo_nas.searching.opening.study_setup import (
    StudySetup,
    check_scoring,
    find_study,
    requested_total,
    requested_trials,
    set_up_study,
)
from hilo_nas.study.manifest import DataIdentity
from hilo_nas.study.records import Subject

__all__ = ["CONFIRMED_NETWORKS", "Cost", "CostSample", "build_cost", "estimate_cost", "estimate_search", "sample_costs"]

_NETWORKS = 3
_RECORD_BYTES = 12_000
_NOTICE_AFTER_S = 45.0
"""Seconds without an estimate after which a dry run reports what it is doing."""
CONFIRMED_NETWORKS = 5
"""Number of networks in the cost of a confirmation. The size of the final front is unknown before the search."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Estimated time and disk space of a search. Single trials cost more or less, depending on the network."""

    networks: int
    """Number of networks that were timed and briefly trained for the estimate."""
    set_up_s: float
    """Seconds before the first trial: device, data, reference."""
    timing_s: float
    """Median seconds of timing per trial."""
    training_s: float
    """Median seconds of a full training."""
    trial_s: tuple[float, float]
    """Lowest and highest seconds per trial among the networks tried."""
    trials: int
    baselines: int
    """Number of baselines, which are timed and fully trained in addition to the trials."""
    baselines_s: float
    """Total seconds of the baselines that could be tried."""
    total_s: float
    """Seconds of the whole search, including baselines."""
    trials_by_timeout: int | None
    """Number of trials that fit into the timeout; None without a timeout."""
    disk_mib: float
    """Disk space of image cache and study in MiB."""
    confirmation_s: float | None = None
    """Seconds of training `confirmed` networks with additional seeds, not included in `total_s`; None without
    confirmation."""
    confirmed: int = CONFIRMED_NETWORKS


def estimate_cost(config: SearchConfig, emit: Emit, *, evaluator: Evaluator | None = None) -> Cost:
    """Returns the estimated cost of a new search or of the continuation of a stored one.

    Does not create or change a study, but fills the image cache.

    Args:
        config: Configuration of the search.
        emit: Receives all events.
        evaluator: Measures and trains networks; workers on this machine if left out.

    Raises:
        HiloNasError: Any error that the search itself would raise.
    """
    space, folder = find_study(config)
    start = time.monotonic()
    emit = _WaitNotifier(emit, start)
    with (
        tempfile.TemporaryDirectory() as logs,
        evaluator_or_local(
            evaluator,
            Path(logs),
            purpose="a dry run",
            idle_timeout_s=config.study.idle_timeout_s,
            cluster=cluster_of(config),
        ) as evaluator,
    ):
        config = name_baselines(config, space, folder)
        check_baselines(config.search.baselines, config.study.speeds, folder, evaluator, emit)
        if folder.exists:
            manifest = folder.manifest
            check_scoring(config, manifest.plan)
            setup = reopen(config, folder, manifest, space, evaluator, emit)
            measured = sum(record.is_measured for record in folder.records)
            trials = max(requested_total(config, manifest.trials, measured) - measured, 0)
            reduction_factor = manifest.reduction_factor
        else:
            assert space is not None
            check_scoring(config, plan_of(config, space))
            setup = set_up_study(config, space, evaluator, emit)
            trials, reduction_factor = requested_trials(config, space), reduction_factor_of(config)
        return estimate_search(
            config,
            setup,
            evaluator,
            emit,
            trials=trials,
            set_up_s=time.monotonic() - start,
            reduction_factor=reduction_factor,
            baselines=due_baselines(config.search.baselines, folder),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostSample:
    """Estimated costs of a few networks of a study, from timing and briefly training them."""

    networks: tuple[TriedNetwork, ...]
    baselines: tuple[TriedNetwork, ...]
    limits: LimitSample | None
    """Sample for the limits; None if no limit needs a measurement."""
    knows_limits: bool
    """True if only networks that meet the limits, or are expected to, are proposed."""
    at_once: int = 1
    """Number of trials that run at the same time, one per device."""

    @property
    def trained_share(self) -> float:
        """Estimated share of trials that meet the limits and are trained, from 0 to 1."""
        return 1.0 if self.limits is None or self.knows_limits else self.limits.share

    @property
    def timing_s(self) -> float:
        """Mean seconds of timing a network."""
        return statistics.fmean(network.timing_s for network in self.networks)

    @property
    def training_s(self) -> float:
        """Mean seconds of a training with the full budget."""
        return statistics.fmean(network.training_s for network in self.networks)

    @property
    def per_image_s(self) -> float:
        """Mean seconds of `training_s` per training image."""
        return statistics.fmean(network.per_image_s for network in self.networks)

    @property
    def baselines_s(self) -> float:
        """Seconds of all baselines that could be tried."""
        return sum(network.seconds for network in self.baselines)

    def trial_s(self, training_share: float) -> float:
        """Returns the mean seconds per trial on its device.

        Args:
            training_share: Expected training cost of a network as a share of a full training.
        """
        return self.timing_s + self.trained_share * training_share * self.training_s

    def with_budget(self, images: int, before: int) -> CostSample:
        """Returns the costs with another full budget.

        Args:
            images: Training images of the new budget.
            before: Training images of the present budget.
        """

        def change(tried: Sequence[TriedNetwork]) -> tuple[TriedNetwork, ...]:
            return tuple(
                dataclasses.replace(one, training_s=one.training_s + one.per_image_s * (images - before))
                for one in tried
            )

        return dataclasses.replace(self, networks=change(self.networks), baselines=change(self.baselines))


def sample_costs(
    setup: StudySetup,
    evaluator: Evaluator,
    emit: Emit,
    *,
    sampler: str | None = None,
    baselines: Sequence[str] = (),
    on_first: Callable[[TriedNetwork, float], None] = lambda network, growth: None,
) -> CostSample:
    """Returns the costs of a few networks, the smallest first. With limits, the others are networks that meet them.

    Args:
        setup: Setup of the study.
        evaluator: Times and trains the networks.
        emit: Receives the events of the workers.
        sampler: Name of the sampler; None for the default.
        baselines: Baselines still to be tried. Each one is tried here, because baselines differ more than networks of a
            space.
        on_first: Receives the first network tried, and the ratio of the mean multiply-adds of all selected networks to
            those of this one.

    Raises:
        HiloNasError: No network could be timed and trained.
    """
    first, *others = subjects = draw_subjects(setup, _NETWORKS)
    tried = try_networks(evaluator, setup, [first], emit)
    if tried:
        work = [count_training_macs(subject, setup) for subject in subjects]
        on_first(tried[0], statistics.fmean(work) / max(work[0], 1))
    limits = estimate_limits(setup, evaluator, emit)
    if limits is not None and limits.feasible:
        others = [subject for subject in limits.feasible if subject.key != first.key][: len(others)]
    tried += try_networks(evaluator, setup, others, emit)
    if not tried:
        raise HiloNasError("none of the sampled networks could be timed and trained. See the warnings above.")
    subjects = [Subject(timm=baseline.removeprefix("timm:")) for baseline in baselines]
    return CostSample(
        networks=tuple(tried),
        baselines=tuple(try_networks(evaluator, setup, subjects, emit)),
        limits=limits,
        knows_limits=setup.timed is not None or (sampler or DEFAULT_SAMPLER) == DEFAULT_SAMPLER,
        at_once=len(devices_of(setup.resources.target)),
    )


def estimate_search(
    config: SearchConfig,
    setup: StudySetup,
    evaluator: Evaluator,
    emit: Emit,
    *,
    trials: int,
    set_up_s: float,
    reduction_factor: float | None,
    baselines: Sequence[str] = (),
) -> Cost:
    """Returns the estimated cost of a search, from a few networks of its space that are tried briefly.

    The smallest network is tried first and gives a first estimate (`CostForeseen`). The limits are checked next
    (`LimitsForeseen`), then the other networks are tried.

    Args:
        config: Configuration of the search; only its sampler, timeout and number of confirmation seeds are read.
        setup: Setup of the study.
        evaluator: Times and trains the networks.
        emit: Receives the events of the workers and the first estimate.
        trials: Number of networks still to be measured.
        set_up_s: Seconds before the first trial.
        reduction_factor: Reduction factor of successive halving; None if all networks are trained fully.
        baselines: Baselines still to be tried.
    """
    begun = time.monotonic()
    trained = expected_training_share(setup.plan.budgets, reduction_factor)

    def foresee(network: TriedNetwork, growth: float) -> None:
        trial_s = network.timing_s + trained * growth * network.training_s
        total_s = set_up_s + trials * trial_s / len(devices_of(setup.resources.target))
        emit(CostForeseen(trials=trials, total_s=total_s, seconds=time.monotonic() - begun, tried=1))

    sample = sample_costs(setup, evaluator, emit, sampler=config.search.sampler, baselines=baselines, on_first=foresee)
    return build_cost(
        sample, config, setup.plan, setup.data, trials=trials, set_up_s=set_up_s, reduction_factor=reduction_factor
    )


def build_cost(
    sample: CostSample,
    config: SearchConfig,
    plan: ProxyPlan,
    data: DataIdentity,
    *,
    trials: int,
    set_up_s: float,
    reduction_factor: float | None,
) -> Cost:
    """Returns the estimated cost of a search from the costs of a few networks.

    Args:
        sample: Costs of the networks, with the budget of `plan`.
        config: Configuration of the search; only its timeout and number of confirmation seeds are read.
        plan: Plan of the proxy.
        data: Images of the study.
        trials: Number of networks still to be measured.
        set_up_s: Seconds before the first trial.
        reduction_factor: Reduction factor of successive halving; None if all networks are trained fully.
    """
    # Underestimates slightly: the first networks meet few others at a rung and are promoted more often.
    trial_s = sample.trial_s(expected_training_share(plan.budgets, reduction_factor))
    fits = None
    if config.search.timeout_s is not None:
        left_s = sample.at_once * (config.search.timeout_s - set_up_s) - sample.baselines_s
        fits = min(trials, max(0, int(left_s / trial_s)))
    pixels, each = data.n_images * 3 * plan.img_size**2, [network.seconds for network in sample.networks]
    confirm = config.proxy.confirm
    return Cost(
        networks=len(each),
        set_up_s=set_up_s,
        timing_s=statistics.median(network.timing_s for network in sample.networks),
        training_s=statistics.median(network.training_s for network in sample.networks),
        trial_s=(min(each), max(each)),
        trials=trials,
        baselines=len(sample.baselines),
        baselines_s=sample.baselines_s,
        total_s=set_up_s + (sample.baselines_s + trials * trial_s) / sample.at_once,
        trials_by_timeout=fits,
        disk_mib=(pixels + trials * _RECORD_BYTES) / 2**20,
        confirmation_s=CONFIRMED_NETWORKS * confirm * sample.training_s / sample.at_once if confirm else None,
    )


class _WaitNotifier:
    """Passes on the events of a dry run. After 45 seconds without an estimate, reports once what the dry run is doing.

    Args:
        emit: Receives the events.
        since: Start of the dry run by `time.monotonic`.
    """

    def __init__(self, emit: Emit, since: float) -> None:
        self._emit = emit
        self._since = since
        self._is_due = True

    def __call__(self, event: Event) -> None:
        """Passes an event on."""
        self._emit(event)
        if isinstance(event, CostForeseen):
            self._is_due = False
        elif self._is_due and (waited := time.monotonic() - self._since) > _NOTICE_AFTER_S:
            self._is_due = False
            self._emit(Notice(text=f"no estimate yet after {waited:.0f} s: {_describe_activity(event, waited)}"))


def _describe_activity(event: Event, waited_s: float) -> str:
    """Returns a description of the current activity, with the remaining time if the event gives it."""
    if isinstance(event, DataPrepared):
        text = f"{event.done:,} images are decoded"
        if event.total and event.done:
            return f"{text} of {event.total:,}, about {waited_s * (event.total / event.done - 1):.0f} s left"
        return text
    if isinstance(event, TrainingProgressed):
        return f"the first network is trained briefly, {event.images_seen:,} images so far"
    if isinstance(event, DeviceAwaited):
        return f"another process holds {event.device}"
    return "the first network is timed, then trained briefly"
