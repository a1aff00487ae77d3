"""Brief timings and trainings of a few networks, to estimate what a search costs."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Sequence

from hilo_nas.arch.cost import count_macs
from hilo_nas.errors import HiloNasError
from hilo_nas.evaluation import Evaluator, run_task
from hilo_nas.events import Emit, Event, Notice, TrainingProgressed
from hilo_nas.proxy.kinds import Attempt
from hilo_nas.searching.opening.study_setup import StudySetup
from hilo_nas.space import draw_networks
from hilo_nas.study.records import Subject

__all__ = ["TriedNetwork", "count_training_macs", "draw_subjects", "try_networks"]

_DRAWS = 500
"""Number of combinations of knob values among which networks within the limits are sought."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TriedNetwork:
    """Estimated cost of one network."""

    timing_s: float
    training_s: float
    """Seconds of a training with the full budget."""
    per_image_s: float
    """Part of `training_s` that grows with the budget, per training image. 0 for a proxy without rungs."""

    @property
    def seconds(self) -> float:
        """Seconds of the timing and a full training."""
        return self.timing_s + self.training_s


def draw_subjects(setup: StudySetup, count: int) -> list[Subject]:
    """Returns a few networks of the space, the smallest first, including an anchor if there is one.

    Random networks are within the limits on parameters and multiply-adds, if such networks are found. With copied
    timings, the networks come from the study with the timings.
    """
    if setup.timed is not None:
        timed = [record.subject for record in setup.timed if record.subject.arch is not None][:count]
        return sorted(timed, key=lambda subject: count_training_macs(subject, setup))
    subjects = [Subject(arch=anchor.arch) for anchor in setup.space.anchors[:1]]
    for limits in ({**setup.space.limits, **setup.limits}, {}):
        drawn = draw_networks(
            setup.space,
            limits,
            img_size=setup.conditions[0].img_size,
            num_classes=setup.data.num_classes,
            draws=_DRAWS,
        )
        subjects += [Subject(arch=arch) for arch, _ in itertools.islice(drawn, count - len(subjects))]
    return sorted(subjects, key=lambda subject: count_training_macs(subject, setup))


def count_training_macs(subject: Subject, setup: StudySetup) -> int:
    """Returns the multiply-adds of a network at the size of the training images."""
    assert subject.arch is not None
    return count_macs(subject.arch, setup.plan.img_size, num_classes=setup.data.num_classes)


def try_networks(
    evaluator: Evaluator, setup: StudySetup, subjects: Sequence[Subject], emit: Emit
) -> list[TriedNetwork]:
    """Returns the estimated cost of each network, from a timing and a brief training.

    Networks that fail are left out with a warning.
    """
    tried = []
    for subject in subjects:
        try:
            begun = time.monotonic()
            for condition in setup.conditions if setup.timed is None else ():
                run_task(evaluator, setup.tasks.time([subject], condition), emit)
            timing_s = time.monotonic() - begun
            tried.append(_estimate_training(evaluator, subject, setup, emit, timing_s=timing_s))
        except HiloNasError as error:
            name = "one network" if subject.arch else subject.key
            emit(Notice(level="warning", text=f"{name} could not be timed and trained: {error}"))
    return tried


def _estimate_training(
    evaluator: Evaluator, subject: Subject, setup: StudySetup, emit: Emit, *, timing_s: float
) -> TriedNetwork:
    """Returns the estimated cost of scoring a network with the full budget."""
    plan = setup.plan

    @functools.cache
    def attempt(images: int) -> Attempt:
        seen: list[tuple[int, float]] = []

        def watch(event: Event) -> None:
            if isinstance(event, TrainingProgressed):
                seen.append((event.images_seen, time.monotonic()))
            emit(event)

        short = dataclasses.replace(plan, images=images, rungs=())
        score = run_task(evaluator, setup.tasks.score(subject, 0, plan=short), watch).score
        return Attempt(seconds=score.seconds, progress=tuple(seen))

    def estimate(images: int) -> float:
        return plan.declaration.estimate_seconds(images, plan.batch_size, attempt)

    full = plan.budgets[-1]
    training_s = estimate(full)
    # The estimate of a training is linear in the images. Other proxies would run in full for another budget.
    per_image_s = (estimate(2 * full) - training_s) / full if plan.declaration.has_rungs else 0.0
    return TriedNetwork(timing_s=timing_s, training_s=training_s, per_image_s=per_image_s)
