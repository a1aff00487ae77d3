"""What a search would cost, found by timing and training a few of its networks for a moment."""

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
from hilo_nas.searching.configuration.resolve import eta_of, plan_of
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.forecast.limit_forecast import foresee_limits
from hilo_nas.searching.halving.rungs import expected_share
from hilo_nas.searching.opening.baselines import check_baselines, due_baselines
from hilo_nas.searching.opening.resume import reopen
from hilo_nas.searching.opening.study_setup import Setting, check_scoring, find_study, set_up, total_asked, trials_asked
from hilo_nas.study.records import Subject

__all__ = ["Cost", "estimate_cost", "price_search", "share_of", "try_networks"]

_NETWORKS = 3
_RECORD_BYTES = 12_000
_PATIENCE_S = 45.0
"""Seconds without an estimate after which a dry run says what it waits for."""
_CONFIRMED = 5
"""Networks that a confirmation is priced for: how many will stand on the front or near it, nobody knows before."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """An estimate from a few of the space's networks; a trial's cost varies with its network."""

    networks: int
    """How many were tried."""
    set_up_s: float
    """Seconds before the first trial: device, data, reference."""
    timing_s: float
    """Seconds of measuring per trial, median."""
    training_s: float
    """Seconds of a whole training, median."""
    trial_s: tuple[float, float]
    """Seconds of the cheapest and the dearest trial seen."""
    trials: int
    peers: int
    """Networks of others that are timed and fully trained beside the trials."""
    peers_s: float
    """Seconds of all of them, those left out that could not be tried."""
    total_s: float
    """Seconds of the whole search, peers included."""
    trials_by_timeout: int | None
    """Trials that fit into the timeout, where one is given."""
    disk_mib: float
    """Image cache and study, in MiB."""
    confirmation_s: float | None = None
    """Seconds of training `confirmed` networks with the further seeds asked for, which comes on top; None without."""
    confirmed: int = _CONFIRMED


def estimate_cost(config: SearchConfig, emit: Emit, *, evaluator: Evaluator | None = None) -> Cost:
    """Returns what a search would cost, as a new study or as more of a stored one.

    Makes and changes no study, but fills the image cache.

    Args:
        config: The search asked for.
        emit: Told of all of it.
        evaluator: Who measures and trains; this machine if left out.

    Raises:
        HiloNasError: As the search itself would.
    """
    space, folder = find_study(config)
    start = time.monotonic()
    emit = _Waiting(emit, start)
    with (
        tempfile.TemporaryDirectory() as logs,
        evaluator_or_local(
            evaluator, Path(logs), purpose="a dry run", idle_timeout_s=config.study.idle_timeout_s
        ) as evaluator,
    ):
        check_baselines(config.search.baselines, config.study.speeds, folder, evaluator, emit)
        if folder.exists:
            manifest = folder.manifest
            check_scoring(config, manifest.plan)
            setting = reopen(config, folder, manifest, space, evaluator, emit)
            measured = sum(record.is_measured for record in folder.records)
            trials = max(total_asked(config, manifest.trials, measured) - measured, 0)
            eta = manifest.eta
        else:
            assert space is not None
            check_scoring(config, plan_of(config, space))
            setting = set_up(config, space, evaluator, emit)
            trials, eta = trials_asked(config, space), eta_of(config)
        return price_search(
            config,
            setting,
            evaluator,
            emit,
            trials=trials,
            set_up_s=time.monotonic() - start,
            eta=eta,
            peers=due_baselines(config.search.baselines, folder),
        )


def share_of(foreseen: LimitsForeseen | None) -> float:
    """Returns the share of networks that keep the limits and so are trained; the middle of what is likely."""
    return 1.0 if foreseen is None else (foreseen.share_low + foreseen.share_high) / 2


def price_search(
    config: SearchConfig,
    setting: Setting,
    evaluator: Evaluator,
    emit: Emit,
    *,
    trials: int,
    set_up_s: float,
    eta: float | None,
    peers: Sequence[str] = (),
) -> Cost:
    """Returns the cost of a search that is set up, from a few of its space's networks tried for a moment.

    The smallest of them comes first, and gives a first estimate (`CostForeseen`) before anything else is tried. Whether
    the limits can be kept is looked at next (`LimitsForeseen`).

    Args:
        config: The search asked for; its timeout is read.
        setting: The study's.
        evaluator: Who tries them.
        emit: Takes the events of the workers and the first estimate.
        trials: Networks still to be measured.
        set_up_s: Seconds before the first trial.
        eta: `Manifest.eta`.
        peers: Those still to be tried; each is, because they differ more than the networks of a space do.
    """
    begun = time.monotonic()
    # As a rule a network is stopped at a rung; the first ones, which meet few others there, continue more often.
    trained = expected_share(setting.plan.budgets, eta)
    first, *others = subjects = _draw_networks(setting)
    tried = try_networks(evaluator, setting, [first], emit)
    if tried:
        work = [_macs(subject, setting) for subject in subjects]
        (timing, training), growth = tried[0], statistics.fmean(work) / max(work[0], 1)
        total_s = set_up_s + trials * (timing + trained * growth * training)
        emit(CostForeseen(trials=trials, total_s=total_s, seconds=time.monotonic() - begun, tried=1))
    trained *= share_of(foresee_limits(setting, evaluator, emit))
    tried += try_networks(evaluator, setting, others, emit)
    if not tried:
        raise HiloNasError("none of the networks tried could be measured and trained: see the warnings above")
    timings, trainings = zip(*tried, strict=True)
    peers_tried = try_networks(evaluator, setting, [Subject(timm=peer.removeprefix("timm:")) for peer in peers], emit)
    peers_s = sum(map(sum, peers_tried))
    each = [sum(seconds) for seconds in tried]
    trial_s = statistics.fmean(timings) + trained * statistics.fmean(trainings)
    fits = None
    if config.search.timeout_s is not None:
        fits = min(trials, max(0, int((config.search.timeout_s - set_up_s - peers_s) / trial_s)))
    pixels = setting.data.n_images * 3 * setting.plan.img_size**2
    return Cost(
        networks=len(each),
        set_up_s=set_up_s,
        timing_s=statistics.median(timings),
        training_s=statistics.median(trainings),
        trial_s=(min(each), max(each)),
        trials=trials,
        peers=len(peers),
        peers_s=peers_s,
        total_s=set_up_s + peers_s + trials * trial_s,
        trials_by_timeout=fits,
        disk_mib=(pixels + trials * _RECORD_BYTES) / 2**20,
        confirmation_s=_CONFIRMED * config.proxy.confirm * statistics.fmean(trainings)
        if config.proxy.confirm
        else None,
    )


class _Waiting:
    """Events of a dry run; after 45 seconds without an estimate, a word on what it waits for.

    Args:
        emit: Takes the events.
        since: `time.monotonic` at the start of the dry run.
    """

    def __init__(self, emit: Emit, since: float) -> None:
        self._emit = emit
        self._since = since
        self._is_due = True

    def __call__(self, event: Event) -> None:
        """Passes the event on."""
        self._emit(event)
        if isinstance(event, CostForeseen):
            self._is_due = False
        elif self._is_due and (waited := time.monotonic() - self._since) > _PATIENCE_S:
            self._is_due = False
            self._emit(Notice(text=f"no estimate yet after {waited:.0f} s: {_doing(event, waited)}"))


def _doing(event: Event, waited_s: float) -> str:
    """Returns what a dry run is doing, with the time left where the event tells it."""
    if isinstance(event, DataPrepared):
        text = f"{event.done:,} images are decoded"
        if event.total and event.done:
            return f"{text} of {event.total:,}, about {waited_s * (event.total / event.done - 1):.0f} s left"
        return text
    if isinstance(event, TrainingProgressed):
        return f"the first network is trained for a moment, {event.images_seen:,} images so far"
    if isinstance(event, DeviceAwaited):
        return f"another process holds {event.device}"
    return "the first network is timed, then trained for a moment"


def _draw_networks(setting: Setting) -> list[Subject]:
    """Returns a few of the space's networks, one of them an anchor where there is one, the smallest first.

    Where another machine timed, they are of those that it timed.
    """
    if setting.timed is not None:
        return [record.subject for record in setting.timed if record.subject.arch is not None][:_NETWORKS]
    random, space = Random(0), setting.space
    subjects = [Subject(arch=anchor.arch) for anchor in space.anchors[:1]]
    subjects += [Subject(arch=space.decode(space.sample(random))) for _ in range(_NETWORKS - len(subjects))]
    return sorted(subjects, key=lambda subject: _macs(subject, setting))


def _macs(subject: Subject, setting: Setting) -> int:
    """Multiply-adds of a network at the size of the training images."""
    assert subject.arch is not None
    return count_macs(subject.arch, setting.plan.img_size, num_classes=setting.data.num_classes)


def try_networks(
    evaluator: Evaluator, setting: Setting, subjects: Sequence[Subject], emit: Emit
) -> list[tuple[float, float]]:
    """Returns each network's seconds of timing and of training; those that fail are told and left out."""
    tried = []
    for subject in subjects:
        try:
            begun = time.monotonic()
            for condition in setting.conditions if setting.timed is None else ():
                run_task(evaluator, setting.tasks.time([subject], condition), emit)
            timed = time.monotonic() - begun
            tried.append((timed, _training_seconds(evaluator, subject, setting, emit)))
        except HiloNasError as error:
            name = "one network" if subject.arch else subject.key
            emit(Notice(level="warning", text=f"{name} could not be tried: {error}"))
    return tried


def _training_seconds(evaluator: Evaluator, subject: Subject, setting: Setting, emit: Emit) -> float:
    """Seconds that the whole scoring of a network would take."""
    plan = setting.plan

    def attempt(images: int) -> Attempt:
        seen: list[tuple[int, float]] = []

        def watch(event: Event) -> None:
            if isinstance(event, TrainingProgressed):
                seen.append((event.images_seen, time.monotonic()))
            emit(event)

        short = dataclasses.replace(plan, images=images, rungs=())
        score = run_task(evaluator, setting.tasks.score(subject, 0, plan=short), watch).score
        return Attempt(seconds=score.seconds, progress=tuple(seen))

    return plan.declaration.estimate_seconds(plan.budgets[-1], plan.batch_size, attempt)
