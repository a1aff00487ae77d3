"""Choice of the number of trials and of the training images per network that fit into a given time."""

from __future__ import annotations

import dataclasses
import math

from hilo_nas.errors import UsageError
from hilo_nas.searching.configuration.resolve import DEFAULT_RUNGS, DEFAULT_TRIALS
from hilo_nas.searching.configuration.rung_budgets import rungs_of
from hilo_nas.searching.halving.rungs import expected_training_share
from hilo_nas.text.durations import duration

__all__ = ["FEWEST_IMAGES", "MOST_PASSES", "BudgetChoice", "TrialCost", "choose_budget"]

FEWEST_IMAGES = 4_608
"""Smallest budget to propose. In the stored check of `litv2_cifar`, scores after this budget rank networks of similar
speed with a tau of .21 [-.05, .50]."""
MOST_PASSES = 20
"""Maximum number of passes over the training images. An assumption; it was not measured."""
_FEWEST_TRIALS = 12
_RUNG_BATCHES = 10
"""Minimum number of batches before the first rung."""
_TOLERANCE = 1.02
"""Budgets are whole batches and rungs whole images, so a choice can exceed the time by little."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialCost:
    """Mean cost of a trial: a timing, and for a share of the networks a training."""

    timing_s: float
    trained_share: float
    """Share of trials that meet the limits and are trained, from 0 to 1."""
    fixed_s: float
    """Seconds of a training that do not depend on the number of images."""
    per_image_s: float
    """Seconds of a training per training image."""

    def seconds(self, images: int, share: float) -> float:
        """Returns the mean seconds per trial.

        Args:
            images: Training images of the full budget.
            share: Expected training cost of a network as a share of a full training.
        """
        return self.timing_s + self.trained_share * share * (self.fixed_s + self.per_image_s * images)

    def images(self, seconds: float, share: float) -> float:
        """Returns the full budget that a mean number of seconds per trial allows. May be negative."""
        paid = max(self.trained_share * share, 1e-9)
        return ((seconds - self.timing_s) / paid - self.fixed_s) / max(self.per_image_s, 1e-12)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BudgetChoice:
    """Number of trials, and budget of the trainings."""

    trials: int
    images: int
    rungs: int


def choose_budget(
    cost: TrialCost,
    *,
    seconds: float,
    batch_size: int,
    ratio: float,
    reduction_factor: float | None,
    most_images: int,
    trials: int | None = None,
    images: int | None = None,
    rungs: int | None = None,
) -> BudgetChoice:
    """Returns the number of trials and the budget that use the given time.

    Up to 40 trials, more time goes into longer trainings. At `most_images`, it goes into more trials. If the time
    allows less than `FEWEST_IMAGES` per network, there are fewer trials.

    Args:
        cost: Mean cost of a trial.
        seconds: Time for all trials.
        batch_size: Training images per batch. Budgets below `most_images` are whole batches.
        ratio: Training images at a rung divided by those at the previous rung.
        reduction_factor: Reduction factor of successive halving; None if all networks are trained fully.
        most_images: Largest budget to propose.
        trials: Number of trials if it is given.
        images: Budget if it is given.
        rungs: Number of rungs if it is given.

    Raises:
        UsageError: The time is too short.
    """

    def whole(value: float) -> int:
        return max(math.floor(value / batch_size), 1) * batch_size

    def share_at(budget: int, count: int) -> float:
        return expected_training_share((*rungs_of(budget, count=count, ratio=ratio), budget), reduction_factor)

    def rungs_at(budget: float) -> int:
        if rungs is not None:
            return rungs
        fitting = math.floor(math.log(max(budget / (_RUNG_BATCHES * batch_size), 1.0), ratio)) + 1
        return min(fitting, DEFAULT_RUNGS)

    def images_for(count: int) -> float:
        """Returns the budget for a number of trials, with as many rungs as it allows."""
        budget = 0.0
        for tried in range(rungs or DEFAULT_RUNGS, 0, -1):
            budget = cost.images(seconds / count, share_at(1_000_000, tried))
            if rungs_at(budget) >= tried:
                break
        return budget

    if images is None:
        fitting = images_for(trials or DEFAULT_TRIALS)
        images = min(max(whole(fitting), whole(FEWEST_IMAGES + batch_size - 1)), most_images)
    trial_s, least = cost.seconds(images, share_at(images, rungs_at(images))), trials or _FEWEST_TRIALS
    if least * trial_s > _TOLERANCE * seconds:
        each = f" at {images:,} training images" if cost.per_image_s else ""
        raise UsageError(
            f"{least} networks{each} take about {duration(least * trial_s)}, but there are "
            f"{duration(max(seconds, 0))} for them. Use more --hours, smaller images (--proxy-img-size), a space with "
            "smaller networks, or a faster --device."
        )
    return BudgetChoice(trials=trials or int(seconds / trial_s), images=images, rungs=rungs_at(images))
