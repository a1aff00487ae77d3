"""Choice of the number of trials and of the training images per network that fit into a given time."""

from __future__ import annotations

import dataclasses
import math

from hilo_nas.errors import UsageError
from hilo_nas.searching.configuration.resolve import DEFAULT_RUNGS, DEFAULT_TRIALS
from hilo_nas.searching.configuration.rung_budgets import rungs_of
from hilo_nas.searching.halving.rungs import expected_training_share
from hilo_nas.text.durations import duration

__all__ = ["FEWEST_IMAGES", "MOST_PASSES", "Budget", "GivenBudget", "SearchCosts", "choose_budget"]

FEWEST_IMAGES = 4_608
"""Smallest budget to choose, unless the space's own budget or the images are fewer. In the stored check of
`litv2_cifar`, scores after this budget rank networks of similar speed with a tau of .21 [-.05, .50]."""
MOST_PASSES = 20
"""Maximum number of passes over the training images. An assumption; it was not measured."""
_FEWEST_TRIALS = 12
_RUNG_BATCHES = 10
"""Minimum number of batches before the first rung."""
_TOLERANCE = 1.02
"""Budgets below `most_images` are whole batches and rungs whole images, so a choice can exceed the time by little."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchCosts:
    """Costs of a search in seconds. Each trial has a timing, and a share of the trials a training."""

    timing_s: float
    """Mean seconds of a timing."""
    trained_share: float
    """Share of trials that meet the limits and are trained, from 0 to 1."""
    fixed_s: float
    """Mean seconds of a training that do not depend on the number of images."""
    per_image_s: float
    """Mean seconds of a training per training image."""
    extra_s: float = 0.0
    """Seconds in addition to the trials, for baselines and confirmation, that do not depend on the number of images."""
    extra_per_image_s: float = 0.0
    """Seconds in addition to the trials per training image."""

    def total_s(self, trials: int, images: int, training_share: float) -> float:
        """Returns the seconds of a search.

        Args:
            trials: Number of trials.
            images: Training images of the full budget.
            training_share: Expected training cost of a network as a share of a full training.
        """
        trained = self.trained_share * training_share
        trial_s = self.timing_s + trained * (self.fixed_s + self.per_image_s * images)
        return trials * trial_s + self.extra_s + self.extra_per_image_s * images

    def on_devices(self, count: int) -> SearchCosts:
        """Returns the costs of a search that runs a trial on each of several devices at the same time."""
        seconds = ("timing_s", "fixed_s", "per_image_s", "extra_s", "extra_per_image_s")
        return dataclasses.replace(self, **{name: getattr(self, name) / count for name in seconds})

    def images_for(self, trials: int, seconds: float, training_share: float) -> float:
        """Returns the full budget with which a search takes the given time. May be negative."""
        trained = trials * self.trained_share * training_share
        fixed = trials * self.timing_s + trained * self.fixed_s + self.extra_s
        return (seconds - fixed) / max(trained * self.per_image_s + self.extra_per_image_s, 1e-12)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """Number of trials, and budget of the trainings."""

    trials: int
    images: int
    rungs: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenBudget:
    """The parts of a budget that are given; None for those to choose."""

    trials: int | None = None
    images: int | None = None
    rungs: int | None = None


def choose_budget(
    costs: SearchCosts,
    given: GivenBudget,
    *,
    seconds: float,
    batch_size: int,
    ratio: float,
    reduction_factor: float | None,
    most_images: int,
    most_trials: int,
) -> Budget:
    """Returns the number of trials and the budget that use the given time.

    From `FEWEST_IMAGES` on, up to 40 trials, more time goes into longer trainings. At `most_images`, it goes into more
    trials.

    Args:
        costs: Costs of the search.
        given: Parts of the budget that are given.
        seconds: Time for all trials, baselines and confirmations.
        batch_size: Training images per batch. Budgets below `most_images` are whole batches.
        ratio: Training images at a rung divided by those at the previous rung.
        reduction_factor: Reduction factor of successive halving; None if all networks are trained fully.
        most_images: Largest budget to choose.
        most_trials: Number of networks that exist.

    Raises:
        UsageError: The time is too short.
    """

    def whole(value: float) -> int:
        return max(math.floor(value / batch_size), 1) * batch_size

    def share_at(images: int, rungs: int) -> float:
        return expected_training_share((*rungs_of(images, count=rungs, ratio=ratio), images), reduction_factor)

    def rungs_at(images: float) -> int:
        if given.rungs is not None:
            return given.rungs
        fitting = math.floor(math.log(max(images / (_RUNG_BATCHES * batch_size), 1.0), ratio)) + 1
        return min(fitting, DEFAULT_RUNGS)

    def images_for(trials: int) -> float:
        """Returns the budget for a number of trials, with as many rungs as it allows."""
        images = 0.0
        for rungs in range(given.rungs or DEFAULT_RUNGS, 0, -1):
            images = costs.images_for(trials, seconds, share_at(1_000_000, rungs))
            if rungs_at(images) >= rungs:
                break
        return images

    images = given.images
    if images is None:
        fitting = images_for(given.trials or min(DEFAULT_TRIALS, most_trials))
        images = min(max(whole(fitting), whole(FEWEST_IMAGES + batch_size - 1)), most_images)
    share, fewest = share_at(images, rungs_at(images)), given.trials or min(_FEWEST_TRIALS, most_trials)
    if (needed := costs.total_s(fewest, images, share)) > _TOLERANCE * seconds:
        each = f" at {images:,} training images" if costs.per_image_s else ""
        raise UsageError(
            f"{fewest} networks{each} take about {duration(needed)}, but there are {duration(max(seconds, 0))} for "
            "them. Use more hours, smaller images, a space with smaller networks, a faster device, or fewer images or "
            "trials where they are given."
        )
    extra_s = costs.total_s(0, images, share)
    fitting = (seconds - extra_s) / max(costs.total_s(1, images, share) - extra_s, 1e-9)
    return Budget(
        trials=given.trials or min(max(int(fitting), fewest), most_trials), images=images, rungs=rungs_at(images)
    )
