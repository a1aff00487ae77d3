"""Cost estimate of a search, from timing and briefly training a few networks."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from hilo_nas.arch.cost import count_macs
from hilo_nas.errors import HiloNasError
from hilo_nas.evaluation import Evaluator, evaluator_or_local, run_task
from hilo_nas.events import (
    CostForeseen,
    DataPrepared,
    DeviceAwaited,
    Emit,
    Event,
    LimitsForeseen,
    Notice,
    TrainingProgressed,
)
from hilo_nas.proxy.kinds import Attempt
from hilo_nas.searching.configuration.resolve import name_baselines, plan_of, reduction_factor_of
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.forecast.limit_forecast import estimate_limits
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
from hilo_nas.study.records import Subject

__all__ = ["Cost", "estimate_cost", "estimate_search", "feasible_share", "try_networks"]

_NETWORKS = 3
_RECORD_BYTES = 12_000
_NOTICE_AFTER_S = 45.0
"""Seconds without an estimate after which a dry run reports what it is doing."""
_CONFIRMED_NETWORKS = 5
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
    confirmed: int = _CONFIRMED_NETWORKS


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
            evaluator, Path(logs), purpose="a dry run", idle_timeout_s=config.study.idle_timeout_s
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


def feasible_share(estimated: LimitsForeseen | None) -> float:
    """Returns the estimated share of networks that meet the limits and are trained, from 0 to 1.

    It is the midpoint of the interval in `estimated`, or 1 if that is None.
    """
    return 1.0 if estimated is None else (estimated.share_low + estimated.share_high) / 2


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
        config: Configuration of the search; only its timeout and number of confirmation seeds are read.
        setup: Setup of the study.
        evaluator: Times and trains the networks.
        emit: Receives the events of the workers and the first estimate.
        trials: Number of networks still to be measured.
        set_up_s: Seconds before the first trial.
        reduction_factor: Reduction factor of successive halving; None if all networks are trained fully.
        baselines: Baselines still to be tried. Each one is tried here, because baselines differ more than networks of a
            space.
    """
    begun = time.monotonic()
    # Underestimates slightly: the first networks meet few others at a rung and are promoted more often.
    trained = expected_training_share(setup.plan.budgets, reduction_factor)
    first, *others = subjects = _draw_networks(setup)
    tried = try_networks(evaluator, setup, [first], emit)
    if tried:
        work = [_macs(subject, setup) for subject in subjects]
        (timing, training), growth = tried[0], statistics.fmean(work) / max(work[0], 1)
        total_s = set_up_s + trials * (timing + trained * growth * training)
        emit(CostForeseen(trials=trials, total_s=total_s, seconds=time.monotonic() - begun, tried=1))
    trained *= feasible_share(estimate_limits(setup, evaluator, emit))
    tried += try_networks(evaluator, setup, others, emit)
    if not tried:
        raise HiloNasError("none of the sampled networks could be timed and trained. See the warnings above.")
    timings, trainings = zip(*tried, strict=True)
    subjects = [Subject(timm=baseline.removeprefix("timm:")) for baseline in baselines]
    baselines_s = sum(map(sum, try_networks(evaluator, setup, subjects, emit)))
    each = [sum(seconds) for seconds in tried]
    trial_s = statistics.fmean(timings) + trained * statistics.fmean(trainings)
    fits = None
    if config.search.timeout_s is not None:
        fits = min(trials, max(0, int((config.search.timeout_s - set_up_s - baselines_s) / trial_s)))
    pixels = setup.data.n_images * 3 * setup.plan.img_size**2
    return Cost(
        networks=len(each),
        set_up_s=set_up_s,
        timing_s=statistics.median(timings),
        training_s=statistics.median(trainings),
        trial_s=(min(each), max(each)),
        trials=trials,
        baselines=len(baselines),
        baselines_s=baselines_s,
        total_s=set_up_s + baselines_s + trials * trial_s,
        trials_by_timeout=fits,
        disk_mib=(pixels + trials * _RECORD_BYTES) / 2**20,
        confirmation_s=_CONFIRMED_NETWORKS * config.proxy.confirm * statistics.fmean(trainings)
        if config.proxy.confirm
        else None,
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


def _draw_networks(setup: StudySetup) -> list[Subject]:
    """Returns a few networks of the space, the smallest first, including an anchor if there is one.

    With copied timings, the networks come from the study with the timings.
    """
    if setup.timed is not None:
        return [record.subject for record in setup.timed if record.subject.arch is not None][:_NETWORKS]
    random, space = Random(0), setup.space
    subjects = [Subject(arch=anchor.arch) for anchor in space.anchors[:1]]
    subjects += [Subject(arch=space.decode(space.sample(random))) for _ in range(_NETWORKS - len(subjects))]
    return sorted(subjects, key=lambda subject: _macs(subject, setup))


def _macs(subject: Subject, setup: StudySetup) -> int:
    """Returns the multiply-adds of a network at the size of the training images."""
    assert subject.arch is not None
    return count_macs(subject.arch, setup.plan.img_size, num_classes=setup.data.num_classes)


def try_networks(
    evaluator: Evaluator, setup: StudySetup, subjects: Sequence[Subject], emit: Emit
) -> list[tuple[float, float]]:
    """Returns the seconds of timing and of a full training for each network.

    Networks that fail are left out with a warning.
    """
    tried = []
    for subject in subjects:
        try:
            begun = time.monotonic()
            for condition in setup.conditions if setup.timed is None else ():
                run_task(evaluator, setup.tasks.time([subject], condition), emit)
            timed = time.monotonic() - begun
            tried.append((timed, _training_seconds(evaluator, subject, setup, emit)))
        except HiloNasError as error:
            name = "one network" if subject.arch else subject.key
            emit(Notice(level="warning", text=f"{name} could not be timed and trained: {error}"))
    return tried


def _training_seconds(evaluator: Evaluator, subject: Subject, setup: StudySetup, emit: Emit) -> float:
    """Returns the estimated seconds of scoring a network with the full budget."""
    plan = setup.plan

    def attempt(images: int) -> Attempt:
        seen: list[tuple[int, float]] = []

        def watch(event: Event) -> None:
            if isinstance(event, TrainingProgressed):
                seen.append((event.images_seen, time.monotonic()))
            emit(event)

        short = dataclasses.replace(plan, images=images, rungs=())
        score = run_task(evaluator, setup.tasks.score(subject, 0, plan=short), watch).score
        return Attempt(seconds=score.seconds, progress=tuple(seen))

    return plan.declaration.estimate_seconds(plan.budgets[-1], plan.batch_size, attempt)
